"""Schemas as numbered SQL files, each of which upgrades a database by one version."""

from __future__ import annotations

import shlex
from functools import lru_cache
from importlib import resources

from tracker.interfaces import SinkUnusable
from tracker.observe.findings import Finding, failure, ok


@lru_cache
def scripts(kind: str) -> tuple[str, ...]:
    """Return the content of ``0001.sql``, which creates version 1, and of the later files."""
    folder = resources.files(__package__) / kind
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".sql"))
    return tuple((folder / name).read_text(encoding="utf-8") for name in names)


def check_version(found: int, known: int, database: str, *, url: str, migrate: bool) -> None:
    """Refuse a database whose version is unsupported or may not be upgraded.

    :param found: the version of the database.
    :param known: the latest version that this program supports.
    :param database: the name of the database in messages.
    :param url: the URL of the sink without its password.
    :param migrate: the database may be upgraded.
    :raises SinkUnusable: if the database is refused; the text names the remedy.
    """
    if found > known:
        raise SinkUnusable(
            f"database {database} has schema version {found}, but this Tracker supports only "
            f"{known}: upgrade Tracker"
        )
    if found < known and not migrate:
        raise SinkUnusable(
            f"database {database} has schema version {found}, but this Tracker requires "
            f"{known}: run tracker-admin migrate --sink {url}"
        )


def judge_schema(found: int, known: int, database: str, url: str) -> Finding:
    """Return the finding on the version of a database's tables.

    :param found: the version of the database; 0: it has no tables.
    :param known: the version of this program.
    :param url: the URL of the sink without its password.
    """
    if found == known:
        return ok(f"{database}: schema version {found}")
    if found > known:
        return failure(
            f"{database} has schema version {found}, but this Tracker supports only {known}",
            "/opt/tracker/bin/pip install --upgrade tracker",
        )
    migrate = f"tracker-admin migrate --sink {shlex.quote(url)}"
    if not found:
        return failure(f"{database} has no tables of Tracker", migrate)
    return failure(
        f"{database} has schema version {found}, but this Tracker requires {known}", migrate
    )
