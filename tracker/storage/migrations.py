"""Schemas as numbered SQL files, each of which takes a database one version further."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from tracker.interfaces import SinkUnusable


@lru_cache
def scripts(kind: str) -> tuple[str, ...]:
    """The files ``schema/KIND-0001.sql`` and on; the first one makes version 1."""
    folder = resources.files(__package__) / "schema"
    names = sorted(one.name for one in folder.iterdir() if one.name.startswith(f"{kind}-"))
    return tuple((folder / name).read_text(encoding="utf-8") for name in names)


def check_version(found: int, known: int, database: str, url: str, migrate: bool) -> None:
    """Refuse a database that this program does not know, or may not upgrade.

    :param known: the latest version that this program knows.
    :param database: how a person names it.
    :param url: of the sink, without its password.
    :raises SinkUnusable: says what to do.
    """
    if found > known:
        raise SinkUnusable(
            f"the database {database} has schema {found}, this version of Tracker knows "
            f"{known}: upgrade Tracker"
        )
    if found < known and not migrate:
        raise SinkUnusable(
            f"the database {database} has schema {found}, this version of Tracker needs "
            f"{known}: run tracker-admin migrate --sink {url}"
        )
