"""The PostgreSQL sink while its server is down, hangs, refuses logins or holds locks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from tests.integration.storage.batches import CHECKPOINT, message, stored
from tests.integration.storage.conftest import Closing
from tests.integration.storage.postgres import rows, sink_to
from tests.servers import PostgresServer, free_port
from tests.waiting import until, wait_for
from tracker.clock import ClockRule
from tracker.interfaces import (
    Batch,
    SinkDown,
    SinkTimedOut,
    SinkUnusable,
)
from tracker.storage.postgresql.batch import CREATE_STAGING, prepare, store
from tracker.storage.postgresql.writer import PostgreSQLSink
from tracker.storage.sinks import migrate_sink


async def retried(attempt: Callable[[], Deferred[Any]]) -> None:
    """Retry while the database is too slow for the short timeout of the test."""
    for _ in range(20):
        with suppress(SinkDown):
            await attempt()
            return
    raise AssertionError("the database is down")


@pytest.mark.parametrize(
    ("failure", "repair"),
    [
        (
            "ALTER TABLE last_positions RENAME TO other",
            "ALTER TABLE other RENAME TO last_positions",
        ),
        (
            "ALTER TABLE checkpoints RENAME entry_id TO other",
            "ALTER TABLE checkpoints RENAME other TO entry_id",
        ),
        (
            "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',"
            " current_database()); END$$",
            "BEGIN READ WRITE; DO $$BEGIN EXECUTE format('ALTER DATABASE %I RESET"
            " default_transaction_read_only', current_database()); END$$; COMMIT",
        ),
    ],
)
@ensureDeferred
async def test_batch_succeeds_after_the_database_is_repaired(
    failure: str, repair: str, sink: PostgreSQLSink, database: str
) -> None:
    await sink.store(Batch([stored(1)], CHECKPOINT))
    rows(database, failure)
    rows(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'tracker-process' AND datname = current_database()",
    )
    for _ in range(2):
        with pytest.raises(SinkDown) as error:
            await sink.store(Batch([stored(2)], CHECKPOINT))
        assert "\n" not in str(error.value)
    rows(database, repair)
    assert await sink.store(Batch([stored(2)], CHECKPOINT)) == 1


@ensureDeferred
async def test_locked_row_is_a_timeout_and_can_be_retried(
    sink: PostgreSQLSink, database: str, closing: Closing
) -> None:
    await sink.store(Batch([stored(1)], CHECKPOINT))
    other_sink = closing(sink_to(f"{database}?options=-c%20lock_timeout%3D100ms", timeout=1.0))
    await other_sink.open()
    with psycopg.connect(database) as other:
        other.execute("SELECT * FROM last_positions FOR UPDATE")
        with pytest.raises(SinkTimedOut):
            await other_sink.store(Batch([stored(2)], CHECKPOINT))
    # The server may have gone on, and committed, when the lock was released.
    await other_sink.store(Batch([stored(2)], CHECKPOINT))
    assert rows(database, "SELECT count(*) FROM positions") == [(2,)]


class HangingConnection:
    """A connection of a process that hangs before it sends its n-th statement.

    :param number: statements that are sent before that.
    """

    def __init__(self, connection: psycopg.Connection[Any], number: int) -> None:
        self._connection = connection
        self._left = number
        self.is_hanging = threading.Event()
        self.resume = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *arguments: Any, **options: Any) -> Any:
        if self._left == 0:
            self.is_hanging.set()
            assert self.resume.wait(60)
        self._left -= 1
        return self._connection.execute(*arguments, **options)


def store_while_another_hangs(database: str, number: int) -> bool:
    """Store a batch while another connection hangs before the n-th statement of the same batch.

    :return: False if the batch has fewer statements.
    """
    batch = Batch([stored(number), message(number)], {("s", "g"): f"{number}-0"})
    with (
        psycopg.connect(database, autocommit=True) as first,
        psycopg.connect(database, autocommit=True, options="-c lock_timeout=2s") as second,
        ThreadPoolExecutor(1) as thread,
    ):
        for connection in (first, second):
            connection.execute(CREATE_STAGING)
            prepare(connection, ClockRule())
        hanging: Any = HangingConnection(first, number)
        storing = thread.submit(store, hanging, batch)
        wait_for(lambda: hanging.is_hanging.is_set() or storing.done(), "it hangs, or is done")
        try:
            if storing.done():
                return False
            assert store(second, batch) == 2
        finally:
            hanging.resume.set()
        assert storing.result(60) == 0
        return True


@pytest.mark.usefixtures("sink")
def test_processor_that_hangs_between_statements_blocks_no_other(database: str) -> None:
    number = 0
    while store_while_another_hangs(database, number):
        number += 1
    assert number >= 2


@pytest.mark.parametrize(
    ("sqlstate", "timed_out"),
    [("57014", True), ("55P03", True), ("25P03", True), ("53100", False), ("57P01", False)],
)
@ensureDeferred
async def test_timeouts_of_the_server_are_distinguished_from_other_failures(
    sqlstate: str, timed_out: bool, sink: PostgreSQLSink, database: str
) -> None:
    rows(
        database,
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{sqlstate}'; END$$",
    )
    rows(
        database,
        "CREATE TRIGGER fail BEFORE INSERT ON positions FOR EACH ROW EXECUTE FUNCTION fail()",
    )
    with pytest.raises(SinkDown) as error:
        await sink.store(Batch([stored(1)], CHECKPOINT))
    assert isinstance(error.value, SinkTimedOut) == timed_out


@ensureDeferred
async def test_killed_server_rolls_back_the_batch(
    postgres: PostgresServer, closing: Closing
) -> None:
    sink = closing(sink_to(postgres.url))
    await sink.open()
    await sink.store(Batch([stored(1)], {("s", "g"): "1-0"}))
    # The rows are inserted, and the checkpoint waits for a lock, when the server is killed.
    other = psycopg.connect(postgres.url)
    other.execute("SELECT * FROM checkpoints FOR UPDATE")
    batch = Batch([stored(2), message(2)], {("s", "g"): "2-0"})
    storing = sink.store(batch)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    await until(lambda: rows(postgres.url, waiting) == [(1,)], "the checkpoint waits")
    postgres.kill()
    with pytest.raises(SinkDown, match=r"^postgresql://tracker@\S+: "):
        await storing
    other.close()
    with pytest.raises(SinkDown, match=r"postgresql://tracker@\S+: connection to server"):
        await sink.store(batch)
    postgres.start()
    assert rows(postgres.url, "SELECT count(*) FROM positions") == [(1,)]
    assert rows(postgres.url, "SELECT count(*) FROM messages") == [(0,)]
    assert rows(postgres.url, "SELECT entry_id FROM checkpoints") == [("1-0",)]
    assert await sink.store(batch) == 2
    assert await sink.checkpoint("s", "g") == "2-0"


@ensureDeferred
async def test_sink_reconnects_after_a_restart(postgres: PostgresServer, closing: Closing) -> None:
    sink = closing(sink_to(postgres.url))
    await sink.open()
    await sink.store(Batch([stored(1)], CHECKPOINT))
    postgres.stop()
    for attempt in (sink.store(Batch([stored(2)], CHECKPOINT)), sink.checkpoint("s", "g")):
        with pytest.raises(SinkDown):
            await attempt
    postgres.start()
    assert await sink.store(Batch([stored(2)], CHECKPOINT)) == 1


@ensureDeferred
async def test_hanging_server_is_a_timeout_and_can_be_retried(
    postgres: PostgresServer, closing: Closing
) -> None:
    migrate_sink(postgres.url)
    sink = closing(sink_to(f"{postgres.url}?connect_timeout=2", timeout=0.5))
    await retried(sink.open)
    postgres.suspend()
    # Only the first attempt had a connection, so that a smaller batch could have succeeded.
    for kind in (SinkTimedOut, SinkDown):
        with pytest.raises(SinkDown) as error:
            await sink.store(Batch([stored(1)], CHECKPOINT))
        assert error.type is kind
    postgres.resume()
    await retried(lambda: sink.store(Batch([stored(1)], CHECKPOINT)))
    assert rows(postgres.url, "SELECT count(*) FROM positions") == [(1,)]


@ensureDeferred
async def test_opening_can_be_retried_until_the_server_runs(
    postgres: PostgresServer, closing: Closing
) -> None:
    postgres.stop()
    sink = closing(sink_to(postgres.url))
    name = postgres.url.replace(f":{postgres.PASSWORD}@", "@")
    for _ in range(2):
        with pytest.raises(SinkDown, match=f"cannot use the database {name}: "):
            await sink.open()
    postgres.start()
    await sink.open()
    assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1


@pytest.mark.parametrize("kind", ["password", "database", "role", "certificate"])
@ensureDeferred
async def test_unusable_postgresql_database_is_reported_in_one_line(
    kind: str, postgres: PostgresServer, closing: Closing
) -> None:
    url = {
        "password": postgres.url.replace(postgres.PASSWORD, "s3cret"),
        "database": postgres.url_of("missing"),
        "role": postgres.url.replace("//tracker:", "//unknown:"),
        "certificate": f"{postgres.url}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
    }[kind]
    with pytest.raises(SinkUnusable) as error:
        await closing(sink_to(url)).open()
    assert "cannot use the database postgresql://" in str(error.value)
    assert "\n" not in str(error.value)
    assert "s3cret" not in str(error.value)
    assert postgres.PASSWORD not in str(error.value)


@ensureDeferred
async def test_password_is_read_from_the_environment(
    postgres: PostgresServer, closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
    sink = closing(sink_to(postgres.url.replace(f":{postgres.PASSWORD}", "")))
    await sink.open()
    assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1


@ensureDeferred
async def test_refused_connection_can_be_retried(closing: Closing) -> None:
    with pytest.raises(SinkDown):
        await closing(sink_to(f"postgresql://me:s3cret@127.0.0.1:{free_port()}/db")).open()


@ensureDeferred
async def test_opening_the_sink_reports_a_missing_timescaledb(
    database: str, closing: Closing
) -> None:
    sink = closing(sink_to(f"{database}{'&' if '?' in database else '?'}timescale=1"))
    with pytest.raises(SinkUnusable, match="timescaledb"):
        await sink.open()
    assert rows(database, "SELECT to_regclass('positions')") == [(None,)]
