"""The tables, made and upgraded in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from tracker.storage.migrations import check_version, scripts
from tracker.storage.sqlite.connection import cannot_open, connect, transaction


def version_of(database: sqlite3.Connection) -> int:
    """Return the version of the tables in a database; 0 if there are none."""
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


def migrate(path: str) -> tuple[int, int]:
    """Bring the tables of a file up to date; make the file if there is none.

    :return: the version before and after.
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
    """Bring the tables up to date, or change nothing.

    :param target: the version to stop at; the latest if not given.
    :return: the version before and after.
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
    # executescript() would commit the transaction that it is called in.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
