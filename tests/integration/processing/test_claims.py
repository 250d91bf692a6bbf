"""Claims of entries of other processors, and deleted entries."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs

from tests.integration.conftest import Connected
from tests.integration.processing.processors import (
    QUICK_CLAIMS,
    STREAM,
    Processing,
    append,
    lag,
    pending,
    set_idle,
    stored_times,
)
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.interfaces import Batch
from tracker.keys import PROCESSOR_GROUP
from tracker.log.redis.checkpoint import find_skipped
from tracker.processing.consumer import BatchOptions


@ensureDeferred
async def test_entries_of_an_idle_consumer_are_claimed(redis: RedisServer) -> None:
    append(redis, 10)
    gone = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, gone, "gone")
    await until(lambda: pending(redis) == 10, "delivered to the first consumer")
    await first.stop()
    set_idle(redis)
    sink = FakeSink()
    processing = Processing(redis, sink, "here", QUICK_CLAIMS)
    await until(lambda: lag(redis) == 0, "claimed and stored")
    await processing.stop()
    assert len(stored_times(sink)) == 10


@ensureDeferred
async def test_entries_waiting_for_the_sink_are_not_claimed(redis: RedisServer) -> None:
    append(redis, 10)
    waiting = FakeSink(failures=[RuntimeError("not now")] * 12)  # 1.5 seconds or more
    first = Processing(redis, waiting, "waiting", QUICK_CLAIMS)
    await until(lambda: pending(redis) == 10, "delivered")
    other = FakeSink()
    second = Processing(redis, other, "other", BatchOptions(claim_after=1.0))
    await until(lambda: lag(redis) == 0, "stored")
    await first.stop()
    await second.stop()
    assert len(stored_times(waiting)) == 10
    assert not other.batches


@ensureDeferred
async def test_idle_time_is_reset_at_each_attempt(redis: RedisServer) -> None:
    append(redis, 3)
    idle: list[int] = []
    hour = 3_600

    class Failing(FakeSink):
        def store(self, batch: Batch) -> Deferred[int]:
            entries: Any = redis.client.xpending_range(STREAM, PROCESSOR_GROUP, "-", "+", 10)
            idle.append(max(entry["time_since_delivered"] for entry in entries))
            set_idle(redis, hour)
            return fail(RuntimeError("not now"))

    processing = Processing(redis, Failing())
    await until(lambda: len(idle) == 3, "three attempts")
    await processing.stop()
    assert max(idle) < hour * 1000


@ensureDeferred
async def test_entries_read_ahead_of_a_slow_batch_are_stored_once(redis: RedisServer) -> None:
    sink = FakeSink(busy=Deferred())
    processing = Processing(
        redis, sink, options=BatchOptions(batch_size=10, batch_delay=0, claim_after=1.0)
    )
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 100)
    await until(lambda: pending(redis) > 10, "read ahead")
    set_idle(redis)  # all entries could be claimed
    assert sink.busy is not None
    busy, sink.busy = sink.busy, None
    busy.callback(None)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    times = stored_times(sink)
    assert len(times) == len(set(times)) == 100


@ensureDeferred
async def test_deleted_claimed_entry_is_logged_as_lost(redis: RedisServer) -> None:
    append(redis, 3)
    gone = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, gone, "gone")
    await until(lambda: pending(redis) == 3, "delivered")
    await first.stop()
    set_idle(redis)
    (entry_id, _), *_ = redis.client.xrange(STREAM)
    redis.client.xdel(STREAM, entry_id)
    sink = FakeSink()
    with capturedLogs() as events:
        processing = Processing(redis, sink, "here", QUICK_CLAIMS)
        await until(lambda: len(stored_times(sink)) == 2, "claimed and stored")
        await processing.stop()
    lost = [event for event in events if "lost" in str(event.get("what"))]
    assert [event["id"] for event in lost] == [entry_id.decode()]


@ensureDeferred
async def test_deleted_pending_entry_does_not_block_others(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    append(redis, 3)
    sink = FakeSink(failures=[RuntimeError("not now")] * 1000)
    processing = Processing(redis, sink)
    await until(lambda: pending(redis) == 3, "delivered")
    await processing.stop()
    (first, _), *_ = redis.client.xrange(STREAM)
    redis.client.xdel(STREAM, first)
    again = FakeSink()
    processing = Processing(redis, again)
    await until(lambda: pending(redis) == 0, "acknowledged")
    await processing.stop()
    assert sum(len(batch.positions) for batch in again.batches) == 2


@ensureDeferred
async def test_consumer_that_was_deleted_with_pending_entries_has_skipped_them(
    redis: RedisServer, connected: Connected
) -> None:
    failing = FakeSink(failures=[RuntimeError("not now")] * 1000)
    dead = Processing(redis, failing, "dead")
    await until(lambda: pending(redis) == 0, "joined")
    append(redis, 3)
    await until(lambda: pending(redis) == 3, "delivered to the first consumer")
    await dead.stop()
    sink = FakeSink()
    processing = Processing(redis, sink, "here")
    append(redis, 27, start=3)
    await until(lambda: len(stored_times(sink)) == 27, "stored")
    await until(lambda: pending(redis) == 3, "acknowledged")
    assert (await find_skipped(connected.connection, STREAM)).ranges == []
    redis.client.xgroup_delconsumer(STREAM, PROCESSOR_GROUP, "dead")
    found = await find_skipped(connected.connection, STREAM)
    await processing.stop()
    first = redis.client.xrange(STREAM, count=3)
    ((at, to, entries),) = [(one.first, one.last, one.entries) for one in found.ranges]
    assert (at, to, entries) == (first[0][0].decode(), first[2][0].decode(), 3)


@ensureDeferred
async def test_processors_that_die_and_claim_from_each_other_skip_nothing(
    redis: RedisServer, connected: Connected
) -> None:
    append(redis, 40)
    sinks = [FakeSink(failures=[RuntimeError("not now")] * number) for number in (1000, 1, 0)]
    small = BatchOptions(batch_size=5, claim_after=1.0)
    gone, *others = [
        Processing(redis, sink, name, small)
        for sink, name in zip(sinks, ("gone", "two", "three"), strict=True)
    ]
    redis.client.xadd(STREAM, {"payload": "{"})
    await until(lambda: pending(redis) > 0, "delivered")
    await gone.stop()
    await until(lambda: len(set(stored_times(*sinks))) == 40, "stored", timeout=40)
    await until(lambda: lag(redis) == 0, "acknowledged")
    found = await find_skipped(connected.connection, STREAM)
    for processing in others:
        await processing.stop()
    assert (found.ranges, found.complete) == ([], True)
    assert found.committed == redis.client.xrevrange(STREAM, count=1)[0][0].decode()
