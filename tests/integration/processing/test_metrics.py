"""What a processor counts, on a real server."""

from __future__ import annotations

from typing import Any

from pytest_twisted import ensureDeferred

from tests.integration.processing.processors import IMPATIENT, STREAM, Processing, age, append, lag
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.interfaces import Batch, SinkTimedOut
from tracker.processing.consumer import Pace


class Knowing(FakeSink):
    """A sink that has had some positions before."""

    def store(self, batch: Batch) -> Any:
        return super().store(batch).addCallback(lambda count: count - 2)


@ensureDeferred
async def test_what_is_stored_is_counted(redis: RedisServer) -> None:
    append(redis, 5)
    processing = Processing(redis, Knowing())
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
async def test_what_cannot_be_stored_is_a_dead_letter(redis: RedisServer) -> None:
    append(redis, 3)
    redis.client.xadd(STREAM, {"codec": "8", "payload": "no JSON"})
    processing = Processing(redis, FakeSink(refused={"2026-11-22T10:00:01.000Z"}))
    await until(lambda: lag(redis) == 0, "all is processed")
    await until(lambda: processing.of_stream("dead_letters_total") == 2, "counted")
    assert processing.of_stream("processed_entries_total") == 4
    assert processing.value("stored_positions_total") == 2
    await processing.stop()


@ensureDeferred
async def test_a_sink_that_fails_is_counted_each_time(redis: RedisServer) -> None:
    append(redis, 1)
    processing = Processing(redis, FakeSink(failures=[RuntimeError("disk full")] * 2))
    await until(lambda: processing.of_stream("processed_entries_total") == 1, "stored")
    assert processing.value("sink_failures_total") == 2
    await processing.stop()


@ensureDeferred
async def test_a_timeout_of_the_sink_is_counted_and_the_smaller_batch_is_shown(
    redis: RedisServer,
) -> None:
    append(redis, 8)
    failures: list[Exception] = [SinkTimedOut("not stored in time")]
    processing = Processing(redis, FakeSink(failures=failures), pace=Pace(batch_size=100))
    assert processing.value("batch_limit_positions") == 100
    await until(lambda: processing.value("sink_timeouts_total") == 1, "counted")
    assert processing.value("sink_failures_total") == 1
    assert processing.value("batch_limit_positions") == 4
    await until(lambda: processing.of_stream("processed_entries_total") == 8, "stored")
    assert processing.value("batch_limit_positions") == 16
    await processing.stop()


@ensureDeferred
async def test_what_is_claimed_and_what_was_deleted_are_counted(redis: RedisServer) -> None:
    append(redis, 3)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xreadgroup("processor", "gone", {STREAM: ">"})
    age(redis)
    processing = Processing(redis, FakeSink(), pace=IMPATIENT)
    await until(lambda: processing.of_stream("claimed_entries_total") == 3, "claimed")
    await until(lambda: lag(redis) == 0, "all is processed")
    assert processing.of_stream("deleted_entries_total") == 0
    await processing.stop()


@ensureDeferred
async def test_an_entry_that_was_deleted_before_it_was_stored_is_counted(
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
async def test_redis_itself_is_told_of(redis: RedisServer) -> None:
    processing = Processing(redis, FakeSink())
    await until(lambda: processing.value("redis_durable") == 1, "it is durable")
    assert (processing.value("redis_used_memory_bytes") or 0) > 100_000
    await processing.stop()
