"""Creation and upgrade of the tables, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from tracker.storage.migrations import Migration, Schema, check_schema, migrations
from tracker.storage.sqlite.connection import cannot_open, connect, transaction

_HAS_MIGRATIONS: Final = "SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations'"
_RECORD: Final = """
INSERT INTO schema_migrations (version, readable_from, applied_at)
VALUES (?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
"""


def applied(database: sqlite3.Connection) -> Schema:
    """Return the migrations that were applied to a database."""
    (base,) = database.execute("PRAGMA user_version").fetchone()
    if not database.execute(_HAS_MIGRATIONS).fetchone():
        return Schema(base)
    rows = database.execute("SELECT version, readable_from FROM schema_migrations")
    return Schema(base, dict(rows))


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
    known = migrations("sqlite")
    with transaction(database):
        before = applied(database)
        check_schema(before, known, path, url=f"sqlite:{path}", migrate=allowed)
        for migration in filter(before.lacks, known[:target]):
            _apply(database, migration)
        return before.version, applied(database).version


def _apply(database: sqlite3.Connection, migration: Migration) -> None:
    for statement in _statements(migration.script):
        database.execute(statement)
    if migration.readable_from is None:
        database.execute(f"PRAGMA user_version = {migration.version}")
    else:
        database.execute(_RECORD, (migration.version, migration.readable_from))


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the surrounding transaction.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
