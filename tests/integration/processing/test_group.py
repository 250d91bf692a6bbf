"""The group of processors: where it begins, and where it begins again when it is lost."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from tests.integration.processing.processors import (
    IMEI,
    STREAM,
    Processing,
    append,
    lag,
    pending,
    stored_times,
)
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.keys import PROCESSOR_GROUP
from tracker.position import Position
from tracker.processing.consumer import Pace


@ensureDeferred
async def test_the_group_is_made_and_begins_at_the_first_entry(redis: RedisServer) -> None:
    append(redis, 5)
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "everything processed")
    await processing.stop()
    assert sum(len(batch.positions) for batch in sink.batches) == 5
    assert sink.closed


@ensureDeferred
async def test_the_group_is_made_before_there_is_a_stream(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 3)
    await until(lambda: sum(len(batch.positions) for batch in sink.batches) == 3, "stored")
    await until(lambda: lag(redis) == 0, "acknowledged")
    await processing.stop()


@ensureDeferred
async def test_a_flushed_redis_gets_its_group_again(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    redis.client.flushall()
    append(redis, 2)
    await until(lambda: sum(len(batch.positions) for batch in sink.batches) == 2, "stored")
    await processing.stop()


@ensureDeferred
async def test_a_lost_group_begins_again_at_the_checkpoint(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    redis.client.xadd(STREAM, {"old": "not to be read again"}, id="1000-0")
    await until(lambda: lag(redis) == 0, "processed")
    append(redis, 5)
    await until(lambda: lag(redis) == 0, "processed")
    await processing.stop()
    redis.client.xgroup_destroy(STREAM, PROCESSOR_GROUP)
    append(redis, 5, start=5)
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "processed")
    await processing.stop()
    assert len(set(stored_times(sink))) == 10  # the last batch is read twice
    assert redis.client.xlen(f"{STREAM}:dead") == 1, "read from the beginning"


@ensureDeferred
async def test_a_group_that_is_destroyed_at_run_time_is_made_again(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    append(redis, 5)
    await until(lambda: lag(redis) == 0, "processed")
    redis.client.xgroup_destroy(STREAM, PROCESSOR_GROUP)
    append(redis, 5, start=5)
    await until(lambda: len(set(stored_times(sink))) == 10, "processed")
    await until(lambda: processing.health.ready, "ready again")
    await processing.stop()


@ensureDeferred
async def test_a_stream_that_does_not_reach_the_checkpoint_is_read_from_its_beginning(
    redis: RedisServer,
) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    append(redis, 1)
    await until(lambda: lag(redis) == 0, "processed")
    await processing.stop()
    redis.client.flushall()
    position = Position(
        IMEI, "2026-11-23T10:00:00.000Z", 41.3, 19.8, 110, 214, 43, 14, 0, 0, {"239": 1}
    )
    redis.client.xadd(STREAM, position.to_entry("8E")._asdict(), id="5-0")  # a clock gone back
    processing = Processing(redis, sink)
    await until(lambda: len(stored_times(sink)) == 2, "processed")
    await processing.stop()


@ensureDeferred
async def test_a_lost_group_begins_where_any_consumer_had_not_finished(
    redis: RedisServer,
) -> None:
    append(redis, 5)
    hung = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, hung, "hung")
    await until(lambda: pending(redis) == 5, "delivered to the one that hangs")
    await first.stop()
    sink = FakeSink()
    processing = Processing(redis, sink, "other", Pace(claim_after=3600))
    append(redis, 5, start=5)
    await until(lambda: len(stored_times(sink)) == 5, "the others are stored")
    await until(lambda: pending(redis) == 5, "and acknowledged")
    redis.client.xgroup_destroy(STREAM, PROCESSOR_GROUP)
    await until(lambda: len(set(stored_times(sink))) == 10, "those of the one that hangs, too")
    await processing.stop()
