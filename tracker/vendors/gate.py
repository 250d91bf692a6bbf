"""Admit datagrams of a port within budgets, so that a flood cannot delay all other work."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from tracker.interfaces import Tally
from tracker.limits import Limits
from tracker.vendors.budget import DatagramBudget, Source, Verdict

#: Datagrams, and seconds of work on them, after which the port yields to the reactor.
MAX_DATAGRAMS_PER_TURN: Final = 8
MAX_WORK_PER_TURN: Final = 0.00015

#: Maximum number of bytes that a port reads in one reactor turn: Twisted's default.
_THROUGHPUT: Final = 256 * 1024


class DatagramGate:
    """Admits datagrams within the budget of their source and of their device.

    A datagram over a budget is counted and dropped without an ACK; its device repeats it.

    :ivar transport: the port that is read; None unless it listens.
    """

    def __init__(self, clock: IReactorTime, limits: Limits, tally: Tally) -> None:
        # Any: maxThroughput is in no interface.
        self.transport: Any = None
        self._clock = clock
        self._tally = tally
        self._budget = DatagramBudget(limits, clock.seconds())
        self._number = 0  # of datagrams, and seconds of work, since the port last yielded
        self._work = 0.0
        self._yields = False
        self._source: Source = ("", 0)
        self._device_id: str | None = None
        self._started = 0.0

    def begin(self, source: Source) -> bool:
        """Return True if a datagram from this source may be read; then call :meth:`end`."""
        now = self._clock.seconds()
        self._number += 1
        if self._number >= MAX_DATAGRAMS_PER_TURN or self._work >= MAX_WORK_PER_TURN:
            self._yield()
        self._source, self._device_id, self._started = source, None, now
        return self._admits(self._budget.check_source(source, now))

    def admits_device(self, device_id: str) -> bool:
        """Return True if the datagram may be handled, now that its device is known."""
        self._device_id = device_id
        return self._admits(self._budget.check_device(device_id, self._started))

    def end(self) -> None:
        """Charge for a datagram that was read, whether or not it was accepted."""
        now = self._clock.seconds()
        work = max(0.0, now - self._started)
        self._work += work
        self._budget.worked(self._source, self._device_id, work, now)

    def remember_source(self, source: Source, device_id: str) -> None:
        """Remember the source of a datagram whose records are appended."""
        self._budget.remember_source(source, device_id)

    def _admits(self, verdict: Verdict) -> bool:
        if verdict is Verdict.ADMITTED:
            return True
        self._tally.over_budget[verdict.value] += 1
        return False

    def _yield(self) -> None:
        # A port reads until it has read maxThroughput bytes. Many small datagrams stay below
        # that for a long time, and empty ones always do. A limit of 0 stops the reading at once.
        if not self._yields and self.transport is not None:
            self._yields = True
            self.transport.maxThroughput = 0
            self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._yields = False
        self._number = 0
        self._work = 0.0
        if self.transport is not None:
            self.transport.maxThroughput = _THROUGHPUT
