"""Rounds of the janitor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.janitor import role as janitor
from tracker.janitor.orphans import Swept
from tracker.observe.health import Condition, Watchdog


class Sweeper:
    """Takes as long as the test says, in steps."""

    def __init__(self) -> None:
        self.step: Deferred[None] = Deferred()
        self.steps = 0

    async def sweep(self, swept: Swept, goes_on: Callable[[], bool]) -> None:
        while goes_on():
            self.steps += 1
            self.step = Deferred()
            await self.step


class Keeper:
    trimmed = 0

    def tidy(self, goes_on: Callable[[], bool]) -> Awaitable[list[str]]:
        raise AssertionError("the sweep has no end")


def test_a_long_round_of_a_janitor_is_stuck_when_a_step_has_no_end() -> None:
    clock = Clock()
    watchdog = Watchdog(janitor.WATCHDOG_TIMEOUT, clock.seconds)
    sweeper = Sweeper()
    service = janitor.Janitor(
        clock=clock,
        redis=FakeRedis(),  # type: ignore[arg-type]
        keeper=Keeper(),  # type: ignore[arg-type]
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


def test_a_summary_tells_what_was_done_and_nothing_else() -> None:
    swept = Swept()
    assert swept.summary() == (
        "0 stale connections removed, 0 streams of commands removed, of their commands none; "
        "0 devices waited for"
    )
    swept.connections, swept.streams, swept.waiting = 3, 1, 2
    swept.commands["moved"] += 0
    swept.commands["expired"] += 2
    swept.commands["ended"] += 1
    assert swept.summary() == (
        "3 stale connections removed, 1 streams of commands removed, of their commands "
        "1 ended, 2 expired; 2 devices waited for"
    )
