"""The consumer's loop, with a stream in memory and a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from tests.unit.fakes import FakeSink
from tests.unit.log.memory import MemoryReader, MemoryStream
from tracker.interfaces import SinkTimedOut, SinkUnusable
from tracker.log.entries import StreamEntry
from tracker.observe.health import Condition
from tracker.position import Position
from tracker.processing.consumer import BatchOptions, Consumer
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.reading import READ_WAIT
from tracker.processing.storing import MAX_RETRY_DELAY

STREAM = "telemetry:teltonika"
OPTIONS = BatchOptions(batch_size=100, batch_delay=0.02, claim_after=60.0)


class ConsumerBench:
    """A consumer with its stream and its sink."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.stream = MemoryStream(self.clock, STREAM, OPTIONS.batch_size)
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
            options=OPTIONS,
            metrics=ProcessMetrics([STREAM], None),
        )

    def append(self, count: int) -> list[str]:
        """Append positions, and return their times."""
        start = len(self.stream.entries)
        times = [f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000Z"
                 for number in range(start, start + count)]  # fmt: skip
        for time in times:
            position = Position("1", time, 41.3, 19.8, 0, 0, 0, 9, 0, 0, {"239": 1})
            self.stream.append(position.to_entry("8E")._asdict())
        return times

    def stored(self) -> list[str]:
        return [row.position.timestamp for batch in self.sink.batches for row in batch.positions]


@pytest.fixture
def bench() -> Iterator[ConsumerBench]:
    bench = ConsumerBench()
    yield bench
    assert bench.consumer.stopService().called
    assert bench.sink.closed
    assert not bench.clock.getDelayedCalls()


def test_entries_are_acknowledged_after_the_commit(bench: ConsumerBench) -> None:
    bench.sink.busy = Deferred()
    times = bench.append(100)
    bench.consumer.startService()
    assert len(bench.stream.pending) == 100
    bench.sink.busy.callback(None)
    bench.sink.busy = None
    assert bench.stored() == times
    assert not bench.stream.pending
    assert set(bench.reports) == {None}


def test_incomplete_batch_waits_for_more_entries(bench: ConsumerBench) -> None:
    bench.consumer.startService()
    times = bench.append(3)
    assert not bench.sink.batches
    bench.clock.advance(OPTIONS.batch_delay)
    assert bench.stored() == times
    assert len(bench.sink.batches) == 1


def test_batch_stores_its_last_and_the_oldest_unfinished_entry_as_checkpoints(
    bench: ConsumerBench,
) -> None:
    bench.append(100)
    bench.stream.joined, bench.stream.delivered = True, 1
    bench.stream.pending["1-0"] = "another"
    bench.consumer.startService()
    bench.clock.advance(OPTIONS.batch_delay)
    (batch,) = bench.sink.batches
    assert batch.checkpoints == {
        (STREAM, "processor"): "100-0",
        (STREAM, "processor:unfinished"): "1-0",
    }


def test_lost_group_restarts_before_the_oldest_unfinished_entry(
    bench: ConsumerBench,
) -> None:
    bench.append(100)
    bench.consumer.startService()
    entries = dict(bench.stream.entries)
    bench.stream.flush()
    bench.stream.entries.update(entries)
    bench.clock.advance(MAX_RETRY_DELAY)
    assert bench.stream.joined
    assert bench.stream.delivered == 100
    assert len(bench.stored()) == 200  # none was acknowledged when they were committed


def test_failed_batch_is_retried(bench: ConsumerBench) -> None:
    bench.sink.failures += [RuntimeError("disk full")] * 2
    times = bench.append(100)
    bench.consumer.startService()
    assert bench.reports[-1] == "cannot store positions: disk full"
    assert len(bench.stream.pending) == 100
    bench.clock.pump([MAX_RETRY_DELAY] * 2)
    assert bench.stored() == times
    assert bench.reports[-1] is None
    assert len(bench.stream.kept) == 2


def test_batch_is_divided_after_a_timeout(bench: ConsumerBench) -> None:
    bench.sink.failures += [SinkTimedOut("not within 30s")] * 2
    times = bench.append(100)
    bench.consumer.startService()
    bench.clock.pump([MAX_RETRY_DELAY] * 2)
    assert [len(batch.positions) for batch in bench.sink.batches] == [25, 25, 50]
    assert bench.stored() == times
    assert not bench.stream.pending


def test_only_refused_positions_become_dead_letters(bench: ConsumerBench) -> None:
    times = bench.append(100)
    bench.sink.refused |= {times[0], times[63]}
    bench.consumer.startService()
    assert sorted(bench.stored()) == sorted(set(times) - bench.sink.refused)
    assert set(bench.stream.dead) == {"1-0", "64-0"}
    assert not bench.stream.pending


def test_stop_during_an_outage_leaves_entries_to_the_next_start(
    bench: ConsumerBench,
) -> None:
    bench.sink.failures.append(RuntimeError("disk full"))
    times = bench.append(100)
    bench.consumer.startService()
    assert bench.consumer.stopService().called
    assert len(bench.stream.pending) == 100
    bench.consumer = bench.member("one")
    bench.consumer.startService()
    assert bench.stored() == times


def test_stop_leaves_invalid_entries_of_later_batches_to_the_next_start(
    bench: ConsumerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_ids = [bench.stream.append({"codec": "8E"}) for _ in range(2 * OPTIONS.batch_size)]
    bench.stream.joined, bench.stream.delivered = True, len(entry_ids)
    bench.stream.pending = dict.fromkeys(entry_ids, "one")
    move = MemoryReader.dead_letter

    async def stop_and_move(reader: MemoryReader, entry: StreamEntry, reason: str) -> None:
        if not bench.stream.dead:
            bench.consumer.stopService()
        await move(reader, entry, reason)

    monkeypatch.setattr(MemoryReader, "dead_letter", stop_and_move)
    bench.consumer.startService()
    assert list(bench.stream.dead) == entry_ids[: OPTIONS.batch_size]
    assert list(bench.stream.pending) == entry_ids[OPTIONS.batch_size :]


def test_entries_of_an_idle_consumer_are_claimed(bench: ConsumerBench) -> None:
    times = bench.append(2)
    bench.stream.joined, bench.stream.delivered = True, 2
    bench.stream.pending = {"1-0": "gone", "2-0": "gone"}
    bench.consumer.startService()
    assert not bench.stored()
    bench.stream.idle = True
    bench.clock.pump([READ_WAIT] * 7)
    assert bench.stored() == times
    assert not bench.stream.pending


def test_outage_of_the_log_is_reported_and_retried(bench: ConsumerBench) -> None:
    bench.stream.available = False
    bench.consumer.startService()
    assert bench.reports == ["cannot read the streams: not connected"]
    bench.stream.available = True
    bench.clock.advance(MAX_RETRY_DELAY)
    assert bench.reports[-1] is None
    bench.append(100)
    bench.clock.advance(OPTIONS.batch_delay)
    assert len(bench.stored()) == 100


def test_unusable_sink_aborts_the_process(
    bench: ConsumerBench,
) -> None:
    class Unusable(FakeSink):
        def open(self) -> Deferred[None]:
            return fail(SinkUnusable("newer schema"))

    bench.sink = Unusable()
    bench.consumer = bench.member("one")
    bench.consumer.startService()
    assert bench.aborted == ["newer schema"]
