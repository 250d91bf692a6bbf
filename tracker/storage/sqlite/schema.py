"""Creation and upgrade of the tables, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from tracker.storage.migrations import check_version, scripts
from tracker.storage.sqlite.connection import cannot_open, connect, transaction


def version_of(database: sqlite3.Connection) -> int:
    """Return the version of the tables in a database; 0 if it has none."""
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


def migrate(path: str) -> tuple[int, int]:
    """Create or upgrade the tables of a file, which is created if missing.

    :return: the versions before and after.
    :raises SinkUnusable: if that fails.
    """
    try:
        database = connect(path)
        try:
            return upgrade(database, path)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise cannot_open(path, error) from error


def upgrade(
    database: sqlite3.Connection, path: str, allowed: bool = True, target: int | None = None
) -> tuple[int, int]:
    """Create or upgrade the tables atomically.

    :param allowed: the tables may be created and upgraded.
    :param target: the version at which to stop; None: the latest one.
    :return: the versions before and after.
    :raises SinkUnusable: if the database is newer, or older and must not be upgraded.
    """
    files = scripts("sqlite")
    with transaction(database):
        before = version_of(database)
        check_version(before, len(files), path, url=f"sqlite:{path}", migrate=allowed)
        for number, script in enumerate(files[before:target], before + 1):
            for statement in _statements(script):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
        return before, version_of(database)


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the surrounding transaction.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
