"""Wait until the log confirms appends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds from one check to the next while a caller waits.
CHECK_INTERVAL: Final = 0.1
#: Maximum number of waiting callers that go on in one reactor turn, about a millisecond of work.
MAX_PER_TURN: Final = 100


class Confirmation:
    """Lets callers wait until the log confirms appends; they go on in their order.

    :param confirms: returns True if the log confirms appends now.
    """

    def __init__(self, clock: IReactorTime, confirms: Callable[[], bool]) -> None:
        self._clock = clock
        self._confirms = confirms
        # A dict for its order and for removal anywhere in it at no cost.
        self._waiting: dict[Deferred[None], None] = {}
        self._next_check: IDelayedCall | None = None

    @property
    def waiting(self) -> int:
        """Number of waiting callers."""
        return len(self._waiting)

    def wait(self) -> Deferred[None] | None:
        """See :meth:`tracker.interfaces.IGateway.when_log_confirms`."""
        if not self._waiting and self._confirms():
            return None
        waiter: Deferred[None] = Deferred(self._forget)
        self._waiting[waiter] = None
        if self._next_check is None:
            self._next_check = self._clock.callLater(CHECK_INTERVAL, self._check)
        return waiter

    def _forget(self, waiter: Deferred[None]) -> None:
        self._waiting.pop(waiter, None)
        if not self._waiting and self._next_check is not None:
            self._next_check.cancel()
            self._next_check = None

    def _check(self) -> None:
        self._next_check = None
        delay = CHECK_INTERVAL
        if self._confirms():
            delay = 0
            for waiter in list(self._waiting)[:MAX_PER_TURN]:
                if self._waiting.pop(waiter, waiter) is None:  # else it was cancelled meanwhile
                    waiter.callback(None)
        if self._waiting and self._next_check is None:
            self._next_check = self._clock.callLater(delay, self._check)
