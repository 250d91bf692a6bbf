"""How late the loop is, by a clock that the test moves."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tracker.observe.loopdelay import INTERVAL, LoopDelay


class Watched:
    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics_registry = CollectorRegistry()
        self.delay = LoopDelay(self.clock, self.metrics_registry)
        self.delay.startService()

    def value(self, what: str, **labels: str) -> float:
        found = self.metrics_registry.get_sample_value(
            f"tracker_event_loop_delay_seconds_{what}", labels
        )
        assert found is not None
        return found


def test_a_loop_that_turns_is_not_late() -> None:
    watched = Watched()
    watched.clock.pump([INTERVAL] * 5)
    assert watched.value("count") == 5
    assert watched.value("bucket", le="0.001") == 5


def test_a_loop_that_is_held_up_is_late_once() -> None:
    watched = Watched()
    watched.clock.advance(INTERVAL + 0.7)
    assert watched.value("count") == 1
    assert watched.value("sum") == pytest.approx(0.7)
    assert watched.value("bucket", le="0.5") == 0
    watched.clock.advance(INTERVAL)
    assert watched.value("count") == 2
    assert watched.value("sum") == pytest.approx(0.7)


def test_after_a_stop_nothing_is_asked_for() -> None:
    watched = Watched()
    assert watched.delay.stopService().called
    assert not watched.clock.getDelayedCalls()


def test_before_a_start_there_is_nothing_to_stop() -> None:
    assert LoopDelay(Clock(), CollectorRegistry()).stopService().called
