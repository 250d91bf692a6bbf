"""Creation and upgrade of the tables, by one processor while others wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from tracker.interfaces import SinkUnusable
from tracker.storage.migrations import check_version, scripts
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import Connection, connect, error_text, transaction

#: Advisory lock that is held while tables are created or changed.
_LOCK: Final = 0x7472_6163_6B65_7201

_CREATE_VERSIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_version (
    version    integer     PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_IS_HYPERTABLE: Final = """
SELECT EXISTS (
    SELECT FROM timescaledb_information.hypertables
    WHERE format('%I.%I', hypertable_schema, hypertable_name)::regclass = 'positions'::regclass
)
"""
_CREATE_HYPERTABLE: Final = """
SELECT create_hypertable('positions', 'ts', create_default_indexes => FALSE, migrate_data => TRUE)
"""


def version_of(connection: Connection) -> int:
    """Return the version of the tables in a database; 0 if it has none."""
    if _value(connection, "SELECT to_regclass('schema_version')") is None:
        return 0
    return int(_value(connection, "SELECT coalesce(max(version), 0) FROM schema_version"))


def is_current(connection: Connection, address: PostgreSQLAddress, migrate: bool) -> bool:
    """Return True if the tables have this program's version.

    :param migrate: the tables may be created and upgraded.
    :raises SinkUnusable: if they have another version and must not, or cannot, be upgraded.
    """
    found, known = version_of(connection), len(scripts("postgresql"))
    check_version(found, known, address.url, url=address.url, migrate=migrate)
    if found < known:
        return False
    if address.timescale:
        if _is_hypertable(connection):
            return True
        if not migrate:
            raise SinkUnusable(
                f"table positions is not a hypertable in {address.url}: run tracker-admin migrate "
                f"--sink '{address.url}?timescale=1'"
            )
        return False
    return True


def migrate(address: PostgreSQLAddress) -> tuple[int, int]:
    """Connect, and create or upgrade the tables.

    :return: the versions before and after.
    :raises SinkUnusable: if that fails.
    """
    try:
        with connect(address) as connection:
            return upgrade(connection, address)
    except psycopg.Error as error:
        raise SinkUnusable(f"cannot use the database {address.url}: {error_text(error)}") from None


def upgrade(
    connection: Connection,
    address: PostgreSQLAddress,
    files: Sequence[str] | None = None,
) -> tuple[int, int]:
    """Create or upgrade the tables atomically. This may take hours.

    :param files: the scripts of all versions; None: those of this program.
    :return: the versions before and after.
    :raises SinkUnusable: if the database is newer, or TimescaleDB is required and missing.
    """
    if files is None:
        files = scripts("postgresql")
    with _exclusive(connection), transaction(connection):
        connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        before = version_of(connection)
        check_version(before, len(files), address.url, url=address.url, migrate=True)
        if before == 0:
            connection.execute(_CREATE_VERSIONS)
        for number, script in enumerate(files[before:], before + 1):
            connection.execute(script)
            connection.execute("INSERT INTO schema_version (version) VALUES (%s)", (number,))
        if address.timescale and not _is_hypertable(connection):
            _create_hypertable(connection, address)
    return before, len(files)


@contextmanager
def _exclusive(connection: Connection) -> Iterator[None]:
    """Hold the lock. A second process waits for the first, and then has nothing to upgrade."""
    # The lock is taken in a separate transaction. Only a transaction that begins after the wait is
    # certain to see new tables, since this connection may have cached that they did not exist.
    with transaction(connection):
        connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _is_hypertable(connection: Connection) -> bool:
    if _value(connection, "SELECT to_regclass('timescaledb_information.hypertables')") is None:
        return False
    return bool(_value(connection, _IS_HYPERTABLE))


def _create_hypertable(connection: Connection, address: PostgreSQLAddress) -> None:
    available = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
    if not _value(connection, available):
        raise SinkUnusable(
            f"timescale=1 requires the extension timescaledb, which is missing on the server of "
            f"{address.url}: install it, or remove timescale=1"
        )
    connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    connection.execute(_CREATE_HYPERTABLE)


def _value(connection: Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101 - each of these queries has one row
    return row[0]
