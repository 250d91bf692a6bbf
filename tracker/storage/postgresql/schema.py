"""The tables, made and upgraded by one processor while others wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from tracker.interfaces import SinkUnusable
from tracker.storage.migrations import check_version, scripts
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import Connection, connect, told, transaction

#: Advisory lock that is held while tables are made or changed.
_LOCK: Final = 0x7472_6163_6B65_7201

_MAKE_VERSIONS: Final = """
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
_MAKE_HYPERTABLE: Final = """
SELECT create_hypertable('positions', 'ts', create_default_indexes => FALSE, migrate_data => TRUE)
"""


def version_of(connection: Connection) -> int:
    """Return the version of the tables in a database; 0 if there are none."""
    if _value(connection, "SELECT to_regclass('schema_version')") is None:
        return 0
    return int(_value(connection, "SELECT coalesce(max(version), 0) FROM schema_version"))


def is_current(connection: Connection, address: PostgreSQLAddress, migrate: bool) -> bool:
    """Return whether the tables have this program's version.

    :param migrate: True if they may be changed otherwise.
    :raises SinkUnusable: if they have another version and must not, or cannot, be changed.
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
                f"positions is no hypertable in {address.url}: run tracker-admin migrate "
                f"--sink '{address.url}?timescale=1'"
            )
        return False
    return True


def migrate(address: PostgreSQLAddress) -> tuple[int, int]:
    """Connect, and bring the tables up to date.

    :return: the version before and after.
    :raises SinkUnusable: if that fails.
    """
    try:
        with connect(address) as connection:
            return upgrade(connection, address)
    except psycopg.Error as error:
        raise SinkUnusable(f"cannot use the database {address.url}: {told(error)}") from None


def upgrade(
    connection: Connection,
    address: PostgreSQLAddress,
    files: Sequence[str] | None = None,
) -> tuple[int, int]:
    """Bring the tables up to date, or change nothing. This may take hours.

    :param files: the scripts of all versions; ours if not given.
    :return: the version before and after.
    :raises SinkUnusable: if the database is newer, or TimescaleDB is required and missing.
    """
    if files is None:
        files = scripts("postgresql")
    with _alone(connection), transaction(connection):
        connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        before = version_of(connection)
        check_version(before, len(files), address.url, url=address.url, migrate=True)
        if before == 0:
            connection.execute(_MAKE_VERSIONS)
        for number, script in enumerate(files[before:], before + 1):
            connection.execute(script)
            connection.execute("INSERT INTO schema_version (version) VALUES (%s)", (number,))
        if address.timescale and not _is_hypertable(connection):
            _make_hypertable(connection, address)
    return before, len(files)


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Hold the lock. A second process waits for the first, and then finds nothing to do."""
    # A transaction of its own: only one that begins after the wait sees new tables for sure,
    # since this connection may remember that there were none.
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


def _make_hypertable(connection: Connection, address: PostgreSQLAddress) -> None:
    available = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
    if not _value(connection, available):
        raise SinkUnusable(
            f"timescale=1: the server of {address.url} has no extension timescaledb: install it "
            "there, or leave timescale=1 out"
        )
    connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    connection.execute(_MAKE_HYPERTABLE)


def _value(connection: Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101 - each of these queries has one row
    return row[0]
