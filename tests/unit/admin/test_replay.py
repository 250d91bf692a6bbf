"""Replay into a slow sink."""

from __future__ import annotations

from itertools import chain

import pytest
from attrs import define, evolve
from click.testing import CliRunner
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from tests.unit.fakes import FakeSink
from tracker.admin.cli import main
from tracker.admin.replay import Replay
from tracker.errors import RunFailed
from tracker.interfaces import Batch, SinkTimedOut
from tracker.log.entries import StreamEntry
from tracker.position import Position


@define(eq=False)
class SlowSink(FakeSink):
    """A sink that times out for more than a number of positions."""

    capacity: int = 0

    def store(self, batch: Batch) -> Deferred[int]:
        if len(batch.positions) > self.capacity:
            return fail(SinkTimedOut("not stored in time"))
        return super().store(batch)


def entries(count: int) -> list[StreamEntry]:
    made = []
    for number in range(count):
        at = f"2026-11-22T10:00:{number:02}.000Z"
        position = Position("356307042441013", at, 41.3, 19.8, 1, 2, 3, 4, 0, 0, {"239": 1})
        fields = position.to_entry("8E")._asdict().items()
        made.append(StreamEntry("s", f"{number + 1}-0", [part.encode() for part in chain(*fields)]))
    return made


def replayed(sink: SlowSink, count: int) -> Replay:
    replay = Replay(sink, "teltonika")
    failures: list[Failure] = []
    Deferred.fromCoroutine(replay.store(entries(count))).addErrback(failures.append)
    for failure in failures:
        failure.raiseException()
    return replay


def test_batch_that_times_out_is_stored_in_parts() -> None:
    sink = SlowSink(capacity=2)
    assert replayed(sink, 7).new == 7
    assert [len(batch.positions) for batch in sink.batches] == [1, 2, 2, 2]


def test_single_entry_that_times_out_ends_the_replay_with_its_id() -> None:
    with pytest.raises(RunFailed, match="--from 1-0"):
        replayed(SlowSink(capacity=0), 7)


def test_replayed_positions_keep_the_time_of_their_first_arrival() -> None:
    appended, moved = entries(2)
    arrived = "1970-01-01T00:00:00.000Z"
    extra = [b"extra", b'{"arrived":"%s"}' % arrived.encode()]
    moved = evolve(moved, content=[*(moved.content or ()), *extra])
    sink = SlowSink(capacity=2)
    Deferred.fromCoroutine(Replay(sink, "teltonika").store([appended, moved]))
    (batch,) = sink.batches
    times = [stored.received_at for stored in batch.positions]
    assert times == ["1970-01-01T00:00:00.001Z", arrived]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--clock-tolerance", "59", "--clock-tolerance: must be between 1m and 30d, not 59s."),
        ("--oldest", "1826d", "--oldest: must be between 1d and 1825d, not 1826d."),
        ("--oldest", "730", "--oldest: must be like 730d, not '730'."),
    ],
)
def test_rule_for_clocks_out_of_range_is_refused(option: str, value: str, message: str) -> None:
    arguments = ["replay", "--stream", "s", "--sink", "sqlite:p", option, value]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert message in result.output
