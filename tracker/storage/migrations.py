"""Schemas as numbered SQL files, each of which upgrades a database by one version.

The first files made the tables. A later file only adds nullable columns or tables, so that earlier
programs can use the database too. Its first line names the oldest of them::

    -- readable_from: 0.1.0

Programs before this rule refuse a database whose ``schema_version`` (in SQLite, ``user_version``)
exceeds what they know. Later files therefore leave it unchanged, and are recorded in the table
``schema_migrations``, which the first of them creates.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Final

from attrs import field, frozen

from tracker import __version__
from tracker.interfaces import SinkUnusable
from tracker.observe.findings import Finding, failure, ok
from tracker.untrusted import shown

_READABLE_FROM: Final = re.compile(r"-- readable_from: ([0-9]+(?:\.[0-9]+)*)\n")
_PROGRAM_VERSION: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")
_UPGRADE: Final = "/opt/tracker/bin/pip install --upgrade tracker-plane"


@frozen
class Migration:
    """One file of a schema."""

    version: int
    """Version of the schema after it."""
    script: str
    readable_from: str | None
    """Oldest version of Tracker that can use the tables after it; None: made the tables."""


@frozen
class Schema:
    """The migrations that were applied to a database."""

    base: int = 0
    """Number of the files that made the tables; 0: the database has no tables."""
    additions: Mapping[int, str] = field(factory=dict)
    """Version → ``readable_from`` of each later migration."""

    @property
    def version(self) -> int:
        """The version of the tables."""
        return max((self.base, *self.additions))

    def lacks(self, migration: Migration) -> bool:
        """Return True if a migration was not applied."""
        if migration.readable_from is None:
            return migration.version > self.base
        return migration.version not in self.additions

    def requires(self, known: Sequence[Migration]) -> str | None:
        """Return the version of Tracker that migrations unknown to this program require.

        :param known: the migrations that this program knows.
        :return: a later version than this one, or None.
        """
        latest = known[-1].version
        later = [needed for version, needed in self.additions.items() if version > latest]
        oldest = max(later, key=_numbers, default="0")
        return oldest if _numbers(oldest) > _numbers(__version__) else None


@lru_cache
def migrations(kind: str) -> tuple[Migration, ...]:
    """Return the migrations of a kind of database, in their order."""
    folder = resources.files(__package__) / kind
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".sql"))
    return tuple(
        migration(number, (folder / name).read_text(encoding="utf-8"))
        for number, name in enumerate(names, 1)
    )


def migration(version: int, script: str) -> Migration:
    """Return the migration in the content of a file."""
    header = _READABLE_FROM.match(script)
    return Migration(version, script, None if header is None else header[1])


def _numbers(version: str) -> tuple[float, ...]:
    """Return a version of Tracker for comparisons; a malformed one exceeds all others."""
    found = _PROGRAM_VERSION.match(version)
    if found is None:
        return (float("inf"),)
    numbers = [int(number) for number in found[0].split(".")]
    while numbers and not numbers[-1]:  # 1.0 equals 1
        numbers.pop()
    return tuple(numbers)


def check_schema(
    found: Schema, known: Sequence[Migration], database: str, *, url: str, migrate: bool
) -> None:
    """Refuse a database that this program cannot use, or whose tables it may not upgrade.

    :param found: the migrations of the database.
    :param known: the migrations that this program knows.
    :param database: the name of the database in messages.
    :param url: the URL of the sink without its password.
    :param migrate: the tables may be created and upgraded.
    :raises SinkUnusable: if the database is refused; the text names the remedy.
    """
    if (text := _too_new(found, known)) is not None:
        raise SinkUnusable(f"database {database} has {text}: upgrade Tracker")
    if not migrate and any(map(found.lacks, known)):
        raise SinkUnusable(
            f"database {database} has schema version {found.version}, but this Tracker requires "
            f"{known[-1].version}: run tracker-admin migrate --sink {url}"
        )


def judge_schema(found: Schema, known: Sequence[Migration], database: str, url: str) -> Finding:
    """Return the finding on the tables of a database.

    :param found: the migrations of the database.
    :param known: the migrations that this program knows.
    :param url: the URL of the sink without its password.
    """
    if (text := _too_new(found, known)) is not None:
        return failure(f"{database} has {text}", _UPGRADE)
    latest = known[-1].version
    if not any(map(found.lacks, known)):
        text = f"{database}: schema version {found.version}"
        later = f"; this Tracker knows {latest}, and can use it" if found.version > latest else ""
        return ok(text + later)
    migrate = f"tracker-admin migrate --sink {shlex.quote(url)}"
    if not found.version:
        return failure(f"{database} has no tables of Tracker", migrate)
    return failure(
        f"{database} has schema version {found.version}, but this Tracker requires {latest}",
        migrate,
    )


def _too_new(found: Schema, known: Sequence[Migration]) -> str | None:
    base = sum(one.readable_from is None for one in known)
    if found.base > base:
        return f"schema version {found.base}, but this Tracker supports only {known[-1].version}"
    if (needed := found.requires(known)) is not None:
        return (
            f"schema version {found.version}, which requires Tracker {shown(needed)} or later; "
            f"this is {__version__}"
        )
    return None
