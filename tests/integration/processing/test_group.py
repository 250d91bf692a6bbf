"""The group of processors, at its creation and after its loss."""

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
from tracker.processing.consumer import BatchOptions


@ensureDeferred
async def test_new_group_starts_at_the_first_entry(redis: RedisServer) -> None:
    append(redis, 5)
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all entries are processed")
    await processing.stop()
    assert sum(len(batch.positions) for batch in sink.batches) == 5
    assert sink.closed


@ensureDeferred
async def test_group_is_created_with_a_missing_stream(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 3)
    await until(lambda: sum(len(batch.positions) for batch in sink.batches) == 3, "stored")
    await until(lambda: lag(redis) == 0, "acknowledged")
    await processing.stop()


@ensureDeferred
async def test_group_is_created_again_after_a_flush(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    redis.client.flushall()
    append(redis, 2)
    await until(lambda: sum(len(batch.positions) for batch in sink.batches) == 2, "stored")
    await processing.stop()


@ensureDeferred
async def test_lost_group_restarts_at_the_checkpoint(redis: RedisServer) -> None:
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
    assert len(set(stored_times(sink))) == 10  # the last batch is read a second time
    assert redis.client.xlen(f"{STREAM}:dead") == 1, "read from the beginning"


@ensureDeferred
async def test_destroyed_group_is_created_again_at_run_time(redis: RedisServer) -> None:
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
async def test_stream_with_only_ids_before_the_checkpoint_is_read_completely(
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
    redis.client.xadd(STREAM, position.to_entry("8E")._asdict(), id="5-0")  # the clock was set back
    processing = Processing(redis, sink)
    await until(lambda: len(stored_times(sink)) == 2, "processed")
    await processing.stop()


@ensureDeferred
async def test_lost_group_restarts_at_the_oldest_unfinished_entry_of_any_consumer(
    redis: RedisServer,
) -> None:
    append(redis, 5)
    hanging = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, hanging, "hanging")
    await until(lambda: pending(redis) == 5, "delivered to the hanging consumer")
    await first.stop()
    sink = FakeSink()
    processing = Processing(redis, sink, "other", BatchOptions(claim_after=3600))
    append(redis, 5, start=5)
    await until(lambda: len(stored_times(sink)) == 5, "the other entries are stored")
    await until(lambda: pending(redis) == 5, "acknowledged")
    redis.client.xgroup_destroy(STREAM, PROCESSOR_GROUP)
    await until(
        lambda: len(set(stored_times(sink))) == 10, "the entries of the hanging consumer are stored"
    )
    await processing.stop()
