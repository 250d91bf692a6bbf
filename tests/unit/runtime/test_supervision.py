"""Notifications of readiness, status, watchdog and stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from tracker.observe.health import Health
from tracker.runtime.notify import Notifier
from tracker.runtime.supervision import READY_TIMEOUT, Supervision

WATCHDOG = 30.0


class FakeNotifier:
    """Collects notifications; sending fails while ``unreachable`` is set."""

    address = "/nowhere"
    watchdog: float | None = WATCHDOG

    def __init__(self) -> None:
        self.unreachable = False
        self._lines: list[str] = []

    def send(self, *lines: str) -> bool:
        if not self.unreachable:
            self._lines += lines
        return not self.unreachable

    def take_lines(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


class Supervised:
    """A process with one condition and one watchdog."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.health = Health(self.clock.seconds)
        self.redis = self.health.condition("redis")
        self.watchdog = self.health.watchdog("loop", 60)
        self.systemd = FakeNotifier()
        notifier: Notifier = self.systemd  # type: ignore[assignment]
        self.service = Supervision(self.clock, notifier, self.health)

    def after(self, seconds: float) -> list[str]:
        """Return the notifications of the next seconds, without those of the watchdog."""
        return [line for line in self._run(seconds) if line != "WATCHDOG=1"]

    def watchdog_notifications(self, seconds: float) -> int:
        """Return the number of watchdog notifications within the next seconds."""
        return self._run(seconds).count("WATCHDOG=1")

    def _run(self, seconds: float) -> list[str]:
        self.clock.pump([0.5] * int(2 * seconds))
        return self.systemd.take_lines()


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    one = Supervised()
    one.service.startService()
    yield one
    if one.service.running:
        one.service.stopService()


def test_ready_is_sent_once_all_conditions_are_met(supervised: Supervised) -> None:
    assert supervised.after(3) == ["STATUS=not ready: redis: starting"]
    supervised.redis.met()
    assert supervised.after(1) == ["READY=1", "STATUS=ready"]
    assert supervised.after(READY_TIMEOUT) == []


def test_outage_is_shown_in_the_status_and_does_not_delay_ready(supervised: Supervised) -> None:
    supervised.systemd.take_lines()
    supervised.redis.fails("Connection refused")
    assert supervised.after(1) == ["READY=1", "STATUS=not ready: redis: Connection refused"]
    supervised.redis.met()
    assert supervised.after(1) == ["STATUS=ready"]
    supervised.redis.fails("no reply within 4s")
    assert supervised.after(1) == ["STATUS=not ready: redis: no reply within 4s"]


def test_ready_is_sent_after_a_timeout_if_conditions_are_not_met(supervised: Supervised) -> None:
    supervised.systemd.take_lines()
    assert supervised.after(READY_TIMEOUT - 1) == []
    assert supervised.after(1) == ["READY=1"]


def test_unsent_notification_is_sent_again(supervised: Supervised) -> None:
    supervised.systemd.take_lines()
    supervised.systemd.unreachable = True
    supervised.redis.met()
    assert supervised.after(3) == []
    supervised.systemd.unreachable = False
    assert supervised.after(1) == ["READY=1", "STATUS=ready"]


def test_stopping_is_the_last_notification(supervised: Supervised) -> None:
    supervised.redis.met()
    supervised.after(1)
    supervised.service.stopService()
    assert supervised.systemd.take_lines() == ["STOPPING=1", "STATUS=stopping"]
    assert supervised._run(10 * WATCHDOG) == []
    assert not supervised.clock.getDelayedCalls()


def test_watchdog_notification_is_sent_twice_in_each_timeout(supervised: Supervised) -> None:
    supervised.systemd.take_lines()
    assert supervised.watchdog_notifications(10 * WATCHDOG) == 20


def test_watchdog_notifications_continue_during_an_outage(supervised: Supervised) -> None:
    supervised.systemd.take_lines()
    supervised.redis.fails("Connection refused")
    supervised.watchdog.reset()
    supervised.watchdog.suspend()  # as a loop that waits for Redis does
    assert supervised.watchdog_notifications(1000 * WATCHDOG) == 2000


def test_stuck_loop_stops_watchdog_notifications(supervised: Supervised) -> None:
    supervised.systemd.take_lines()
    supervised.redis.met()
    supervised.watchdog.reset()
    assert supervised.watchdog_notifications(60) == 4
    with capturedLogs() as logged:
        assert supervised.watchdog_notifications(100 * WATCHDOG) == 0
    assert [event["loops"] for event in logged if event["log_level"] is LogLevel.critical] == [
        "loop"
    ]
    assert not supervised.health.ready


def test_late_loop_resumes_watchdog_notifications_at_once(supervised: Supervised) -> None:
    supervised.watchdog.reset()
    supervised.watchdog_notifications(100)
    assert supervised.watchdog_notifications(10) == 0
    supervised.watchdog.reset()
    assert supervised.watchdog_notifications(1.5) == 1


def test_watchdog_notifications_are_not_sent_without_a_systemd_watchdog() -> None:
    one = Supervised()
    one.systemd.watchdog = None
    one.service.startService()
    assert one.watchdog_notifications(1000) == 0
    one.service.stopService()


def test_nothing_is_scheduled_without_systemd() -> None:
    clock = Clock()
    service = Supervision(clock, None, Health())
    service.startService()
    assert not clock.getDelayedCalls()
    service.stopService()
