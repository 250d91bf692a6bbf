"""What systemd is told, and when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from tracker.observe.health import Health
from tracker.runtime.notify import Notifier
from tracker.runtime.supervision import READY_TIMEOUT, Supervision

WATCHDOG = 30.0


class Systemd:
    """What it was told, until it is looked at."""

    address = "/nowhere"
    watchdog: float | None = WATCHDOG

    def __init__(self) -> None:
        self.deaf = False
        self._told: list[str] = []

    def send(self, *lines: str) -> bool:
        if not self.deaf:
            self._told += lines
        return not self.deaf

    def told(self) -> list[str]:
        told, self._told = self._told, []
        return told


class Supervised:
    """A process with one condition and one watchdog."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.health = Health(self.clock.seconds)
        self.redis = self.health.condition("redis")
        self.watchdog = self.health.watchdog("loop", 60)
        self.systemd = Systemd()
        notifier: Notifier = self.systemd  # type: ignore[assignment]
        self.service = Supervision(self.clock, notifier, self.health)

    def after(self, seconds: float) -> list[str]:
        """What is told within so many seconds, but for that it lives."""
        return [line for line in self._run(seconds) if line != "WATCHDOG=1"]

    def beats(self, seconds: float) -> int:
        """How often it is told within so many seconds that it lives."""
        return self._run(seconds).count("WATCHDOG=1")

    def _run(self, seconds: float) -> list[str]:
        self.clock.pump([0.5] * int(2 * seconds))
        return self.systemd.told()


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    one = Supervised()
    one.service.startService()
    yield one
    if one.service.running:
        one.service.stopService()


def test_it_is_ready_once_its_conditions_are_met(supervised: Supervised) -> None:
    assert supervised.after(3) == ["STATUS=not ready: redis: starting"]
    supervised.redis.met()
    assert supervised.after(1) == ["READY=1", "STATUS=ready"]
    assert supervised.after(READY_TIMEOUT) == []


def test_an_outage_of_others_is_not_waited_for_but_told(supervised: Supervised) -> None:
    supervised.systemd.told()
    supervised.redis.fails("Connection refused")
    assert supervised.after(1) == ["READY=1", "STATUS=not ready: redis: Connection refused"]
    supervised.redis.met()
    assert supervised.after(1) == ["STATUS=ready"]
    supervised.redis.fails("no answer within 4 s")
    assert supervised.after(1) == ["STATUS=not ready: redis: no answer within 4 s"]


def test_a_start_never_waits_for_ever(supervised: Supervised) -> None:
    supervised.systemd.told()
    assert supervised.after(READY_TIMEOUT - 1) == []
    assert supervised.after(1) == ["READY=1"]


def test_what_was_not_heard_is_said_again(supervised: Supervised) -> None:
    supervised.systemd.told()
    supervised.systemd.deaf = True
    supervised.redis.met()
    assert supervised.after(3) == []
    supervised.systemd.deaf = False
    assert supervised.after(1) == ["READY=1", "STATUS=ready"]


def test_a_stop_is_told_at_once_and_is_the_last_word(supervised: Supervised) -> None:
    supervised.redis.met()
    supervised.after(1)
    supervised.service.stopService()
    assert supervised.systemd.told() == ["STOPPING=1", "STATUS=stopping"]
    assert supervised._run(10 * WATCHDOG) == []
    assert not supervised.clock.getDelayedCalls()


def test_it_lives_twice_in_the_time_of_the_watchdog(supervised: Supervised) -> None:
    supervised.systemd.told()
    assert supervised.beats(10 * WATCHDOG) == 20


def test_an_outage_is_no_reason_for_a_restart(supervised: Supervised) -> None:
    supervised.systemd.told()
    supervised.redis.fails("Connection refused")
    supervised.watchdog.reset()
    supervised.watchdog.suspend()  # it waits for Redis
    assert supervised.beats(1000 * WATCHDOG) == 2000


def test_what_is_stuck_lives_no_more(supervised: Supervised) -> None:
    supervised.systemd.told()
    supervised.redis.met()
    supervised.watchdog.reset()
    assert supervised.beats(60) == 4
    with capturedLogs() as logged:
        assert supervised.beats(100 * WATCHDOG) == 0
    assert [event["what"] for event in logged if event["log_level"] is LogLevel.critical] == [
        "loop"
    ]
    assert not supervised.health.ready


def test_what_was_only_late_lives_on_at_once(supervised: Supervised) -> None:
    supervised.watchdog.reset()
    supervised.beats(100)
    assert supervised.beats(10) == 0
    supervised.watchdog.reset()
    assert supervised.beats(1.5) == 1


def test_without_a_watchdog_nothing_is_told_of_life() -> None:
    one = Supervised()
    one.systemd.watchdog = None
    one.service.startService()
    assert one.beats(1000) == 0
    one.service.stopService()


def test_without_systemd_nothing_is_done() -> None:
    clock = Clock()
    service = Supervision(clock, None, Health())
    service.startService()
    assert not clock.getDelayedCalls()
    service.stopService()
