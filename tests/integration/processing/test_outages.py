"""Processors during outages of the sink and of Redis."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from tests.integration.processing.processors import (
    QUICK_CLAIMS,
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
from tracker.interfaces import Batch, IPositionSink, SinkUnusable
from tracker.storage.sqlite.writer import SQLiteSink


@ensureDeferred
async def test_entries_are_acknowledged_only_after_the_commit(redis: RedisServer) -> None:
    append(redis, 4)
    sink = FakeSink(failures=[RuntimeError("disk full"), RuntimeError("disk full")])
    processing = Processing(redis, sink)
    await until(lambda: pending(redis) == 4, "delivered")
    await until(lambda: "disk full" in str(processing.health.reasons), "the failure is reported")
    assert not sink.batches
    assert pending(redis) == 4
    await until(lambda: lag(redis) == 0, "acknowledged after the retries")
    assert processing.health.ready
    await processing.stop()


@ensureDeferred
async def test_stop_during_a_failure_leaves_entries_pending(redis: RedisServer) -> None:
    append(redis, 4)
    sink = FakeSink(failures=[RuntimeError("disk full")] * 1000)
    processing = Processing(redis, sink)
    await until(lambda: "disk full" in str(processing.health.reasons), "the failure is reported")
    await processing.stop()
    assert pending(redis) == 4
    again = FakeSink()
    processing = Processing(redis, again)
    await until(lambda: lag(redis) == 0, "the same consumer finishes them")
    await processing.stop()
    assert sum(len(batch.positions) for batch in again.batches) == 4


@ensureDeferred
async def test_opening_the_sink_is_retried(redis: RedisServer) -> None:
    append(redis, 3)
    sink = StartingSink()
    processing = Processing(redis, sink)
    await until(lambda: "not up yet" in str(processing.health.reasons), "reported")
    await until(lambda: lag(redis) == 0, "processed")
    assert processing.health.ready
    assert not processing.aborted
    await processing.stop()
    assert len(stored_times(sink)) == 3


class StartingSink(FakeSink):
    """A sink whose methods fail in their first two calls."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[str] = Counter()

    def open(self) -> Deferred[None]:
        return self._starting("open") or super().open()

    def checkpoint(self, stream: str, group: str) -> Deferred[str | None]:
        return self._starting("checkpoint") or super().checkpoint(stream, group)

    def _starting(self, method: str) -> Deferred[Any] | None:
        self._calls[method] += 1
        return fail(RuntimeError("not up yet")) if self._calls[method] < 3 else None


@ensureDeferred
async def test_entries_are_processed_while_redis_is_out_of_memory(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    await processing.stop()
    append(redis, 5)
    redis.client.config_set("maxmemory", 1)
    again = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "processed")
    await again.stop()
    assert len(stored_times(sink)) == 5


@ensureDeferred
async def test_dead_letter_that_redis_refuses_does_not_block_others(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink, options=QUICK_CLAIMS)
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 2)
    redis.client.xadd(STREAM, {"nothing": "of the kind"})
    append(redis, 2, start=2)
    redis.client.config_set("maxmemory", 1)
    await until(lambda: len(stored_times(sink)) == 4, "the other entries are stored")
    await until(lambda: pending(redis) == 1, "acknowledged")
    redis.client.config_set("maxmemory", 0)
    await until(lambda: lag(redis) == 0, "moved to dead letters later")
    assert redis.client.xlen(f"{STREAM}:dead") == 1
    await processing.stop()


@ensureDeferred
async def test_pending_dead_letter_that_redis_refuses_does_not_block_others(
    redis: RedisServer,
) -> None:
    gone = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, gone)
    append(redis, 1)
    redis.client.xadd(STREAM, {"nothing": "of the kind"})
    append(redis, 1, start=1)
    await until(lambda: pending(redis) == 3, "delivered")
    await first.stop()
    append(redis, 2, start=2)
    redis.client.config_set("maxmemory", 1)
    sink = FakeSink()
    again = Processing(redis, sink)  # the same consumer starts with its pending entries
    await until(lambda: len(stored_times(sink)) == 4, "the other entries are stored")
    assert pending(redis) == 1
    await again.stop()


@ensureDeferred
async def test_sink_that_was_open_once_is_retried_after_any_error(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    append(redis, 1)
    await until(lambda: lag(redis) == 0, "processed")
    sink.failures = [SinkUnusable("the password was changed")] * 2
    append(redis, 1, start=1)
    await until(lambda: "the password was changed" in str(processing.health.reasons), "reported")
    await until(lambda: lag(redis) == 0, "processed")
    assert not processing.aborted
    await processing.stop()


@ensureDeferred
async def test_processing_resumes_after_a_restart_of_redis(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    append(redis, 2)
    await until(lambda: lag(redis) == 0, "processed")
    redis.kill()
    await until(lambda: not processing.health.ready, "not ready")
    redis.start()
    append(redis, 3, start=2)
    await until(lambda: sum(len(batch.positions) for batch in sink.batches) == 5, "stored")
    await until(lambda: processing.health.ready, "ready again")
    await processing.stop()


@ensureDeferred
async def test_unusable_sink_aborts_the_process(redis: RedisServer, tmp_path: Path) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    processing = Processing(redis, SQLiteSink(reactor, str(tmp_path / "missing" / "p.sqlite")))
    await until(lambda: processing.aborted, "aborted")
    assert "missing" in processing.aborted[0]
    await processing.stop()


@implementer(IPositionSink)
class RedisKillingSink(SQLiteSink):
    """A sink that kills Redis after its first commit, before the acknowledgement."""

    def __init__(self, reactor: Any, path: Path, redis: RedisServer) -> None:
        super().__init__(reactor, str(path))
        self.new: list[int] = []
        self._redis = redis

    def store(self, batch: Batch) -> Deferred[int]:
        def committed(new: int) -> int:
            self.new.append(new)
            if len(self.new) == 1:
                self._redis.kill()
            return new

        return super().store(batch).addCallback(committed)


@ensureDeferred
async def test_committed_but_unacknowledged_entries_are_stored_once(
    redis: RedisServer, tmp_path: Path
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    append(redis, 7)
    sink = RedisKillingSink(reactor, tmp_path / "positions.sqlite", redis)
    processing = Processing(redis, sink)
    await until(lambda: sink.new == [7], "committed")
    await until(lambda: not processing.health.ready, "Redis is gone")
    redis.start()
    assert pending(redis) == 7
    await until(lambda: lag(redis) == 0, "acknowledged")
    assert sink.new == [7, 0]
    await processing.stop()


@ensureDeferred
async def test_retry_delay_is_reset_after_an_outage(
    redis: RedisServer,
) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    for number in range(6):
        append(redis, 1, start=number)
        await until(lambda: lag(redis) == 0, "processed", timeout=4)
        redis.client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: not processing.health.ready, "disconnected")
        await until(lambda: processing.health.ready, "reconnected", timeout=4)
    await processing.stop()
