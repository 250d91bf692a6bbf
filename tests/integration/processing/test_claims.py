"""Entries that another processor has, or that are gone: what is claimed, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs

from tests.integration.processing.processors import (
    IMPATIENT,
    STREAM,
    Processing,
    age,
    append,
    lag,
    pending,
    stored_times,
)
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.interfaces import Batch
from tracker.keys import PROCESSOR_GROUP
from tracker.processing.consumer import Pace


@ensureDeferred
async def test_what_another_consumer_has_left_lying_is_claimed(redis: RedisServer) -> None:
    append(redis, 10)
    gone = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, gone, "gone")
    await until(lambda: pending(redis) == 10, "delivered to the one that will be gone")
    await first.stop()
    age(redis)
    sink = FakeSink()
    processing = Processing(redis, sink, "here", IMPATIENT)
    await until(lambda: lag(redis) == 0, "claimed and stored")
    await processing.stop()
    assert len(stored_times(sink)) == 10


@ensureDeferred
async def test_what_is_only_waiting_for_the_sink_is_not_claimed(redis: RedisServer) -> None:
    append(redis, 10)
    waiting = FakeSink(failures=[RuntimeError("not now")] * 12)  # 1.5 seconds or more
    first = Processing(redis, waiting, "waiting", IMPATIENT)
    await until(lambda: pending(redis) == 10, "delivered")
    other = FakeSink()
    second = Processing(redis, other, "other", Pace(claim_after=1.0))
    await until(lambda: lag(redis) == 0, "stored")
    await first.stop()
    await second.stop()
    assert len(stored_times(waiting)) == 10
    assert not other.batches


@ensureDeferred
async def test_claims_are_kept_at_each_attempt(redis: RedisServer) -> None:
    append(redis, 3)
    idle: list[int] = []
    hour = 3_600

    class Failing(FakeSink):
        def store(self, batch: Batch) -> Deferred[int]:
            entries: Any = redis.client.xpending_range(STREAM, PROCESSOR_GROUP, "-", "+", 10)
            idle.append(max(entry["time_since_delivered"] for entry in entries))
            age(redis, hour)
            return fail(RuntimeError("not now"))

    processing = Processing(redis, Failing())
    await until(lambda: len(idle) == 3, "tried three times")
    await processing.stop()
    assert max(idle) < hour * 1000


@ensureDeferred
async def test_what_was_read_ahead_of_a_slow_batch_is_stored_once(redis: RedisServer) -> None:
    sink = FakeSink(busy=Deferred())
    processing = Processing(redis, sink, pace=Pace(batch_size=10, batch_delay=0, claim_after=1.0))
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 100)
    await until(lambda: pending(redis) > 10, "read ahead")
    age(redis)  # all might be claimed
    assert sink.busy is not None
    busy, sink.busy = sink.busy, None
    busy.callback(None)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    times = stored_times(sink)
    assert len(times) == len(set(times)) == 100


@ensureDeferred
async def test_what_was_deleted_before_it_was_claimed_is_told(redis: RedisServer) -> None:
    append(redis, 3)
    gone = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, gone, "gone")
    await until(lambda: pending(redis) == 3, "delivered")
    await first.stop()
    age(redis)
    (entry_id, _), *_ = redis.client.xrange(STREAM)
    redis.client.xdel(STREAM, entry_id)
    sink = FakeSink()
    with capturedLogs() as events:
        processing = Processing(redis, sink, "here", IMPATIENT)
        await until(lambda: len(stored_times(sink)) == 2, "claimed and stored")
        await processing.stop()
    told = [event for event in events if "lost" in str(event.get("what"))]
    assert [event["id"] for event in told] == [entry_id.decode()]


@ensureDeferred
async def test_a_deleted_pending_entry_is_counted_as_lost_and_holds_up_nobody(
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
