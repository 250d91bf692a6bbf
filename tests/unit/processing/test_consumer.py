"""The consumer's loop, with a stream in memory and a clock of the test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from tests.unit.fakes import FakeSink
from tests.unit.log.memory import MemoryReader, MemoryStream
from tracker.interfaces import SinkTimedOut, SinkUnusable
from tracker.log.entries import Delivered
from tracker.observe.health import Condition
from tracker.position import Position
from tracker.processing.consumer import Consumer, Pace
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.reading import READ_WAIT
from tracker.processing.storing import LAST_RETRY

STREAM = "telemetry:teltonika"
PACE = Pace(batch_size=100, batch_delay=0.02, claim_after=60.0)


class Consuming:
    """A consumer, its stream and its sink."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.stream = MemoryStream(self.clock, STREAM, PACE.batch_size)
        self.sink = FakeSink()
        self.reports: list[str | None] = []
        self.aborted: list[str] = []
        self.consumer = self.member("one")

    def member(self, name: str) -> Consumer:
        return Consumer(
            clock=self.clock,
            reader=self.stream.reader(name),
            vendors={STREAM: "teltonika"},
            sink=self.sink,
            condition=Condition(self.reports.append),
            abort=self.aborted.append,
            pace=PACE,
            metrics=ProcessMetrics([STREAM], None),
        )

    def append(self, count: int) -> list[str]:
        """Append positions; return their times."""
        begin = len(self.stream.entries)
        times = [f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000Z"
                 for number in range(begin, begin + count)]  # fmt: skip
        for time in times:
            position = Position("1", time, 41.3, 19.8, 0, 0, 0, 9, 0, 0, {"239": 1})
            self.stream.append(position.to_entry("8E")._asdict())
        return times

    def stored(self) -> list[str]:
        return [row.position.timestamp for batch in self.sink.batches for row in batch.positions]


@pytest.fixture
def consuming() -> Iterator[Consuming]:
    consuming = Consuming()
    yield consuming
    assert consuming.consumer.stopService().called
    assert consuming.sink.closed
    assert not consuming.clock.getDelayedCalls()


def test_entries_are_stored_then_acknowledged(consuming: Consuming) -> None:
    consuming.sink.busy = Deferred()
    times = consuming.append(100)
    consuming.consumer.startService()
    assert len(consuming.stream.pending) == 100
    consuming.sink.busy.callback(None)
    consuming.sink.busy = None
    assert consuming.stored() == times
    assert not consuming.stream.pending
    assert set(consuming.reports) == {None}


def test_a_batch_that_is_not_full_waits_for_more(consuming: Consuming) -> None:
    consuming.consumer.startService()
    times = consuming.append(3)
    assert not consuming.sink.batches
    consuming.clock.advance(PACE.batch_delay)
    assert consuming.stored() == times
    assert len(consuming.sink.batches) == 1


def test_a_checkpoint_names_the_last_entry_and_the_oldest_unfinished_one(
    consuming: Consuming,
) -> None:
    consuming.append(100)
    consuming.stream.joined, consuming.stream.delivered = True, 1
    consuming.stream.pending["1-0"] = "another"
    consuming.consumer.startService()
    consuming.clock.advance(PACE.batch_delay)
    (batch,) = consuming.sink.batches
    assert batch.checkpoints == {
        (STREAM, "processor"): "100-0",
        (STREAM, "processor:unfinished"): "1-0",
    }


def test_a_lost_group_is_joined_before_the_oldest_entry_that_was_unfinished(
    consuming: Consuming,
) -> None:
    consuming.append(100)
    consuming.consumer.startService()
    entries = dict(consuming.stream.entries)
    consuming.stream.flush()
    consuming.stream.entries.update(entries)
    consuming.clock.advance(LAST_RETRY)
    assert consuming.stream.joined
    assert consuming.stream.delivered == 100
    assert len(consuming.stored()) == 200  # all were unfinished when they were committed


def test_entries_are_stored_after_a_failure_of_the_sink(consuming: Consuming) -> None:
    consuming.sink.failures += [RuntimeError("disk full")] * 2
    times = consuming.append(100)
    consuming.consumer.startService()
    assert consuming.reports[-1] == "the sink does not store: disk full"
    assert len(consuming.stream.pending) == 100
    consuming.clock.pump([LAST_RETRY] * 2)
    assert consuming.stored() == times
    assert consuming.reports[-1] is None
    assert len(consuming.stream.kept) == 2


def test_a_batch_that_times_out_is_divided(consuming: Consuming) -> None:
    consuming.sink.failures += [SinkTimedOut("not within 30 s")] * 2
    times = consuming.append(100)
    consuming.consumer.startService()
    consuming.clock.pump([LAST_RETRY] * 2)
    assert [len(batch.positions) for batch in consuming.sink.batches] == [25, 25, 50]
    assert consuming.stored() == times
    assert not consuming.stream.pending


def test_a_refused_position_becomes_a_dead_letter_and_no_other_one(consuming: Consuming) -> None:
    times = consuming.append(100)
    consuming.sink.refused |= {times[0], times[63]}
    consuming.consumer.startService()
    assert sorted(consuming.stored()) == sorted(set(times) - consuming.sink.refused)
    assert set(consuming.stream.dead) == {"1-0", "64-0"}
    assert not consuming.stream.pending


def test_a_stop_during_a_failure_leaves_the_entries_to_the_next_start(
    consuming: Consuming,
) -> None:
    consuming.sink.failures.append(RuntimeError("disk full"))
    times = consuming.append(100)
    consuming.consumer.startService()
    assert consuming.consumer.stopService().called
    assert len(consuming.stream.pending) == 100
    consuming.consumer = consuming.member("one")
    consuming.consumer.startService()
    assert consuming.stored() == times


def test_a_stop_leaves_unreadable_entries_of_further_batches_to_the_next_start(
    consuming: Consuming, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_ids = [consuming.stream.append({"codec": "8E"}) for _ in range(2 * PACE.batch_size)]
    consuming.stream.joined, consuming.stream.delivered = True, len(entry_ids)
    consuming.stream.pending = dict.fromkeys(entry_ids, "one")
    move = MemoryReader.dead_letter

    async def stop_and_move(reader: MemoryReader, entry: Delivered, reason: str) -> None:
        if not consuming.stream.dead:
            consuming.consumer.stopService()
        await move(reader, entry, reason)

    monkeypatch.setattr(MemoryReader, "dead_letter", stop_and_move)
    consuming.consumer.startService()
    assert list(consuming.stream.dead) == entry_ids[: PACE.batch_size]
    assert list(consuming.stream.pending) == entry_ids[PACE.batch_size :]


def test_entries_of_an_idle_member_are_claimed(consuming: Consuming) -> None:
    times = consuming.append(2)
    consuming.stream.joined, consuming.stream.delivered = True, 2
    consuming.stream.pending = {"1-0": "gone", "2-0": "gone"}
    consuming.consumer.startService()
    assert not consuming.stored()
    consuming.stream.idle = True
    consuming.clock.pump([READ_WAIT] * 7)
    assert consuming.stored() == times
    assert not consuming.stream.pending


def test_an_outage_of_the_log_is_reported_and_waited_out(consuming: Consuming) -> None:
    consuming.stream.available = False
    consuming.consumer.startService()
    assert consuming.reports == ["cannot read the streams: not connected"]
    consuming.stream.available = True
    consuming.clock.advance(LAST_RETRY)
    assert consuming.reports[-1] is None
    consuming.append(100)
    consuming.clock.advance(PACE.batch_delay)
    assert len(consuming.stored()) == 100


def test_a_sink_that_cannot_be_opened_ever_aborts(
    consuming: Consuming,
) -> None:
    class Unusable(FakeSink):
        def open(self) -> Deferred[None]:
            return fail(SinkUnusable("newer schema"))

    consuming.sink = Unusable()
    consuming.consumer = consuming.member("one")
    consuming.consumer.startService()
    assert consuming.aborted == ["newer schema"]
