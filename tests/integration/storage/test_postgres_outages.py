"""The PostgreSQL sink while its server is away, hangs, refuses or is locked."""

from __future__ import annotations

from collections.abc import Callable
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
from tests.waiting import until
from tracker.interfaces import (
    Batch,
    SinkDown,
    SinkTimedOut,
    SinkUnusable,
)
from tracker.storage.postgresql.writer import PostgreSQLSink
from tracker.storage.sinks import migrate_sink


async def in_the_end(attempt: Callable[[], Deferred[Any]]) -> None:
    """Try again while the database is too slow for the timeout of a test."""
    for _ in range(20):
        with suppress(SinkDown):
            await attempt()
            return
    raise AssertionError("the database is down")


@pytest.mark.parametrize(
    ("ailment", "cure"),
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
async def test_what_can_be_mended_is_tried_again(
    ailment: str, cure: str, sink: PostgreSQLSink, database: str
) -> None:
    await sink.store(Batch([stored(1)], CHECKPOINT))
    rows(database, ailment)
    rows(
        database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'tracker-process' AND datname = current_database()",
    )
    for _ in range(2):
        with pytest.raises(SinkDown) as error:
            await sink.store(Batch([stored(2)], CHECKPOINT))
        assert "\n" not in str(error.value)
    rows(database, cure)
    assert await sink.store(Batch([stored(2)], CHECKPOINT)) == 1


@ensureDeferred
async def test_a_row_that_somebody_locks_is_waited_for_and_then_tried_again(
    sink: PostgreSQLSink, database: str, closing: Closing
) -> None:
    await sink.store(Batch([stored(1)], CHECKPOINT))
    impatient = closing(sink_to(f"{database}?options=-c%20lock_timeout%3D100ms", timeout=1.0))
    await impatient.open()
    with psycopg.connect(database) as other:
        other.execute("SELECT * FROM last_positions FOR UPDATE")
        with pytest.raises(SinkTimedOut):
            await impatient.store(Batch([stored(2)], CHECKPOINT))
    # What had been sent, COMMIT and all, may have been done when the lock was released.
    await impatient.store(Batch([stored(2)], CHECKPOINT))
    assert rows(database, "SELECT count(*) FROM positions") == [(2,)]


@pytest.mark.parametrize(
    ("sqlstate", "timed_out"),
    [("57014", True), ("55P03", True), ("25P03", True), ("53100", False), ("57P01", False)],
)
@ensureDeferred
async def test_a_timeout_of_the_server_is_told_from_other_failures(
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
async def test_a_server_that_is_killed_in_the_middle_leaves_nothing_behind(
    postgres: PostgresServer, closing: Closing
) -> None:
    sink = closing(sink_to(postgres.url))
    await sink.open()
    await sink.store(Batch([stored(1)], {("s", "g"): "1-0"}))
    # The rows are in, the checkpoint waits for somebody's lock: that is where it ends.
    other = psycopg.connect(postgres.url)
    other.execute("SELECT * FROM checkpoints FOR UPDATE")
    batch = Batch([stored(2), message(2)], {("s", "g"): "2-0"})
    storing = sink.store(batch)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    await until(lambda: rows(postgres.url, waiting) == [(1,)], "the checkpoint waits")
    postgres.kill()
    with pytest.raises(SinkDown):
        await storing
    other.close()
    with pytest.raises(SinkDown):
        await sink.store(batch)
    postgres.start()
    assert rows(postgres.url, "SELECT count(*) FROM positions") == [(1,)]
    assert rows(postgres.url, "SELECT count(*) FROM messages") == [(0,)]
    assert rows(postgres.url, "SELECT entry_id FROM checkpoints") == [("1-0",)]
    assert await sink.store(batch) == 2
    assert await sink.checkpoint("s", "g") == "2-0"


@ensureDeferred
async def test_it_is_there_again_after_a_restart(
    postgres: PostgresServer, closing: Closing
) -> None:
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
async def test_a_server_that_hangs_is_given_up_for_the_time_being(
    postgres: PostgresServer, closing: Closing
) -> None:
    migrate_sink(postgres.url)
    sink = closing(sink_to(f"{postgres.url}?connect_timeout=2", timeout=0.5))
    await in_the_end(sink.open)
    postgres.suspend()
    # Only the first one had a connection, so that fewer positions might have been stored.
    for kind in (SinkTimedOut, SinkDown):
        with pytest.raises(SinkDown) as error:
            await sink.store(Batch([stored(1)], CHECKPOINT))
        assert error.type is kind
    postgres.resume()
    await in_the_end(lambda: sink.store(Batch([stored(1)], CHECKPOINT)))
    assert rows(postgres.url, "SELECT count(*) FROM positions") == [(1,)]


@ensureDeferred
async def test_a_server_that_is_not_there_yet_may_be_waited_for(
    postgres: PostgresServer, closing: Closing
) -> None:
    postgres.stop()
    sink = closing(sink_to(postgres.url))
    for _ in range(2):
        with pytest.raises(SinkDown):
            await sink.open()
    postgres.start()
    await sink.open()
    assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1


@pytest.mark.parametrize("kind", ["password", "database", "role", "certificate"])
@ensureDeferred
async def test_what_cannot_be_opened_is_told_in_one_line(
    kind: str, postgres: PostgresServer, closing: Closing
) -> None:
    url = {
        "password": postgres.url.replace(postgres.PASSWORD, "s3cret"),
        "database": postgres.url_of("missing"),
        "role": postgres.url.replace("//tracker:", "//nobody:"),
        "certificate": f"{postgres.url}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
    }[kind]
    with pytest.raises(SinkUnusable) as error:
        await closing(sink_to(url)).open()
    assert "cannot use the database postgresql://" in str(error.value)
    assert "\n" not in str(error.value)
    assert "s3cret" not in str(error.value)
    assert postgres.PASSWORD not in str(error.value)


@ensureDeferred
async def test_the_password_may_come_from_the_environment(
    postgres: PostgresServer, closing: Closing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres.PASSWORD)
    sink = closing(sink_to(postgres.url.replace(f":{postgres.PASSWORD}", "")))
    await sink.open()
    assert await sink.store(Batch([stored(1)], CHECKPOINT)) == 1


@ensureDeferred
async def test_nobody_there_is_no_reason_to_give_up(closing: Closing) -> None:
    with pytest.raises(SinkDown):
        await closing(sink_to(f"postgresql://me:s3cret@127.0.0.1:{free_port()}/db")).open()


@ensureDeferred
async def test_timescale_that_is_asked_for_and_missing_is_told(
    database: str, closing: Closing
) -> None:
    sink = closing(sink_to(f"{database}{'&' if '?' in database else '?'}timescale=1"))
    with pytest.raises(SinkUnusable, match="timescaledb"):
        await sink.open()
    assert rows(database, "SELECT to_regclass('positions')") == [(None,)]
