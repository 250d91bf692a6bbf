"""Schemas and their upgrades, mostly in PostgreSQL, and ``tracker-admin migrate``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from tests.integration.storage.batches import CHECKPOINT, stored
from tests.servers import free_port
from tracker.admin.cli import main
from tracker.interfaces import Batch, SinkUnusable
from tracker.storage.migrations import Migration, migration, migrations
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import Connection, connect
from tracker.storage.postgresql.schema import applied, upgrade
from tracker.storage.sinks import make_sink, migrate_sink

LATEST = len(migrations("postgresql"))


def files(*scripts: str) -> list[Migration]:
    """Return migrations with this content."""
    return [migration(version, script) for version, script in enumerate(scripts, 1)]


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with connect(PostgreSQLAddress.from_url(database)) as connection:
        yield connection


def migrate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["migrate", *arguments])


def query(url: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else []


# Queries that describe a schema: tables, columns, constraints and indexes.
_DESCRIPTION = (
    "SELECT table_name, ordinal_position, column_name, data_type, datetime_precision,"
    " collation_name, is_nullable, column_default FROM information_schema.columns"
    " WHERE table_schema = 'public' ORDER BY 1, 2",
    "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
    "SELECT relname, relkind, reloptions FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
)


def description(url: str) -> list[list[tuple[Any, ...]]]:
    return [query(url, text) for text in _DESCRIPTION]


@pytest.fixture
def other_database(database: str) -> Iterator[str]:
    name = database.rpartition("/")[2].partition("?")[0]
    query(database, f"CREATE DATABASE {name}_other")
    yield database.replace(name, f"{name}_other")
    query(database, f"DROP DATABASE {name}_other WITH (FORCE)")


def test_upgraded_schema_equals_a_new_one(database: str, other_database: str) -> None:
    address = PostgreSQLAddress.from_url(database)
    for version in range(1, LATEST + 1):
        with connect(address) as connection:
            assert upgrade(connection, address, migrations("postgresql")[:version]) == (
                version - 1,
                version,
            )
    assert migrate_sink(other_database) == (0, LATEST)
    assert description(database) == description(other_database)
    assert len(description(database)[0]) > 40


def test_schema_versions_are_applied_in_order(connection: Connection, database: str) -> None:
    address = PostgreSQLAddress.from_url(database)
    known = files(
        "CREATE TABLE one (a integer)",
        "INSERT INTO one VALUES (1); ALTER TABLE one ADD b int",
    )
    assert upgrade(connection, address, known[:1]) == (0, 1)
    assert upgrade(connection, address, known) == (1, 2)
    assert upgrade(connection, address, known) == (2, 2)
    assert query(database, "SELECT * FROM one") == [(1, None)]
    assert query(database, "SELECT version FROM schema_version ORDER BY 1") == [(1,), (2,)]


def test_failed_upgrade_changes_nothing(connection: Connection, database: str) -> None:
    address = PostgreSQLAddress.from_url(database)
    upgrade(connection, address, files("CREATE TABLE one (a integer)"))
    bad = files("", "ALTER TABLE one ADD b int; CREATE TABLE two ()", "CREATE TABLE one ()")
    with pytest.raises(psycopg.Error):
        upgrade(connection, address, bad)
    assert applied(connection).version == 1
    assert query(database, "SELECT to_regclass('two')") == [(None,)]
    # The lock was released: the next upgrade does not wait for it.
    with connect(address) as other:
        assert upgrade(other, address, bad[:2]) == (1, 2)


def test_concurrent_upgrades_are_applied_once(database: str) -> None:
    address = PostgreSQLAddress.from_url(database)
    known = files("CREATE TABLE one (a integer); SELECT pg_sleep(0.3); INSERT INTO one VALUES (1)")
    found: list[tuple[int, int]] = []

    def start() -> None:
        with connect(address) as connection:
            assert applied(connection).version == 0
            found.append(upgrade(connection, address, known))

    threads = [Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [(0, 1), (1, 1), (1, 1), (1, 1)]
    assert query(database, "SELECT * FROM one") == [(1,)]


@ensureDeferred
async def test_two_processors_that_start_together_upgrade_once(database: str) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    sinks = [make_sink(reactor, database) for _ in range(2)]
    try:
        await gatherResults([sink.open() for sink in sinks])
        for sink in sinks:
            await sink.store(Batch([stored(1)], CHECKPOINT))
    finally:
        for sink in sinks:
            await sink.close()
    assert query(database, "SELECT version FROM schema_version") == [(1,)]
    assert query(database, "SELECT version FROM schema_migrations ORDER BY 1") == [
        (version,) for version in range(2, LATEST + 1)
    ]


@pytest.mark.parametrize("may_migrate", [True, False])
@ensureDeferred
async def test_newer_database_is_refused(may_migrate: bool, database: str) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    migrate_sink(database)
    query(database, "INSERT INTO schema_version (version) VALUES (999)")
    sink = make_sink(reactor, database, migrate=may_migrate)
    with pytest.raises(SinkUnusable, match="999"):
        await sink.open()
    await sink.close()
    result = migrate("--sink", database)
    assert result.exit_code == 1
    assert "schema version 999" in result.output


@ensureDeferred
async def test_tables_are_not_created_without_permission(database: str) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    sink = make_sink(reactor, database, migrate=False)
    with pytest.raises(SinkUnusable, match="tracker-admin migrate --sink post"):
        await sink.open()
    assert query(database, "SELECT to_regclass('positions')") == [(None,)]
    migrate_sink(database)
    await sink.open()
    assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1
    await sink.close()


@pytest.mark.parametrize("url", ["postgresql", "sqlite"])
def test_migrate_prints_the_versions(url: str, database: str, tmp_path: Path) -> None:
    sink = database if url == "postgresql" else f"sqlite:{tmp_path / 'p.sqlite'}"
    latest = len(migrations("sqlite")) if url == "sqlite" else LATEST
    assert migrate("--sink", sink).output == f"Tables created (schema version {latest}).\n"
    again = migrate("--sink", sink)
    assert (again.exit_code, again.output) == (0, f"Nothing to do (schema version {latest}).\n")


def test_migrate_of_a_sink_without_tables_does_nothing(tmp_path: Path) -> None:
    result = migrate("--sink", f"jsonlines:{tmp_path / 'p.jsonl'}")
    assert (result.exit_code, result.output) == (0, "This sink has no tables.\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "exit_code", "message"),
    [
        ("mysql://tracker:s3cret@h/db", 2, "unknown sink 'mysql'"),
        ("sqlite:", 2, "requires a path"),
        ("sqlite:/nowhere/at/all.sqlite", 1, "open the database"),
        ("postgresql://tracker:s3cret@127.0.0.1:1/db", 3, "refused"),
        ("postgresql://tracker:s3cret%@127.0.0.1/db", 2, "not a valid PostgreSQL URL"),
        ("s3cret", 2, "use postgresql"),
    ],
)
def test_migrate_reports_errors_in_one_line_without_the_password(
    url: str, exit_code: int, message: str
) -> None:
    if ":1/" in url:
        url = url.replace(":1/", f":{free_port()}/")
    result = migrate("--sink", url)
    assert result.exit_code == exit_code
    assert message in result.output
    assert "s3cret" not in result.output
    assert len(result.output.splitlines()) == 1


def test_migrate_reports_a_missing_timescaledb(database: str) -> None:
    result = migrate("--sink", f"{database}{'&' if '?' in database else '?'}timescale=1")
    assert result.exit_code == 1
    assert "requires the extension timescaledb" in result.output
    assert query(database, "SELECT to_regclass('positions')") == [(None,)]
