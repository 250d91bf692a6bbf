"""The moment at which a command may be written on a connection."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tracker.interfaces import ConnectionEnded


class Turns:
    """Lets one caller at a time wait until it may write a command on one connection."""

    __slots__ = ("_clock", "_retry", "_silence_limit", "_timer", "free", "settled_at")

    def __init__(self, clock: IReactorTime) -> None:
        self.settled_at = 0.0
        """From when on the device can tell a command from the answer to its login."""
        self._clock = clock
        self.free: Deferred[None] | None = None
        """Fires when the caller that waits may write; None while none waits."""
        self._retry: Callable[[], None] = _nothing
        self._silence_limit = 0.0
        self._timer: IDelayedCall | None = None

    def wait(self, silence_limit: float, retry: Callable[[], None]) -> Deferred[None]:
        """Wait for a turn.

        :param silence_limit: seconds of silence after which the device may not listen; 0: it
            always listens.
        :param retry: called when it is time to offer the connection again.
        :return: may be cancelled; fails with :class:`ConnectionEnded`.
        """
        self.free = Deferred(self._cancelled)
        self._silence_limit = silence_limit
        self._retry = retry
        return self.free

    def offer(self, heard_at: float) -> None:
        """Give the turn, since the connection is free, unless it is too early.

        :param heard_at: when the device was last heard.
        """
        now = self._clock.seconds()
        if now < self.settled_at:
            if self._timer is None:
                self._timer = self._clock.callLater(self.settled_at - now, self._try_again)
            return
        if self._silence_limit and now - heard_at >= self._silence_limit:
            return
        if (free := self._forget()) is not None:
            free.callback(None)

    def end(self) -> None:
        """Fail the caller that waits, since the connection ends."""
        if (free := self._forget()) is not None:
            free.errback(ConnectionEnded())

    def _cancelled(self, _: Deferred[None]) -> None:
        self._forget()

    def _try_again(self) -> None:
        self._timer = None
        self._retry()

    def _forget(self) -> Deferred[None] | None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        free, self.free = self.free, None
        self._retry = _nothing
        return free


def _nothing() -> None:
    """Retry nothing: no caller waits."""
