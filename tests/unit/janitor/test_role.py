"""Rounds of the janitor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.janitor import role as janitor
from tracker.janitor.orphans import SweepCounts
from tracker.observe.health import Condition, Watchdog


class Sweeper:
    """A sweeper whose steps end when the test fires their Deferred."""

    def __init__(self) -> None:
        self.step: Deferred[None] = Deferred()
        self.steps = 0

    async def sweep(self, counts: SweepCounts, may_continue: Callable[[], bool]) -> None:
        while may_continue():
            self.steps += 1
            self.step = Deferred()
            await self.step


class Trimmer:
    trimmed = 0

    def trim_all(self, may_continue: Callable[[], bool]) -> Awaitable[list[str]]:
        raise AssertionError("the sweep never ends")


def test_watchdog_expires_in_a_hanging_step_but_not_in_a_long_round() -> None:
    clock = Clock()
    watchdog = Watchdog(janitor.WATCHDOG_TIMEOUT, clock.seconds)
    sweeper = Sweeper()
    service = janitor.Janitor(
        clock=clock,
        redis=FakeRedis(),  # type: ignore[arg-type]
        trimmer=Trimmer(),  # type: ignore[arg-type]
        sweeper=sweeper,  # type: ignore[arg-type]
        interval=60.0,
        condition=Condition(),
        metrics_registry=CollectorRegistry(),
        watchdog=watchdog,
    )
    service.startService()
    for _ in range(100):
        clock.advance(janitor.WATCHDOG_TIMEOUT - 1)
        assert not watchdog.expired
        sweeper.step.callback(None)
    assert sweeper.steps == 101
    clock.advance(janitor.WATCHDOG_TIMEOUT + 1)
    assert watchdog.expired


def test_summary_lists_only_what_was_done() -> None:
    counts = SweepCounts()
    assert counts.done(0) == counts.left == ""
    counts.connections, counts.streams, counts.waiting = 3, 1, 2
    counts.commands["moved"] += 0
    counts.commands["expired"] += 2
    counts.commands["ended"] += 1
    assert counts.done(1) == (
        "1 entry trimmed, 3 stale connections removed, 1 command stream removed, "
        "1 command ended, 2 commands expired"
    )
    assert counts.left == "; commands wait for 2 devices"
