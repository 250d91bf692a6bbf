"""Running something on a reactor of its own, from a command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from tracker.simulator.fleet import Fleet

#: Seconds that records on their way are waited for at the end.
DRAIN_TIMEOUT: Final = 30.0
#: Seconds between two progress lines where they cannot be drawn over each other.
PLAIN_INTERVAL: Final = 5.0


class Failed(Exception):
    """It did not go well; the text says why, in one line.

    :param status: to exit with.
    """

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def run(main: Callable[[Any], Awaitable[int]]) -> None:
    """Run ``main(reactor)`` and exit with the status that it returns; what it raises is raised.

    At Ctrl-C and SIGTERM it is cancelled, unless it heeds them itself (:class:`Interrupt`); the
    status is then 128 and the signal's number. At the second one it is not waited for.
    """
    _Run(main).run()


class _Run:
    def __init__(self, main: Callable[[Any], Awaitable[int]]) -> None:
        self._main = main
        self._signal = 0
        self._status = 0
        self._raised: BaseException | None = None

    def run(self) -> None:
        with suppress(SystemExit):  # how react ends, whatever has happened
            react(self._begin)
        if self._signal:
            raise SystemExit(128 + self._signal)
        if self._raised is not None:
            raise self._raised
        if self._status:
            raise SystemExit(self._status)

    def _begin(self, reactor: Any) -> Deferred[None]:
        # Once it runs, since the reactor sets handlers of its own when it starts; and before
        # an Interrupt does so.
        reactor.callWhenRunning(self._heed_signals, reactor)
        self._guarded = Deferred.fromCoroutine(self._guard(reactor))
        return self._guarded

    async def _guard(self, reactor: Any) -> None:
        try:
            self._status = await self._main(reactor)
        except BaseException as error:  # noqa: BLE001 - raised again, outside of the reactor
            self._raised = error

    def _heed_signals(self, reactor: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda one, _: reactor.callFromThread(self._end, reactor, one))

    def _end(self, reactor: Any, number: int) -> None:
        if self._signal:
            reactor.stop()
            return
        self._signal = number
        self._guarded.cancel()


class Interrupt:
    """Waits on a reactor, until Ctrl-C or SIGTERM at most."""

    def __init__(self, reactor: Any) -> None:
        self.requested = False
        self._reactor = reactor
        self._waiting: Deferred[None] | None = None
        # Once it runs, since the reactor sets handlers of its own when it starts.
        reactor.callWhenRunning(self._heed_signals)

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until the interrupt."""
        if self.requested:
            return
        self._waiting = deferLater(self._reactor, seconds)
        self._waiting.addErrback(lambda _: None)
        await self._waiting
        self._waiting = None

    def _heed_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._request))

    def _request(self) -> None:
        self.requested = True
        if self._waiting is not None:
            self._waiting.cancel()


class Progress:
    """A line that is drawn over itself; in a pipe, a new line every few seconds."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._in_place = sys.stdout.isatty()
        self._next = 0.0

    def show(self, text: str) -> None:
        """The latest state."""
        if self._in_place:
            print(f"\r\x1b[K{text}", end="", flush=True)
        elif self._clock.seconds() >= self._next:
            self._next = self._clock.seconds() + PLAIN_INTERVAL
            print(text, flush=True)

    def end(self) -> None:
        """Leave the line to what was shown last."""
        if self._in_place:
            print(flush=True)


async def run_fleet(reactor: Any, fleet: Fleet, seconds: float | None) -> int:
    """Let the fleet drive, then wait until its records are acknowledged.

    :param seconds: how long; None until an interrupt.
    :return: 0 when all records were acknowledged, else 1.
    """
    interrupt = Interrupt(reactor)
    progress = Progress(reactor)
    end = None if seconds is None else reactor.seconds() + seconds
    fleet.startService()
    while not interrupt.requested and (end is None or reactor.seconds() < end):
        await interrupt.sleep(0.5 if end is None else min(0.5, max(0, end - reactor.seconds())))
        progress.show(_summary(fleet))
    await drain(reactor, fleet)
    progress.end()
    commands = f", {fleet.counters.commands:,} commands" if fleet.counters.commands else ""
    print(f"simulate: {_summary(fleet)}, {fleet.unacknowledged:,} left{commands}", flush=True)
    await fleet.stopService()
    return 1 if fleet.unacknowledged else 0


async def drain(reactor: Any, fleet: Fleet) -> None:
    """Let the devices send what they still have; gives up after :data:`DRAIN_TIMEOUT`."""
    fleet.stop_recording()
    deadline = reactor.seconds() + DRAIN_TIMEOUT
    while fleet.unacknowledged and reactor.seconds() < deadline:
        await deferLater(reactor, 0.05)


def _summary(fleet: Fleet) -> str:
    counters = fleet.counters
    return (
        f"{counters.connected} of {len(fleet.devices)} devices connected, "
        f"{counters.sent:,} records sent, {counters.acknowledged:,} acknowledged, "
        f"{counters.retransmitted:,} retransmitted"
        + (f", {counters.refused_logins:,} logins refused" if counters.refused_logins else "")
    )
