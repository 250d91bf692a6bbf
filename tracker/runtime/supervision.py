"""Notify systemd of the readiness, status, watchdog and stop of the process.

READY=1 is sent when the conditions are met, or when one fails for a known reason. ``systemctl
start`` therefore waits for the first attempt to connect to Redis, and fails if the process aborts
at once, but does not wait for the end of an outage, which the status shows. WATCHDOG=1 is sent
while the reactor runs and no loop is stuck.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.observe.health import Health
from tracker.runtime.notify import ALIVE, READY, STOPPING, INotifier, status

#: Seconds between two checks of the health.
INTERVAL: Final = 1.0
#: Seconds after which READY=1 is sent even if no reason is known.
READY_TIMEOUT: Final = 10.0


class Supervision(Service):
    """Notifies systemd; the last service to start, and the first to stop.

    :param notifier: None if notifications are not expected.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, notifier: INotifier | None, health: Health) -> None:
        self._clock = clock
        self._notifier = notifier
        self._health = health
        self._began = 0.0
        self._ready = False
        self._status = ""
        self._stuck = ""
        self._timers: list[TimerService] = []

    def startService(self) -> None:
        """Start to notify systemd."""
        super().startService()
        if self._notifier is None:
            return
        self._began = self._clock.seconds()
        self._every(INTERVAL, self._report, self._notifier)
        if self._notifier.watchdog is not None:
            self._every(self._notifier.watchdog / 2, self._report_alive, self._notifier)

    def stopService(self) -> Deferred[None]:
        """Notify systemd that the process stops."""
        super().stopService()
        if self._notifier is not None:
            self._notifier.send(STOPPING, status("stopping"))
        return gatherResults([timer.stopService() for timer in self._timers]).addCallback(
            lambda _: None
        )

    def _every(self, seconds: float, action: Any, notifier: INotifier) -> None:
        timer = TimerService(seconds, action, notifier)
        timer.clock = self._clock
        self._timers.append(timer)
        timer.startService()

    def _report(self, notifier: INotifier) -> None:
        if self._stuck:
            self._report_alive(notifier)  # the loop may only have been late
        text = self._text()
        lines = [status(text)] if text != self._status else []
        if not self._ready and self._is_known():
            lines.insert(0, READY)
        if lines and notifier.send(*lines):
            self._ready = self._ready or READY in lines
            self._status = text

    def _is_known(self) -> bool:
        return (
            self._health.ready
            or self._health.reason_known
            or self._clock.seconds() - self._began >= READY_TIMEOUT
        )

    def _text(self) -> str:
        reasons = self._health.reasons
        if not reasons:
            return "ready"
        return "not ready: " + "; ".join(f"{name}: {why}" for name, why in reasons.items())

    def _report_alive(self, notifier: INotifier) -> None:
        stuck = ", ".join(self._health.stuck)
        if not stuck:
            notifier.send(ALIVE)
        elif stuck != self._stuck:
            self._log.critical("stuck: {loops}; systemd will restart this process", loops=stuck)
        self._stuck = stuck
