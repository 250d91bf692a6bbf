"""Batches of a consumer: their limits, and their division if the sink is slow."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from tests.integration.processing.processors import (
    STREAM,
    Processing,
    append,
    lag,
    pending,
    stored_times,
)
from tests.replyproxy import reply_proxy
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.interfaces import Batch, SinkTimedOut
from tracker.keys import PROCESSOR_GROUP
from tracker.log.redis.reader import RedisReader
from tracker.observe.health import Condition, Watchdog
from tracker.position import Position
from tracker.processing import service
from tracker.processing.attemptsize import AttemptSize
from tracker.processing.consumer import BatchOptions
from tracker.processing.decoding import EntryDecoder
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.storing import MAX_RETRY_DELAY, Storer
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.runtime.waits import Waits
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.writer import PostgreSQLSink

MIB = 1 << 20
#: Bytes of the payload of a long message of 32,000 Cyrillic letters.
LONG = 192_000


def append_long(redis: RedisServer, count: int) -> None:
    """Append messages of the maximum length in Codec 13."""
    attributes = {"message_type": 6, "message": "я" * 32_000}
    unknown = (None,) * 6
    pipeline = redis.client.pipeline(transaction=False)
    for number in range(count):
        at = f"2026-11-22T11:{number // 60:02}:{number % 60:02}.000Z"
        position = Position("356307042441013", at, *unknown, 0, 0, attributes)
        pipeline.xadd(STREAM, position.to_entry("13")._asdict())
    pipeline.execute()


@define(eq=False)
class SlowSink(FakeSink):
    """A sink that times out for too many positions."""

    capacity: int = 0
    """Maximum number of positions that it stores in time."""
    max_batches: int = 1_000_000
    """Number of batches after which it stores no others."""
    attempts: list[int] = field(factory=list)
    """Number of positions in each attempt."""

    def store(self, batch: Batch) -> Deferred[int]:
        self.attempts.append(len(batch.positions))
        if len(self.batches) >= self.max_batches or self.attempts[-1] > self.capacity:
            return fail(SinkTimedOut("not stored within 30s"))
        return super().store(batch)


# Bytes.


def assert_bounded(sink: FakeSink) -> None:
    """Assert that batches of long messages have at most about 1 MiB."""
    sizes = [sum(one.position.is_message for one in batch.positions) for batch in sink.batches]
    assert sizes[0] <= 64  # the length of the entries is unknown at the first read
    assert max(sizes[1:]) <= MIB // LONG + 1


@ensureDeferred
async def test_batch_is_limited_in_bytes(redis: RedisServer) -> None:
    append_long(redis, 70)
    append(redis, 50)
    sink = FakeSink()
    processing = Processing(redis, sink, options=BatchOptions(batch_bytes=MIB))
    await until(lambda: lag(redis) == 0, "all entries are stored")
    await processing.stop()
    assert len(stored_times(sink)) == 120
    assert_bounded(sink)


@ensureDeferred
async def test_pending_entries_are_processed_in_batches_after_a_restart(
    redis: RedisServer,
) -> None:
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0", mkstream=True)
    append_long(redis, 70)
    redis.client.xreadgroup(PROCESSOR_GROUP, "one", {STREAM: ">"}, count=1000)
    sink = FakeSink()
    processing = Processing(redis, sink, "one", BatchOptions(batch_bytes=MIB))
    await until(lambda: lag(redis) == 0, "all entries are stored")
    await processing.stop()
    assert len(stored_times(sink)) == 70
    assert_bounded(sink)


@ensureDeferred
async def test_claimed_entries_are_processed_in_batches(redis: RedisServer) -> None:
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0", mkstream=True)
    append_long(redis, 70)
    made = redis.client.xreadgroup(PROCESSOR_GROUP, "gone", {STREAM: ">"}, count=1000)
    ids = [entry_id for entry_id, _ in made[0][1]]
    redis.client.xclaim(STREAM, PROCESSOR_GROUP, "gone", 0, ids, idle=60_000, justid=True)
    sink = FakeSink()
    processing = Processing(redis, sink, "one", BatchOptions(batch_bytes=MIB, claim_after=10.0))
    await until(lambda: lag(redis) == 0, "all entries are stored")
    await processing.stop()
    assert len(stored_times(sink)) == 70
    assert_bounded(sink)


@ensureDeferred
async def test_pending_entries_are_read_over_a_slow_link(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "READ_WAIT", 0.0)
    monkeypatch.setattr(service, "REPLY_TIMEOUT", 1.5)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0", mkstream=True)
    append_long(redis, 20)
    redis.client.xreadgroup(PROCESSOR_GROUP, "one", {STREAM: ">"}, count=1000)
    sink = FakeSink()
    # All entries are in one reply, which takes 1.5 times the reply timeout.
    with reply_proxy(redis.port, rate=20 * LONG / 2.2) as port:
        redis.address = RedisAddress.from_url(f"redis://127.0.0.1:{port}/0")
        processing = Processing(redis, sink, "one")
        await until(lambda: pending(redis) == 0, "all entries are stored", timeout=60)
        await processing.stop()
    assert len(stored_times(sink)) == 20
    assert len(sink.batches) == 1


# Time.


@ensureDeferred
async def test_batch_is_stored_in_parts_after_timeouts(redis: RedisServer) -> None:
    append(redis, 60)
    sink = SlowSink(capacity=20)
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all entries are stored")
    assert processing.health.ready
    await processing.stop()
    assert sink.attempts[:3] == [60, 30, 15]
    times = [row.position.timestamp for batch in sink.batches for row in batch.positions]
    assert times == sorted(set(times))
    assert len(times) == 60
    assert not redis.client.exists(f"{STREAM}:dead")


@ensureDeferred
async def test_batches_grow_when_the_sink_is_fast_again(redis: RedisServer) -> None:
    append(redis, 40)
    sink = SlowSink(capacity=5)
    processing = Processing(redis, sink)
    await until(lambda: sink.batches, "a part is stored")
    sink.capacity = 1000
    await until(lambda: lag(redis) == 0, "all entries are stored")
    await processing.stop()
    assert max(sink.attempts[sink.attempts.index(5) :]) == 20, str(sink.attempts)


@ensureDeferred
async def test_single_position_is_retried_after_timeouts(redis: RedisServer) -> None:
    append(redis, 4)
    sink = SlowSink(capacity=0)
    processing = Processing(redis, sink)
    await until(lambda: sink.attempts == [4, 2, 1, 1], "divided into single positions")
    assert "not stored within 30s" in str(processing.health.reasons)
    assert pending(redis) == 4
    sink.capacity = 1000
    await until(lambda: lag(redis) == 0, "stored")
    assert processing.health.ready
    await processing.stop()
    assert len(stored_times(sink)) == 4
    assert not redis.client.exists(f"{STREAM}:dead")


@ensureDeferred
async def test_stored_part_is_acknowledged_if_the_rest_fails(
    redis: RedisServer,
) -> None:
    append(redis, 8)
    sink = SlowSink(capacity=4, max_batches=1)
    processing = Processing(redis, sink)
    await until(lambda: pending(redis) == 4, "the first part is acknowledged")
    await processing.stop()
    again = FakeSink()
    processing = Processing(redis, again)
    await until(lambda: lag(redis) == 0, "the rest is stored")
    await processing.stop()
    assert len(stored_times(again)) == 4
    assert len(set(stored_times(sink, again))) == 8


@ensureDeferred
async def test_refused_position_in_a_part_is_the_only_dead_letter(redis: RedisServer) -> None:
    append(redis, 16)
    sink = SlowSink(capacity=5, refused={"2026-11-22T10:00:09.000Z"})
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all entries are processed", timeout=40)
    await processing.stop()
    assert len(set(stored_times(sink))) == len(stored_times(sink)) == 15
    ((_, dead),) = redis.client.xrange(f"{STREAM}:dead")
    assert dead[b"ts"] == b"2026-11-22T10:00:09.000Z"


@ensureDeferred
async def test_batches_shrink_until_a_slow_database_stores_them_in_time(
    redis: RedisServer, database: str
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    sink = PostgreSQLSink(reactor, PostgreSQLAddress.from_url(database), timeout=0.4)
    processing = Processing(redis, sink)
    await until(lambda: processing.health.ready, "tables are created")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION delay_insert() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END$$"
        )
        connection.execute(
            "CREATE TRIGGER delay_insert BEFORE INSERT ON positions FOR EACH ROW "
            "EXECUTE FUNCTION delay_insert()"
        )
        append(redis, 100)  # takes one second
        await until(lambda: lag(redis) == 0, "all entries are stored", timeout=60)
        await processing.stop()
        ((count,),) = connection.execute("SELECT count(*) FROM positions")
    assert count == 100
    assert not redis.client.exists(f"{STREAM}:dead")


@ensureDeferred
async def test_entries_waiting_for_slow_parts_are_not_claimed_by_others(redis: RedisServer) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    append(redis, 3)
    redis.client.xgroup_create(STREAM, PROCESSOR_GROUP, "0")
    connection = RedisConnection(reactor, redis.address, Condition())
    connection.startService()
    await connection.when_connected()
    reader = RedisReader(connection, connection, group=PROCESSOR_GROUP, name="one", entries=10)
    clock = Clock()
    owners: list[list[bytes]] = []

    class Slow(FakeSink):
        def store(self, batch: Batch) -> Deferred[int]:
            entries: Any = redis.client.xpending_range(STREAM, PROCESSOR_GROUP, "-", "+", 9)
            owners.append([entry["consumer"] for entry in entries])
            ids = [entry["message_id"] for entry in entries]
            redis.client.xclaim(STREAM, PROCESSOR_GROUP, "other", 0, ids)
            clock.advance(MAX_RETRY_DELAY)
            return super().store(batch)

    size = AttemptSize(1000)
    size.timed_out(2, 0)
    metrics = ProcessMetrics([STREAM], None)
    storer = Storer(
        clock=clock,
        waits=Waits(clock),
        reader=reader,
        sink=Slow(),
        size=size,
        condition=Condition(),
        report_entry=lambda what, entry: None,
        metrics=metrics,
        watchdog=Watchdog(300.0),
    )
    decoder = EntryDecoder(clock, {STREAM: "teltonika"}, metrics, None)
    entries = await reader.read(reader.allowance([STREAM]))
    await storer.process(decoder.decode(entries))
    await connection.stopService()
    assert owners == [[b"one"] * 3, [b"one"] * 2, [b"one"]]
    assert pending(redis) == 0
