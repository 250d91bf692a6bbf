"""Health of a process: named conditions, each with a reason while it fails.

Details are reported in addition, and do not affect readiness. Watchdogs show that the loops of
the process still run. A condition that fails usually recovers by itself; an expired watchdog
means that the process has to be restarted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from tracker.untrusted import MAX_LINE, shown

_STARTING: Final = "starting"


class Watchdog:
    """Timer that expires if a loop is stuck.

    A loop resets its watchdog at each pass and at each retry. It suspends its watchdog during a
    wait that may take any time, such as for a server that is down. If it does neither, the
    watchdog expires.

    :param timeout: seconds after a reset within which another reset or a suspension must follow.
    :param now: returns the seconds of a monotonic clock.
    """

    def __init__(self, timeout: float, now: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._now = now
        self._last: float | None = None  # None: suspended

    def reset(self) -> None:
        """Note that the loop runs."""
        self._last = self._now()

    def suspend(self) -> None:
        """Note that the loop waits, or has ended normally."""
        self._last = None

    @property
    def expired(self) -> bool:
        """True if a reset is overdue."""
        last = self._last  # read once: a scrape calls this in another thread
        return last is not None and self._now() - last > self._timeout


class Condition:
    """One condition of a role's readiness.

    :param listener: see :meth:`listen`.
    """

    def __init__(self, listener: Callable[[str | None], None] | None = None) -> None:
        self._listeners = [] if listener is None else [listener]

    def met(self) -> None:
        """Report that the condition is met."""
        self._report(None)

    def fails(self, reason: str) -> None:
        """Report that the condition is not met.

        :param reason: one line.
        """
        self._report(reason)

    def listen(self, listener: Callable[[str | None], None]) -> None:
        """Call ``listener`` at each report from now on: with the reason, or None if it is met."""
        self._listeners.append(listener)

    def reported(self) -> Deferred[str | None]:
        """Return a Deferred of the next report: its reason, or None if it is met."""
        known: Deferred[str | None] = Deferred()

        def fire(reason: str | None) -> None:
            if not known.called:  # a caller may have cancelled it
                known.callback(reason)

        self.listen(fire)
        return known

    def _report(self, reason: str | None) -> None:
        for listener in self._listeners:
            listener(reason)


class Health:
    """Readiness of a process: it is ready while all its conditions are met.

    :param now: the clock of the watchdogs, see :class:`Watchdog`.
    """

    _log = Logger()

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._reasons: dict[str, str | None] = {}
        self._details: dict[str, Callable[[], Any]] = {}
        self._watchdogs: dict[str, Watchdog] = {}
        self._waiting: list[Deferred[None]] = []

    def condition(self, name: str) -> Condition:
        """Add a condition that is not met yet.

        Each change is logged, a repeated report is not. A long reason is truncated.

        :raises ValueError: if a condition with this name exists.
        """
        if name in self._reasons:
            raise ValueError(f"duplicate condition: {name}")
        self._reasons[name] = _STARTING

        def report(reason: str | None) -> None:
            if reason is not None:
                reason = shown(reason, MAX_LINE)
            if reason == self._reasons[name]:
                return
            self._reasons[name] = reason
            if reason is not None:
                self._log.warn("not ready: {name}: {reason}", name=name, reason=reason)
            elif self.ready:
                self._log.info("ready")
                waiting, self._waiting = self._waiting, []
                for deferred in waiting:
                    deferred.callback(None)

        return Condition(report)

    def when_ready(self) -> Deferred[None]:
        """Return a Deferred that fires as soon as the process is ready, after the log says so."""
        if self.ready:
            return succeed(None)
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred

    def detail(self, name: str, value: Callable[[], Any]) -> None:
        """Add a detail, which does not affect readiness.

        :param value: called for each report; returns a value that JSON can hold.
        :raises ValueError: if a detail with this name exists.
        """
        if name in self._details:
            raise ValueError(f"duplicate detail: {name}")
        self._details[name] = value

    def watchdog(self, name: str, timeout: float) -> Watchdog:
        """Add a :class:`Watchdog`, suspended at first.

        :raises ValueError: if a watchdog with this name exists.
        """
        if name in self._watchdogs:
            raise ValueError(f"duplicate watchdog: {name}")
        self._watchdogs[name] = Watchdog(timeout, self._now)
        return self._watchdogs[name]

    @property
    def details(self) -> dict[str, Any]:
        """Detail → current value."""
        return {name: value() for name, value in self._details.items()}

    @property
    def conditions(self) -> dict[str, bool]:
        """Condition → True if met."""
        return {name: reason is None for name, reason in self._reasons.copy().items()}

    @property
    def ready(self) -> bool:
        """True if every condition is met."""
        return not self.reasons

    @property
    def reasons(self) -> dict[str, str]:
        """Condition that is not met → reason; empty if ready."""
        reasons = self._reasons.copy()  # a scrape calls this in another thread
        found = {name: reason for name, reason in reasons.items() if reason is not None}
        return found | dict.fromkeys(self.stuck, "stuck: restart the process")

    @property
    def reason_known(self) -> bool:
        """True if a condition is not met for a known reason."""
        return any(reason != _STARTING for reason in self.reasons.values())

    @property
    def stuck(self) -> list[str]:
        """Names of the loops whose watchdogs have expired."""
        return [name for name, watchdog in self._watchdogs.copy().items() if watchdog.expired]
