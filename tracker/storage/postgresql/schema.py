"""Creation and upgrade of the tables, by one processor while others wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg

from tracker.interfaces import SinkDown, SinkUnusable
from tracker.storage.migrations import Migration, Schema, check_schema, migrations
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import (
    Connection,
    cannot_open,
    connect,
    error_text,
    transaction,
)
from tracker.untrusted import shown

#: Attempts of :func:`migrate` to lock the tables, and seconds between two of them.
LOCK_ATTEMPTS: Final = 10
_LOCK_PAUSE: Final = 3.0

#: Advisory lock that is held while tables are created or changed.
_LOCK: Final = 0x7472_6163_6B65_7201

_CREATE_VERSIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_version (
    version    integer     PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
# While a statement waits for a long transaction, all later readers and writers of the table wait
# behind it. Another attempt follows later; in between they proceed. A waiting statement ends a run
# of autovacuum after deadlock_timeout, which is 1 s by default.
_TIMEOUTS: Final = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '2s'"
#: The session that has held a lock of one of the tables for longest.
_HOLDER: Final = """
SELECT pid, application_name, extract(epoch FROM now() - xact_start)::int
FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND pid IN (
    SELECT pid FROM pg_locks WHERE granted AND locktype = 'relation' AND relation IN (
        to_regclass('positions'), to_regclass('messages'), to_regclass('last_positions')
    )
)
ORDER BY xact_start LIMIT 1
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


def applied(connection: Connection) -> Schema:
    """Return the migrations that were applied to a database."""
    if _value(connection, "SELECT to_regclass('schema_version')") is None:
        return Schema()
    base = int(_value(connection, "SELECT coalesce(max(version), 0) FROM schema_version"))
    if _value(connection, "SELECT to_regclass('schema_migrations')") is None:
        return Schema(base)
    rows = connection.execute("SELECT version, readable_from FROM schema_migrations").fetchall()
    return Schema(base, dict(rows))


def is_current(connection: Connection, address: PostgreSQLAddress, migrate: bool) -> bool:
    """Return True if the tables have all that this program needs.

    :param migrate: the tables may be created and upgraded.
    :raises SinkUnusable: if this program cannot use them, or they must not be upgraded.
    """
    found, known = applied(connection), migrations("postgresql")
    check_schema(found, known, address.url, url=address.url, migrate=migrate)
    if any(map(found.lacks, known)):
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


def migrate(address: PostgreSQLAddress, attempts: int = LOCK_ATTEMPTS) -> tuple[int, int]:
    """Connect, and create or upgrade the tables.

    :param attempts: attempts to lock the tables while other sessions use them.
    :return: the versions before and after.
    :raises SinkUnusable: if that fails.
    :raises SinkDown: if it may succeed later, because the server cannot be reached.
    """
    try:
        with connect(address) as connection:
            for _ in range(attempts - 1):
                with suppress(SinkDown):
                    return upgrade(connection, address)
                time.sleep(_LOCK_PAUSE)
            return upgrade(connection, address)
    except SinkDown as error:
        raise SinkUnusable(f"{error}; end it, or run the command again later") from None
    except psycopg.Error as error:
        raise cannot_open(address, error, error_text(error)) from None


def upgrade(
    connection: Connection,
    address: PostgreSQLAddress,
    known: Sequence[Migration] | None = None,
) -> tuple[int, int]:
    """Create or upgrade the tables atomically. To create a hypertable may take hours.

    :param known: the migrations; None: those of this program.
    :return: the versions before and after.
    :raises SinkUnusable: if the database is newer, or TimescaleDB is required and missing.
    :raises SinkDown: if other sessions use the tables; writers wait while this program does.
    """
    if known is None:
        known = migrations("postgresql")
    try:
        with _exclusive(connection), transaction(connection):
            connection.execute(_TIMEOUTS)
            before = applied(connection)
            check_schema(before, known, address.url, url=address.url, migrate=True)
            if not before.base:
                connection.execute(_CREATE_VERSIONS)
            for migration in filter(before.lacks, known):
                _apply(connection, migration)
            if address.timescale and not _is_hypertable(connection):
                _create_hypertable(connection, address)
            return before.version, applied(connection).version
    except psycopg.errors.LockNotAvailable:
        raise SinkDown(_busy(connection, address)) from None


def _apply(connection: Connection, migration: Migration) -> None:
    connection.execute(migration.script)
    if migration.readable_from is None:
        connection.execute("INSERT INTO schema_version (version) VALUES (%s)", (migration.version,))
    else:
        connection.execute(
            "INSERT INTO schema_migrations (version, readable_from) VALUES (%s, %s)",
            (migration.version, migration.readable_from),
        )


def _busy(connection: Connection, address: PostgreSQLAddress) -> str:
    """Return the reason why the tables could not be locked."""
    row = connection.execute(_HOLDER).fetchone()
    text = f"the tables in {address.url} cannot be upgraded: another session uses them"
    if row is None:
        return text
    pid, name, seconds = row  # this user may not see the time of another user's session
    since = "" if seconds is None else f", for {seconds} s"
    return f"{text} (process {pid}, {shown(name or 'without a name')}{since})"


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
