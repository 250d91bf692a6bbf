"""Delay of the event loop, measured on a fake clock."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock

from tracker.observe.loopdelay import INTERVAL, LoopDelay


class Measured:
    def __init__(self) -> None:
        self.clock = Clock()
        self.metrics_registry = CollectorRegistry()
        self.delay = LoopDelay(self.clock, self.metrics_registry)
        self.delay.startService()

    def value(self, suffix: str, **labels: str) -> float:
        found = self.metrics_registry.get_sample_value(
            f"tracker_event_loop_delay_seconds_{suffix}", labels
        )
        assert found is not None
        return found


def test_delay_of_an_idle_loop_is_zero() -> None:
    measured = Measured()
    measured.clock.pump([INTERVAL] * 5)
    assert measured.value("count") == 5
    assert measured.value("bucket", le="0.001") == 5


def test_blocked_loop_is_measured_once() -> None:
    measured = Measured()
    measured.clock.advance(INTERVAL + 0.7)
    assert measured.value("count") == 1
    assert measured.value("sum") == pytest.approx(0.7)
    assert measured.value("bucket", le="0.5") == 0
    measured.clock.advance(INTERVAL)
    assert measured.value("count") == 2
    assert measured.value("sum") == pytest.approx(0.7)


def test_stop_cancels_the_next_measurement() -> None:
    measured = Measured()
    assert measured.delay.stopService().called
    assert not measured.clock.getDelayedCalls()


def test_measurement_of_loop_delay_can_be_stopped_before_its_start() -> None:
    assert LoopDelay(Clock(), CollectorRegistry()).stopService().called
