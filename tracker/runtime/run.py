"""Run a command on a reactor of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import react

from tracker.reactor import Reactor
from tracker.runtime.waits import Waits

#: Seconds between two progress lines where they cannot be drawn over each other.
PLAIN_INTERVAL: Final = 5.0


class RunFailed(Exception):
    """The failure of a command of ``tracker-admin``; the text is the reason in one line."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def run(main: Callable[[Any], Awaitable[int]]) -> None:
    """Run ``main(reactor)`` and exit with the status that it returns; what it raises is raised.

    At Ctrl-C and SIGTERM it is cancelled, unless it uses :func:`until_interrupted`; the
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

    def _begin(self, reactor: Reactor) -> Deferred[None]:
        # Once it runs, since the reactor sets handlers of its own when it starts; and before
        # until_interrupted does so.
        reactor.callWhenRunning(self._heed_signals, reactor)
        self._guarded = Deferred.fromCoroutine(self._guard(reactor))
        return self._guarded

    async def _guard(self, reactor: Reactor) -> None:
        try:
            self._status = await self._main(reactor)
        except BaseException as error:  # noqa: BLE001 - raised again, outside of the reactor
            self._raised = error

    def _heed_signals(self, reactor: Reactor) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda one, _: reactor.callFromThread(self._end, reactor, one))

    def _end(self, reactor: Reactor, number: int) -> None:
        if self._signal:
            reactor.stop()
            return
        self._signal = number
        self._guarded.cancel()


def until_interrupted(reactor: Reactor) -> Waits:
    """Return waits that are stopped by Ctrl-C or SIGTERM."""
    waits = Waits(reactor)

    def heed_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: reactor.callFromThread(waits.stop))

    # Once it runs, since the reactor sets handlers of its own when it starts.
    reactor.callWhenRunning(heed_signals)
    return waits


class Progress:
    """A line that is drawn over itself; in a pipe, a new line every few seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._in_place = sys.stdout.isatty()
        self._next = 0.0

    def show(self, text: str) -> None:
        """Show the latest state."""
        if self._in_place:
            print(f"\r\x1b[K{text}", end="", flush=True)
        elif self._clock.seconds() >= self._next:
            self._next = self._clock.seconds() + PLAIN_INTERVAL
            print(text, flush=True)

    def end(self) -> None:
        """Leave the line to what was shown last."""
        if self._in_place:
            print(flush=True)
