"""Consuming real streams: what is acknowledged, and when."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs
from zope.interface import implementer

from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.interfaces import Batch, INaming, IPositionSink, SinkUnusable
from tracker.keys import PROCESSOR_GROUP
from tracker.observe.health import Health
from tracker.position import Position
from tracker.processing.consumer import Pace
from tracker.processing.service import process_role
from tracker.storage.sqlite.writer import SQLiteSink

STREAM = "telemetry:teltonika"
IMEI = "356307042441013"


def append(redis: RedisServer, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        position = Position(
            IMEI, f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000Z",
            41.3, 19.8, 110, 214, 43, 14, 0, 0, {"239": 1},
        )  # fmt: skip
        redis.client.xadd(STREAM, position.to_entry("8E")._asdict())


class Processing:
    """A process role on a real server, started and stopped by the test."""

    def __init__(
        self,
        redis: RedisServer,
        sink: IPositionSink,
        name: str = "one",
        pace: Pace | None = None,
        namings: Mapping[str, INaming] | None = None,
        streams: Sequence[str] = (STREAM,),
    ) -> None:
        from twisted.internet import reactor

        self.health = Health()
        self.aborted: list[str] = []
        self.role = process_role(
            reactor,
            redis.address,
            dict.fromkeys(streams, "teltonika"),
            name,
            sink,
            self.health,
            self.aborted.append,
            pace or Pace(),
            namings,
        )
        self.role.startService()

    async def stop(self) -> None:
        await self.role.stopService()


def pending(redis: RedisServer) -> int:
    if not redis.client.exists(STREAM) or not redis.client.xinfo_groups(STREAM):
        return -1
    return int(redis.client.xpending(STREAM, PROCESSOR_GROUP)["pending"])


def lag(redis: RedisServer) -> int:
    groups: Any = redis.client.xinfo_groups(STREAM)
    # Redis does not know the lag of a group that begins between two entries and has read none.
    if not groups or groups[0]["lag"] is None:
        return -1
    return int(groups[0]["lag"]) + int(groups[0]["pending"])


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
async def test_what_is_no_position_is_put_aside_whole(redis: RedisServer) -> None:
    append(redis, 1)
    bad = redis.client.xadd(STREAM, {"codec": "8E", "payload": "{}", "other": "kept"})
    redis.client.xadd(STREAM, {"nothing": "of the kind"})
    append(redis, 1, start=1)
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all acknowledged")
    await processing.stop()
    assert sum(len(batch.positions) for batch in sink.batches) == 2
    dead = [fields for _, fields in redis.client.xrange(f"{STREAM}:dead")]
    assert len(dead) == 2
    assert dead[0][b"_id"] == bad
    assert b"attributes" in dead[0][b"_reason"]
    assert dead[0][b"other"] == b"kept"
    assert dead[0][b"_attempts"] == b"1"
    assert b"codec" in dead[1][b"_reason"]


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
async def test_what_the_sink_refuses_is_found_and_put_aside(redis: RedisServer) -> None:
    append(redis, 100)
    refused = {f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000Z" for number in (0, 63, 99)}
    sink = FakeSink(refused=set(refused))
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all acknowledged")
    await processing.stop()
    stored = [row.position.timestamp for batch in sink.batches for row in batch.positions]
    assert len(stored) == len(set(stored)) == 97
    assert not refused & set(stored)
    dead = [fields for _, fields in redis.client.xrange(f"{STREAM}:dead")]
    assert {fields[b"ts"].decode() for fields in dead} == refused
    assert all(b"no room for" in fields[b"_reason"] for fields in dead)


@ensureDeferred
async def test_what_a_sink_refuses_once_it_is_back_is_told_as_refused(redis: RedisServer) -> None:
    append(redis, 2)
    failures: list[Exception] = [RuntimeError("not now")]
    sink = FakeSink(failures=failures, refused={"2026-11-22T10:00:01.000Z"})
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all acknowledged")
    assert processing.health.ready
    await processing.stop()
    assert redis.client.xlen(f"{STREAM}:dead") == 1


def stored_times(*sinks: FakeSink) -> list[str]:
    """The times of all positions that were stored, in ascending order."""
    batches = (batch for sink in sinks for batch in sink.batches)
    return sorted(row.position.timestamp for batch in batches for row in batch.positions)


#: One that does not wait a minute for others.
IMPATIENT = Pace(claim_after=1.0)


@ensureDeferred
async def test_what_another_consumer_has_left_lying_is_claimed(redis: RedisServer) -> None:
    append(redis, 10)
    gone = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, gone, "gone")
    await until(lambda: pending(redis) == 10, "delivered to the one that will be gone")
    await first.stop()
    sink = FakeSink()
    processing = Processing(redis, sink, "here", IMPATIENT)
    await until(lambda: lag(redis) == 0, "claimed and stored")
    await processing.stop()
    assert len(stored_times(sink)) == 10


@ensureDeferred
async def test_what_is_only_waiting_for_the_sink_is_not_claimed(redis: RedisServer) -> None:
    append(redis, 10)
    waiting = FakeSink(failures=[RuntimeError("not now")] * 4)  # 7.5 seconds
    first = Processing(redis, waiting, "waiting", IMPATIENT)
    await until(lambda: pending(redis) == 10, "delivered")
    other = FakeSink()
    second = Processing(redis, other, "other", Pace(claim_after=6.0))
    await until(lambda: lag(redis) == 0, "stored", timeout=40)
    await first.stop()
    await second.stop()
    assert len(stored_times(waiting)) == 10
    assert not other.batches


@ensureDeferred
async def test_claims_are_kept_at_each_attempt(redis: RedisServer) -> None:
    append(redis, 3)
    idle: list[int] = []

    class Failing(FakeSink):
        def store(self, batch: Batch) -> Deferred[int]:
            entries: Any = redis.client.xpending_range(STREAM, PROCESSOR_GROUP, "-", "+", 10)
            idle.append(max(entry["time_since_delivered"] for entry in entries))
            return fail(RuntimeError("not now"))

    processing = Processing(redis, Failing())
    await until(lambda: len(idle) == 3, "tried three times")
    await processing.stop()
    assert idle[2] < 1000  # which is the delay between the attempts before


@ensureDeferred
async def test_entries_that_come_one_by_one_are_stored_together(redis: RedisServer) -> None:
    sink = FakeSink()
    processing = Processing(redis, sink, pace=Pace(batch_size=50, batch_delay=0.5))
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 120)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    sizes = [len(batch.positions) for batch in sink.batches]
    assert max(sizes) <= 100  # what was read, topped up
    assert len(sizes) <= 5
    assert len(stored_times(sink)) == 120


@ensureDeferred
async def test_the_next_batch_is_read_while_one_is_committed(redis: RedisServer) -> None:
    sink = FakeSink(busy=Deferred())
    processing = Processing(redis, sink, pace=Pace(batch_size=10, batch_delay=0))
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 100)
    await until(lambda: pending(redis) > 10, "read ahead")
    assert pending(redis) <= 30
    assert not sink.batches
    assert sink.busy is not None
    busy, sink.busy = sink.busy, None
    busy.callback(None)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    assert len(stored_times(sink)) == 100


@ensureDeferred
async def test_what_was_read_ahead_of_a_slow_batch_is_stored_once(redis: RedisServer) -> None:
    sink = FakeSink(busy=Deferred())
    processing = Processing(redis, sink, pace=Pace(batch_size=10, batch_delay=0, claim_after=1.0))
    await until(lambda: redis.client.exists(STREAM), "the stream exists")
    append(redis, 100)
    await until(lambda: pending(redis) > 10, "read ahead")

    def idle() -> int:
        entries: Any = redis.client.xpending_range(STREAM, PROCESSOR_GROUP, "-", "+", 100)
        return min(int(entry["time_since_delivered"]) for entry in entries)

    await until(lambda: idle() > 1000, "all might be claimed")
    assert sink.busy is not None
    busy, sink.busy = sink.busy, None
    busy.callback(None)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    times = stored_times(sink)
    assert len(times) == len(set(times)) == 100


@ensureDeferred
async def test_a_stop_leaves_what_was_read_ahead_pending(redis: RedisServer) -> None:
    append(redis, 100)
    sink = FakeSink(busy=Deferred())
    pace = Pace(batch_size=10, batch_delay=0)
    processing = Processing(redis, sink, pace=pace)
    await until(lambda: pending(redis) > 10, "read ahead")
    stopped = Deferred.fromCoroutine(processing.stop())
    assert sink.busy is not None
    sink.busy.callback(None)
    await stopped
    again = FakeSink()
    processing = Processing(redis, again, pace=pace)
    await until(lambda: lag(redis) == 0, "stored")
    await processing.stop()
    times = stored_times(sink, again)
    assert len(times) == len(set(times)) == 100


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


# A group that is lost.


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


# A Redis without room.


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
async def test_what_was_deleted_before_it_was_claimed_is_told(redis: RedisServer) -> None:
    append(redis, 3)
    gone = FakeSink(failures=[RuntimeError("not now")] * 1000)
    first = Processing(redis, gone, "gone")
    await until(lambda: pending(redis) == 3, "delivered")
    await first.stop()
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


# Streams that nobody reads.


def beat(redis: RedisServer, *streams: str) -> None:
    redis.client.set("instance:heartbeat:one", json.dumps({"streams": streams}), ex=90)


@ensureDeferred
async def test_an_advertised_stream_that_nobody_reads_is_told(redis: RedisServer) -> None:
    beat(redis, STREAM, "positions:teltonika")
    redis.client.set("instance:heartbeat:odd", "no json")
    processing = Processing(redis, FakeSink())
    await until(lambda: "streams" in processing.health.reasons, "told")
    reason = processing.health.reasons["streams"]
    assert reason == "streams that nobody reads: positions:teltonika (written by one)"
    await processing.stop()


@ensureDeferred
async def test_a_key_of_the_wrong_type_keeps_no_other_stream_from_being_read(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.processing.consumer.CHECK_INTERVAL", 0.1)
    monkeypatch.setattr("tracker.processing.consumer.READ_WAIT", 0.1)
    redis.client.set("telemetry:wrong", "text")
    append(redis, 3)
    sink = FakeSink()
    processing = Processing(redis, sink, streams=(STREAM, "telemetry:wrong"))
    await until(lambda: lag(redis) == 0, "the other stream is processed")
    await until(lambda: "telemetry:wrong" in processing.health.reasons.get("consumer", ""), "told")
    redis.client.delete("telemetry:wrong")
    await until(lambda: processing.health.ready, "the key is a stream again")
    append(redis, 2, start=3)
    await until(lambda: lag(redis) == 0, "processed")
    await processing.stop()
    assert sum(len(batch.positions) for batch in sink.batches) == 5


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


@ensureDeferred
async def test_a_sink_that_can_never_be_opened_ends_the_process(
    redis: RedisServer, tmp_path: Path
) -> None:
    from twisted.internet import reactor

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
    from twisted.internet import reactor

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
async def test_an_entry_id_that_is_no_time_holds_up_nobody(
    redis: RedisServer, tmp_path: Path
) -> None:
    append(redis, 1)
    ((_, fields),) = redis.client.xrange(STREAM)
    redis.client.xadd(STREAM, fields, id="1700000000000000-1")  # microseconds
    redis.client.xadd(STREAM, fields, id="18446744073709551615-1")
    sink = FakeSink()
    processing = Processing(redis, sink)
    await until(lambda: lag(redis) == 0, "all acknowledged")
    received = [stored.received_at for batch in sink.batches for stored in batch.positions]
    assert received[0].startswith("20")
    assert received[1:] == ["9999-12-31T23:59:59.999Z"] * 2
    assert not processing.aborted
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


def raw_content(redis: RedisServer, stream: str) -> list[bytes]:
    """Names and values of the only entry of a stream, in turn."""
    connection = redis.client.connection_pool.get_connection("XRANGE")
    try:
        connection.send_command("XRANGE", stream, "-", "+")
        ((_, content),) = connection.read_response()
        return list(content)
    finally:
        redis.client.connection_pool.release(connection)


@ensureDeferred
async def test_a_field_that_occurs_twice_is_kept_in_a_dead_letter(redis: RedisServer) -> None:
    redis.client.execute_command("XADD", STREAM, "*", "a", "1", "a", "2")
    processing = Processing(redis, FakeSink())
    await until(lambda: redis.client.exists(f"{STREAM}:dead"), "put aside")
    await processing.stop()
    assert raw_content(redis, f"{STREAM}:dead")[-4:] == [b"a", b"1", b"a", b"2"]
