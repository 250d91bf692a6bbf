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

#: Ends the process with status 1; called with the reason, which is one line.
Abort = Callable[[str], None]


class Role(MultiService):
    """Services that start in order and stop in the opposite order, one after another.

    So a service that accepts work stops before one that finishes it, and that one before what it
    needs.
    """

    _log = Logger()

    def stopService(self) -> Deferred[None]:
        """Stop all; fires when the last one has stopped."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop_one_by_one())

    async def _stop_one_by_one(self) -> None:
        for child in reversed(list(self)):
            try:
                await maybeDeferred(child.stopService)
            except Exception:  # noqa: BLE001 - the others must be stopped all the same
                self._log.failure("{child} did not stop cleanly", child=child)


class GaveUp(Exception):
    """The process cannot do its work; the text gives the reason."""


class Process(Role):
    """The role of a whole process.

    It exits with status 0 when it is told to stop (SIGTERM, SIGINT), with 1 when it
    cannot go on (:meth:`abort`).
    """

    def __init__(self, reactor: Reactor) -> None:
        super().__init__()
        self._reactor = reactor
        self._aborted = ""  # why

    def privilegedStartService(self) -> None:
        """Bind ports.

        :raises GaveUp: if one cannot be bound, so that twistd's parent process reports it.
        """
        super().privilegedStartService()
        if self._aborted:
            # The reason is logged already; a traceback would add nothing.
            sys.excepthook = lambda *_: None
            raise GaveUp(self._aborted)

    def startService(self) -> None:
        """Start the services, and heed signals."""
        _raise_file_limit()
        _collect_garbage_seldom()
        _tell_where_it_ends()
        # Twisted's own handlers end the process by the signal, after a clean stop too.
        self._reactor.callWhenRunning(self._heed_signals)
        super().startService()

    def abort(self, reason: str) -> None:
        """Log the reason, once, then stop cleanly and exit with status 1."""
        if self._aborted:
            return
        self._aborted = reason
        self._log.critical("giving up: {reason}", reason=reason)
        # twistd cannot set an exit status; this runs after everything else.
        atexit.register(_exit, 1)
        self._reactor.callWhenRunning(self._stop)

    def _heed_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop))

    def _stop(self) -> None:
        with suppress(ReactorNotRunning):  # it is stopping already
            self._reactor.stop()


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # the soft one will have to do
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_garbage_seldom() -> None:
    # Garbage of packets and batches holds no cycles, but the collector examines all live objects to
    # find that out: a sixth of the CPU time with a thousand connections.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _tell_where_it_ends() -> None:
    # systemd's watchdog ends a stuck process by SIGABRT: log where it is stuck.
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
