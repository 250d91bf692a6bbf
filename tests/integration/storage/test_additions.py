"""Migrations after the first ones: they only add, at once, and earlier programs can go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import frozen
from click.testing import CliRunner
from pytest_twisted import ensureDeferred

from tests.integration.storage.batches import CHECKPOINT, stored
from tests.integration.storage.postgres import rows
from tests.waiting import wait_for
from tracker import __version__
from tracker.admin.cli import main
from tracker.interfaces import Batch, SinkDown, SinkUnusable
from tracker.storage.migrations import Migration, migrations
from tracker.storage.postgresql import schema as postgresql
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import Connection, connect
from tracker.storage.reader import QueryFailed, Search
from tracker.storage.sinks import make_sink, migrate_sink, open_reader
from tracker.storage.sqlite import schema as sqlite

Facts = Mapping[tuple[str, ...], Any]


@frozen
class Catalog:
    """The tables of a database."""

    columns: Facts
    """(table, column) → type, True if NULL is allowed, and default."""
    others: Facts
    """(table, …) → definition of an index or a constraint, or the file of the table."""

    def breaches(self, later: Catalog) -> set[tuple[str, ...]]:
        """Return what a migration did beyond adding nullable columns and tables.

        :param later: the tables after the migration.
        """
        tables = {table for table, *_ in self.columns}
        found = {name for name, facts in self.columns.items() if later.columns.get(name) != facts}
        found |= {name for name, facts in self.others.items() if later.others.get(name) != facts}
        added = later.columns.keys() - self.columns.keys()
        found |= {
            name for name in added if name[0] in tables and later.columns[name][1:] != (True, None)
        }
        found |= {name for name in later.others.keys() - self.others.keys() if name[0] in tables}
        return found


_COLUMNS = """
SELECT c.relname, attname, format_type(atttypid, atttypmod), NOT attnotnull,
    pg_get_expr(adbin, adrelid)
FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = attnum
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
"""
_OTHERS = """
SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger
UNION ALL
SELECT relname, 'file', pg_relation_filenode(oid)::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""


def postgresql_catalog(connection: Connection) -> Catalog:
    return Catalog(
        {(table, column): tuple(facts) for table, column, *facts in connection.execute(_COLUMNS)},
        {(table, name): text for table, name, text in connection.execute(_OTHERS)},
    )


def sqlite_catalog(database: sqlite3.Connection) -> Catalog:
    columns: dict[tuple[str, ...], Any] = {}
    others: dict[tuple[str, ...], Any] = {}
    schema = database.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master")
    for kind, name, table, page, sql in schema.fetchall():
        if kind != "table":
            others[table, name] = sql
            continue
        others[table, "page"] = page
        others[table, "key"] = sql.rpartition(")")[2]
        about = database.execute(f"PRAGMA table_xinfo({table})")
        for _, column, type_, not_null, default, key, hidden in about.fetchall():
            columns[table, column] = ((type_, key, hidden), not not_null, default)
    return Catalog(columns, others)


@frozen
class Upgraded:
    """An empty database, and functions for it."""

    kind: str
    apply: Callable[[Migration], Any]
    execute: Callable[[str], Any]
    catalog: Callable[[], Catalog]


@pytest.fixture(params=["postgresql", "sqlite"])
def upgraded(request: pytest.FixtureRequest) -> Iterator[Upgraded]:
    """Return a database with the first tables only."""
    if request.param == "postgresql":
        address = PostgreSQLAddress.from_url(request.getfixturevalue("database"))
        with connect(address) as connection:
            connection.execute(postgresql._CREATE_VERSIONS)
            yield Upgraded(
                "postgresql",
                lambda migration: postgresql._apply(connection, migration),
                connection.execute,
                lambda: postgresql_catalog(connection),
            )
        return
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        yield Upgraded(
            "sqlite",
            lambda migration: sqlite._apply(database, migration),
            database.execute,
            lambda: sqlite_catalog(database),
        )


def test_later_migrations_only_add_nullable_columns_and_tables(upgraded: Upgraded) -> None:
    before = None
    for migration in migrations(upgraded.kind):
        if migration.readable_from is not None:
            before = upgraded.catalog()
        upgraded.apply(migration)
        if before is not None:
            after = upgraded.catalog()
            assert not before.breaches(after), migration.version
            assert after != before
    assert before is not None


@pytest.mark.parametrize(
    ("statement", "breach"),
    [
        ("ALTER TABLE messages ADD COLUMN new integer NOT NULL DEFAULT 0", "new"),
        ("ALTER TABLE messages ADD COLUMN new text DEFAULT 'x'", "new"),
        ("ALTER TABLE messages DROP COLUMN message", "message"),
        ("ALTER TABLE messages RENAME COLUMN message TO new", "message"),
        ("CREATE INDEX new ON messages (vendor)", "new"),
        ("DROP INDEX messages_ts", "messages_ts"),
        ("ALTER TABLE messages RENAME TO new", "message"),
        ("DROP TABLE messages", "message"),
    ],
)
def test_migration_that_does_not_only_add_is_found(
    upgraded: Upgraded, statement: str, breach: str
) -> None:
    for migration in migrations(upgraded.kind):
        upgraded.apply(migration)
    before = upgraded.catalog()
    upgraded.execute(statement)
    assert breach in {name for _, name in before.breaches(upgraded.catalog())}


@pytest.mark.parametrize(
    ("statement", "breach"),
    [
        ("ALTER TABLE messages ALTER COLUMN type TYPE bigint", "type"),
        ("ALTER TABLE messages ALTER COLUMN vendor DROP NOT NULL", "vendor"),
        ("ALTER TABLE messages ADD CONSTRAINT new CHECK (type > 0)", "new"),
        ("ALTER TABLE messages ADD COLUMN new float; VACUUM FULL messages", "file"),
    ],
)
def test_migration_that_changes_or_rewrites_a_table_is_found(
    database: str, statement: str, breach: str
) -> None:
    address = PostgreSQLAddress.from_url(database)
    postgresql.migrate(address)
    with connect(address) as connection:
        before = postgresql_catalog(connection)
        for one in statement.split("; "):
            connection.execute(one)
        assert breach in {name for _, name in before.breaches(postgresql_catalog(connection))}


def base_database(url: str) -> Connection:
    """Return a connection to a database that has the first tables only."""
    address = PostgreSQLAddress.from_url(url)
    connection = connect(address)
    first = [one for one in migrations("postgresql") if one.readable_from is None]
    postgresql.upgrade(connection, address, first)
    return connection


def test_upgrade_does_not_make_writers_wait_for_a_long_transaction(database: str) -> None:
    address = PostgreSQLAddress.from_url(database)
    with base_database(database) as upgrading, psycopg.connect(database) as report:
        report.execute("SET application_name = 'report'")
        report.execute("SELECT count(*) FROM last_positions")
        with pytest.raises(SinkDown, match=r"another session uses them \(process \d+, report, for"):
            postgresql.upgrade(upgrading, address)
        rows(database, "SET lock_timeout = '1s'; UPDATE last_positions SET vendor = codec")
        assert rows(database, "SELECT to_regclass('repairs')") == [(None,)]
        report.rollback()
        assert postgresql.upgrade(upgrading, address) == (1, len(migrations("postgresql")))


def test_migrate_attempts_to_lock_the_tables_several_times(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_LOCK_PAUSE", 0.1)
    address = PostgreSQLAddress.from_url(database)
    waiting = "SELECT query_start FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with base_database(database), psycopg.connect(database) as report:
        report.execute("SELECT count(*) FROM last_positions")
        with ThreadPoolExecutor(1) as pool:
            migrated = pool.submit(postgresql.migrate, address)
            first = wait_for(lambda: rows(database, waiting), "the migration waits")
            wait_for(lambda: rows(database, waiting) not in ([], first), "it waits again")
            report.rollback()
            assert migrated.result() == (1, len(migrations("postgresql")))


def test_migrate_gives_up_after_some_attempts(database: str) -> None:
    with base_database(database), psycopg.connect(database) as report:
        report.execute("SELECT count(*) FROM last_positions")
        with pytest.raises(SinkUnusable, match="end it, or run the command again"):
            postgresql.migrate(PostgreSQLAddress.from_url(database), attempts=1)


@pytest.fixture
def low(database: str) -> Iterator[str]:
    """Yield the URL for a role that may use the first tables, and change none."""
    with base_database(database) as owner:
        role = f"low_{owner.info.dbname}"
        for statement in (
            f"CREATE ROLE {role} LOGIN PASSWORD 'low'",
            "GRANT SELECT, INSERT, UPDATE ON positions, messages, last_positions, checkpoints "
            f"TO {role}",
            f"GRANT SELECT ON schema_version TO {role}",
            f"GRANT USAGE ON SCHEMA public TO {role}",
            "GRANT SELECT ON schema_version TO PUBLIC",
        ):
            owner.execute(statement)
        host = database.partition("@")[2]
        yield f"postgresql://{role}:low@{host}"
        owner.execute(f"DROP OWNED BY {role}")
        owner.execute(f"DROP ROLE {role}")


@ensureDeferred
async def test_role_that_must_not_change_tables_can_store_after_an_upgrade(
    low: str, database: str
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    migrate_sink(database)
    sink = make_sink(reactor, low, migrate=False)
    await sink.open()
    try:
        assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1
    finally:
        await sink.close()


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'positions.sqlite'}"
    found: str = request.getfixturevalue("database")
    return found


def execute(url: str, statement: str) -> None:
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"), isolation_level=None)) as file:
            file.execute(statement)
    else:
        rows(url, statement)


def add_later_migration(url: str, readable_from: str) -> None:
    """Record a migration that this version does not know."""
    execute(url, "ALTER TABLE positions ADD COLUMN later text")
    execute(
        url,
        "INSERT INTO schema_migrations (version, readable_from, applied_at) "
        f"VALUES (99, '{readable_from}', '2027-01-01T00:00:00.000Z')",
    )


@pytest.mark.parametrize("migrate", [True, False])
@ensureDeferred
async def test_later_schema_is_used_if_it_allows_this_version(url: str, migrate: bool) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    migrate_sink(url)
    add_later_migration(url, __version__)
    sink, positions = make_sink(reactor, url, migrate=migrate), open_reader(reactor, url)
    await sink.open()
    positions.startService()
    try:
        assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1
        assert len(await positions.devices(Search())) == 1
    finally:
        await positions.stopService()
        await sink.close()
    result = CliRunner().invoke(main, ["migrate", "--sink", url])
    assert (result.exit_code, result.output) == (0, "Nothing to do (schema version 99).\n")


@pytest.mark.parametrize("migrate", [True, False])
@ensureDeferred
async def test_later_schema_is_refused_if_it_requires_a_later_program(
    url: str, migrate: bool
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    migrate_sink(url)
    add_later_migration(url, "99.1")
    sink = make_sink(reactor, url, migrate=migrate)
    with pytest.raises(SinkUnusable, match=r"requires Tracker 99\.1 or later"):
        await sink.open()
    await sink.close()
    result = CliRunner().invoke(main, ["migrate", "--sink", url])
    assert result.exit_code == 1
    assert "requires Tracker 99.1 or later" in result.output


@ensureDeferred
async def test_reader_says_that_tables_or_columns_are_missing(url: str) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    execute(url, "CREATE TABLE other (number integer)")
    positions = open_reader(reactor, url)
    positions.startService()
    try:
        with pytest.raises(QueryFailed, match="tracker-admin migrate"):
            await positions.devices(Search())
        migrate_sink(url)
        assert await positions.devices(Search()) == []
        execute(url, "ALTER TABLE last_positions DROP COLUMN satellites")
        with pytest.raises(QueryFailed, match="tracker-admin migrate"):
            await positions.devices(Search())
    finally:
        await positions.stopService()
