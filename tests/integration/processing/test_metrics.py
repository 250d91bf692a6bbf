"""Metrics of a processor on a real server."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred

from tests.integration.processing.processors import (
    QUICK_CLAIMS,
    STREAM,
    Processing,
    append,
    lag,
    set_idle,
)
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.interfaces import Batch, SinkTimedOut
from tracker.processing.consumer import BatchOptions


class SinkWithDuplicates(FakeSink):
    """A sink that already has two positions of each batch."""

    def store(self, batch: Batch) -> Any:
        return super().store(batch).addCallback(lambda count: count - 2)


@ensureDeferred
async def test_stored_and_duplicate_positions_are_counted(redis: RedisServer) -> None:
    append(redis, 5)
    processing = Processing(redis, SinkWithDuplicates())
    assert processing.of_stream("processed_entries_total") == 0
    await until(lambda: processing.of_stream("processed_entries_total") == 5, "counted")
    assert processing.value("stored_positions_total") == 3
    assert processing.value("duplicate_positions_total") == 2
    assert processing.value("batch_commit_seconds_count") == 1
    assert processing.value("batch_positions_sum") == 5
    assert (processing.value("last_commit_timestamp_seconds") or 0) > 1e9
    assert processing.of_stream("dead_letters_total") == 0
    await processing.stop()


@ensureDeferred
async def test_dead_letters_are_counted(redis: RedisServer) -> None:
    append(redis, 3)
    redis.client.xadd(STREAM, {"codec": "8", "payload": "not JSON"})
    processing = Processing(redis, FakeSink(refused={"2026-11-22T10:00:01.000Z"}))
    await until(lambda: lag(redis) == 0, "all entries are processed")
    await until(lambda: processing.of_stream("dead_letters_total") == 2, "counted")
    assert processing.of_stream("processed_entries_total") == 4
    assert processing.value("stored_positions_total") == 2
    await processing.stop()


@ensureDeferred
async def test_failures_of_the_sink_are_counted(redis: RedisServer) -> None:
    append(redis, 1)
    processing = Processing(redis, FakeSink(failures=[RuntimeError("disk full")] * 2))
    await until(lambda: processing.of_stream("processed_entries_total") == 1, "stored")
    assert processing.value("sink_failures_total") == 2
    await processing.stop()


@ensureDeferred
async def test_timeouts_and_the_size_of_the_next_attempt_are_shown(
    redis: RedisServer,
) -> None:
    append(redis, 8)
    failures: list[Exception] = [SinkTimedOut("not stored in time")]
    processing = Processing(
        redis, FakeSink(failures=failures), options=BatchOptions(batch_size=100)
    )
    assert processing.value("batch_limit_positions") == 100
    await until(lambda: processing.value("sink_timeouts_total") == 1, "counted")
    assert processing.value("sink_failures_total") == 1
    assert processing.value("batch_limit_positions") == 4
    await until(lambda: processing.of_stream("processed_entries_total") == 8, "stored")
    assert processing.value("batch_limit_positions") == 16
    await processing.stop()


@ensureDeferred
async def test_claimed_entries_are_counted(redis: RedisServer) -> None:
    append(redis, 3)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xreadgroup("processor", "gone", {STREAM: ">"})
    set_idle(redis)
    processing = Processing(redis, FakeSink(), options=QUICK_CLAIMS)
    await until(lambda: processing.of_stream("claimed_entries_total") == 3, "claimed")
    await until(lambda: lag(redis) == 0, "all entries are processed")
    assert processing.of_stream("deleted_entries_total") == 0
    await processing.stop()


@ensureDeferred
async def test_deleted_entries_are_counted(
    redis: RedisServer,
) -> None:
    append(redis, 3)
    redis.client.xgroup_create(STREAM, "processor", "0")
    ((_, entries),) = redis.client.xreadgroup("processor", "one", {STREAM: ">"})
    redis.client.xdel(STREAM, entries[0][0])
    processing = Processing(redis, FakeSink())
    await until(lambda: processing.of_stream("deleted_entries_total") == 1, "counted")
    await processing.stop()


@ensureDeferred
async def test_metrics_of_redis_are_exported(redis: RedisServer) -> None:
    processing = Processing(redis, FakeSink())
    await until(lambda: processing.value("redis_durable") == 1, "it is durable")
    assert (processing.value("redis_used_memory_bytes") or 0) > 100_000
    await processing.stop()
