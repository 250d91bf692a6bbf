"""Schemas as numbered SQL files, each of which takes a database one version further."""

from __future__ import annotations

import shlex
from functools import lru_cache
from importlib import resources

from tracker.interfaces import SinkUnusable
from tracker.observe.findings import Finding, failure, ok


@lru_cache
def scripts(kind: str) -> tuple[str, ...]:
    """Return the files ``0001.sql`` and on of a database's package; the first makes version 1."""
    folder = resources.files(__package__) / kind
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".sql"))
    return tuple((folder / name).read_text(encoding="utf-8") for name in names)


def check_version(found: int, known: int, database: str, *, url: str, migrate: bool) -> None:
    """Refuse a database that this program does not know, or may not upgrade.

    :param known: the latest version that this program knows.
    :param database: its name for people.
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


def judge_schema(found: int, known: int, database: str, url: str) -> Finding:
    """Return the finding on the version of a database's tables; 0: it has none.

    :param known: the version of this program.
    :param url: of the sink, without password.
    """
    if found == known:
        return ok(f"{database}: schema {found}")
    if found > known:
        return failure(
            f"{database} has schema {found}, this version of Tracker knows {known}",
            "/opt/tracker/bin/pip install --upgrade tracker",
        )
    migrate = f"tracker-admin migrate --sink {shlex.quote(url)}"
    if not found:
        return failure(f"{database} has no tables of Tracker", migrate)
    return failure(f"{database} has schema {found}, this version needs {known}", migrate)
