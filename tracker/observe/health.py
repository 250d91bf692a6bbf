"""Health of a process: named conditions, each with a reason while it fails.

Details are reported besides, and do not affect readiness. Watchdogs show that the loops of the
process still run. A condition that fails usually recovers by itself; after an expired watchdog
only a restart helps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tracker.untrusted import MAX_LINE, shown

_STARTING: Final = "starting"


class Watchdog:
    """The sign of life of a loop.

    A loop resets its watchdog at each pass and at each retry. It suspends it while it waits for
    something that may take any time, such as a server that is down. The watchdog of a loop that
    does neither expires: the loop is stuck.

    :param timeout: seconds after a reset within which another reset or a suspension must follow.
    :param now: returns the seconds of a monotonic clock.
    """

    def __init__(self, timeout: float, now: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._now = now
        self._last: float | None = None  # suspended

    def reset(self) -> None:
        """Note that the loop runs."""
        self._last = self._now()

    def suspend(self) -> None:
        """Note that the loop waits, or has ended as it should."""
        self._last = None

    @property
    def expired(self) -> bool:
        """True if a reset is overdue."""
        last = self._last  # a scrape asks in another thread, while the loop may suspend it
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
        """Report in one line why the condition is not met."""
        self._report(reason)

    def listen(self, listener: Callable[[str | None], None]) -> None:
        """Call ``listener`` at each report from now on: with the reason, or None if it is met."""
        self._listeners.append(listener)

    def reported(self) -> Deferred[str | None]:
        """Return a Deferred of the next report: its reason, or None if it is met."""
        known: Deferred[str | None] = Deferred()

        def tell(reason: str | None) -> None:
            if not known.called:  # a caller may have cancelled it
                known.callback(reason)

        self.listen(tell)
        return known

    def _report(self, reason: str | None) -> None:
        for listener in self._listeners:
            listener(reason)


class Health:
    """The conditions under which a role is ready: all of them have to be met.

    :param now: the clock of the watchdogs, see :class:`Watchdog`.
    """

    _log = Logger()

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._reasons: dict[str, str | None] = {}
        self._details: dict[str, Callable[[], Any]] = {}
        self._watchdogs: dict[str, Watchdog] = {}

    def condition(self, name: str) -> Condition:
        """Add a condition, not met yet.

        Changes that are reported are logged, repetitions are not. A long reason is cut.

        :raises ValueError: when there is one of this name.
        """
        if name in self._reasons:
            raise ValueError(f"two conditions of one name: {name}")
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

        return Condition(report)

    def detail(self, name: str, tell: Callable[[], Any]) -> None:
        """Add a detail, which does not affect readiness.

        :param tell: called for each report; returns a value that JSON can hold.
        :raises ValueError: when there is one of this name.
        """
        if name in self._details:
            raise ValueError(f"two details of one name: {name}")
        self._details[name] = tell

    def watchdog(self, name: str, timeout: float) -> Watchdog:
        """Add a :class:`Watchdog`, suspended at first.

        :raises ValueError: if there is one of this name.
        """
        if name in self._watchdogs:
            raise ValueError(f"two watchdogs of one name: {name}")
        self._watchdogs[name] = Watchdog(timeout, self._now)
        return self._watchdogs[name]

    @property
    def details(self) -> dict[str, Any]:
        """Detail → its value now."""
        return {name: tell() for name, tell in self._details.items()}

    @property
    def conditions(self) -> dict[str, bool]:
        """Condition → whether it is met."""
        return {name: reason is None for name, reason in self._reasons.copy().items()}

    @property
    def ready(self) -> bool:
        """True if every condition is met."""
        return not self.reasons

    @property
    def reasons(self) -> dict[str, str]:
        """Condition → why it is not met; empty when ready."""
        reasons = self._reasons.copy()  # a scrape asks in another thread
        found = {name: reason for name, reason in reasons.items() if reason is not None}
        return found | dict.fromkeys(self.stuck, "is stuck, and needs a restart")

    @property
    def reason_known(self) -> bool:
        """True if the reason why some condition is not met is known."""
        return any(reason != _STARTING for reason in self.reasons.values())

    @property
    def stuck(self) -> list[str]:
        """The loops whose watchdogs have expired."""
        return [name for name, watchdog in self._watchdogs.copy().items() if watchdog.expired]
