"""Run a command on a reactor of its own."""

from __future__ import annotations

import shutil
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

#: Seconds between two progress lines if the output is not a terminal.
PLAIN_INTERVAL: Final = 5.0


def run(main: Callable[[Any], Awaitable[int]]) -> None:
    """Run ``main(reactor)``, and exit with the code that it returns.

    Ctrl-C and SIGTERM cancel it, unless it uses :func:`until_interrupted`; the exit code is then
    128 plus the number of the signal. A second signal stops the reactor at once. Exceptions of
    ``main`` are raised.
    """
    _Run(main).run()


class _Run:
    def __init__(self, main: Callable[[Any], Awaitable[int]]) -> None:
        self._main = main
        self._signal = 0
        self._exit_code = 0
        self._raised: BaseException | None = None

    def run(self) -> None:
        with suppress(SystemExit):  # react always raises it
            react(self._begin)
        if self._signal:
            raise SystemExit(128 + self._signal)
        if self._raised is not None:
            raise self._raised
        if self._exit_code:
            raise SystemExit(self._exit_code)

    def _begin(self, reactor: Reactor) -> Deferred[None]:
        # The reactor installs its own handlers at its start, so these are installed after it. They
        # are registered before those of until_interrupted, which replace them.
        reactor.callWhenRunning(self._handle_signals, reactor)
        self._guarded = Deferred.fromCoroutine(self._guard(reactor))
        return self._guarded

    async def _guard(self, reactor: Reactor) -> None:
        try:
            self._exit_code = await self._main(reactor)
        except BaseException as error:  # noqa: BLE001 - raised again outside of the reactor
            self._raised = error

    def _handle_signals(self, reactor: Reactor) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(
                number, lambda sent, _: reactor.callFromThread(self._interrupt, reactor, sent)
            )

    def _interrupt(self, reactor: Reactor, number: int) -> None:
        if self._signal:
            reactor.stop()
            return
        self._signal = number
        self._guarded.cancel()


def until_interrupted(reactor: Reactor) -> Waits:
    """Return waits that are stopped by Ctrl-C or SIGTERM."""
    waits = Waits(reactor)

    def handle_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: reactor.callFromThread(waits.stop))

    # The reactor installs its own handlers at its start, so these are installed after it.
    reactor.callWhenRunning(handle_signals)
    return waits


class Progress:
    """A line that is updated in place; in a pipe, a new line every few seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._in_place = sys.stdout.isatty()
        self._next = 0.0

    def show(self, text: str) -> None:
        """Show the latest state."""
        if self._in_place:
            # A line that the terminal wraps could not be replaced.
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{text[:width]}", end="", flush=True)
        elif self._clock.seconds() >= self._next:
            self._next = self._clock.seconds() + PLAIN_INTERVAL
            print(text, flush=True)

    def end(self) -> None:
        """End the line."""
        if self._in_place:
            print(flush=True)
