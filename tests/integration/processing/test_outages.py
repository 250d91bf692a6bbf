"""Processors whose sink or Redis fails, is full or goes away."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from tests.integration.processing.processors import (
    IMPATIENT,
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
async def test_nothing_is_acknowledged_before_the_sink_has_committed(redis: RedisServer) -> None:
    append(redis, 4)
    sink = FakeSink(failures=[RuntimeError("disk full"), RuntimeError("disk full")])
    processing = Processing(redis, sink)
    await until(lambda: pending(redis) == 4, "delivered")
    await until(lambda: "disk full" in str(processing.health.reasons), "the failure is told")
    assert not sink.batches
    assert pending(redis) == 4
    await until(lambda: lag(redis) == 0, "acknowledged after the retries")
    assert processing.health.ready
    await processing.stop()


@ensureDeferred
async def test_a_stop_during_a_failure_leaves_the_entries_pending(redis: RedisServer) -> None:
    append(redis, 4)
    sink = FakeSink(failures=[RuntimeError("disk full")] * 1000)
    processing = Processing(redis, sink)
    await until(lambda: "disk full" in str(processing.health.reasons), "the failure is told")
    await processing.stop()
    assert pending(redis) == 4
    again = FakeSink()
    processing = Processing(redis, again)
    await until(lambda: lag(redis) == 0, "the same consumer finishes them")
    await processing.stop()
    assert sum(len(batch.positions) for batch in again.batches) == 4


@ensureDeferred
async def test_a_sink_that_cannot_be_opened_yet_is_waited_for(redis: RedisServer) -> None:
    append(redis, 3)
    sink = NotYet()
    processing = Processing(redis, sink)
    await until(lambda: "not up yet" in str(processing.health.reasons), "told")
    await until(lambda: lag(redis) == 0, "processed")
    assert processing.health.ready
    assert not processing.aborted
    await processing.stop()
    assert len(stored_times(sink)) == 3


class NotYet(FakeSink):
    """A sink that is there at the third attempt, for each thing that it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: Counter[str] = Counter()

    def open(self) -> Deferred[None]:
        return self._not_yet("open") or super().open()

    def checkpoint(self, stream: str, group: str) -> Deferred[str | None]:
        return self._not_yet("checkpoint") or super().checkpoint(stream, group)

    def _not_yet(self, what: str) -> Deferred[Any] | None:
        self._asked[what] += 1
        return fail(RuntimeError("not up yet")) if self._asked[what] < 3 else None


@ensureDeferred
async def test_a_full_redis_is_emptied(redis: RedisServer) -> None:
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
async def test_what_cannot_be_put_aside_holds_up_nobody(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink, pace=IMPATIENT)
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 2)
    redis.client.xadd(STREAM, {"nothing": "of the kind"})
    append(redis, 2, start=2)
    redis.client.config_set("maxmemory", 1)
    await until(lambda: len(stored_times(sink)) == 4, "the others are stored")
    await until(lambda: pending(redis) == 1, "and acknowledged")
    redis.client.config_set("maxmemory", 0)
    await until(lambda: lag(redis) == 0, "put aside after a while")
    assert redis.client.xlen(f"{STREAM}:dead") == 1
    await processing.stop()


@ensureDeferred
async def test_what_cannot_be_put_aside_at_the_start_holds_up_nobody(redis: RedisServer) -> None:
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
    again = Processing(redis, sink)  # the same consumer: it begins with what it had
    await until(lambda: len(stored_times(sink)) == 4, "the others are stored")
    assert pending(redis) == 1
    await again.stop()


@ensureDeferred
async def test_a_sink_that_was_fine_once_is_never_given_up(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    append(redis, 1)
    await until(lambda: lag(redis) == 0, "processed")
    sink.failures = [SinkUnusable("the password was changed")] * 2
    append(redis, 1, start=1)
    await until(lambda: "the password was changed" in str(processing.health.reasons), "told")
    await until(lambda: lag(redis) == 0, "processed")
    assert not processing.aborted
    await processing.stop()


@ensureDeferred
async def test_a_restart_of_redis_is_survived(redis: RedisServer) -> None:
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
async def test_a_sink_that_can_never_be_opened_ends_the_process(
    redis: RedisServer, tmp_path: Path
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    processing = Processing(redis, SQLiteSink(reactor, str(tmp_path / "missing" / "p.sqlite")))
    await until(lambda: processing.aborted, "aborted")
    assert "missing" in processing.aborted[0]
    await processing.stop()


@implementer(IPositionSink)
class CutOff(SQLiteSink):
    """A sink that has committed just when Redis dies, so that nobody hears of it."""

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
async def test_what_was_committed_and_not_acknowledged_comes_again_and_is_stored_once(
    redis: RedisServer, tmp_path: Path
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    append(redis, 7)
    sink = CutOff(reactor, tmp_path / "positions.sqlite", redis)
    processing = Processing(redis, sink)
    await until(lambda: sink.new == [7], "committed")
    await until(lambda: not processing.health.ready, "Redis is gone")
    redis.start()
    assert pending(redis) == 7
    await until(lambda: lag(redis) == 0, "acknowledged")
    assert sink.new == [7, 0]
    await processing.stop()


@ensureDeferred
async def test_the_delay_after_an_outage_does_not_grow_from_one_to_the_next(
    redis: RedisServer,
) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink)
    for number in range(6):
        append(redis, 1, start=number)
        await until(lambda: lag(redis) == 0, "processed", timeout=4)
        redis.client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: not processing.health.ready, "cut off")
        await until(lambda: processing.health.ready, "there again", timeout=4)
    await processing.stop()
