"""Start, stop and abort of a process of Tracker."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from tracker.reactor import Reactor

#: Ends the process with exit code 1; called with the reason, one line.
Abort = Callable[[str], None]


class Role(MultiService):
    """Services that start in order, and stop one after another in reverse order.

    A service that accepts work is added last and stops first. One that others depend on is added
    first and stops last.
    """

    _log = Logger()

    def stopService(self) -> Deferred[None]:
        """Stop all services; fires when the last one has stopped."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop_one_by_one())

    async def _stop_one_by_one(self) -> None:
        for child in reversed(list(self)):
            try:
                await maybeDeferred(child.stopService)
            except Exception:  # noqa: BLE001 - the other services must still stop
                self._log.failure("{child} did not stop cleanly", child=child)


class GaveUp(Exception):
    """The process cannot start; the message gives the reason."""


class Process(Role):
    """The services of a whole process.

    Its exit code is 0 after SIGTERM or SIGINT, and 1 after :meth:`abort`.
    """

    def __init__(self, reactor: Reactor) -> None:
        super().__init__()
        self._reactor = reactor
        self.gave_up = ""
        """The reason, after :meth:`abort`."""

    def privilegedStartService(self) -> None:
        """Bind ports.

        :raises GaveUp: if a port cannot be bound, for twistd's parent process to report.
        """
        super().privilegedStartService()
        if self.gave_up:
            # The reason is logged already; a traceback would add nothing.
            sys.excepthook = lambda *_: None
            raise GaveUp(self.gave_up)

    def startService(self) -> None:
        """Start the services, and install signal handlers."""
        _raise_file_limit()
        _collect_garbage_seldom()
        _dump_stack_on_abort()
        # After a stop, Twisted's own handlers kill the process with the signal.
        self._reactor.callWhenRunning(self._handle_signals)
        super().startService()

    def abort(self, reason: str) -> None:
        """Log the reason once, stop cleanly, and exit with code 1."""
        if self.gave_up:
            return
        self.gave_up = reason
        self._log.critical("giving up: {reason}", reason=reason)
        # twistd cannot set an exit code; this runs after everything else.
        atexit.register(_exit, 1)
        self._reactor.callWhenRunning(self._stop)

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop))

    def _stop(self) -> None:
        with suppress(ReactorNotRunning):  # it is stopping already
            self._reactor.stop()


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # the soft limit remains
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_garbage_seldom() -> None:
    # Frames and batches leave no cycles, but the collector examines all live objects to find that
    # out: a sixth of the CPU time with a thousand connections.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _dump_stack_on_abort() -> None:
    # systemd's watchdog ends a stuck process by SIGABRT; the stack shows where it was stuck.
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
