"""The moment at which a command may be written on a connection."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tracker.interfaces import ConnectionEnded


class CommandSlot:
    """Lets one caller at a time wait until it may write a command on one connection."""

    __slots__ = ("_clock", "_retry", "_silence_limit", "_timer", "settled_at", "waiter")

    def __init__(self, clock: IReactorTime) -> None:
        self.settled_at = 0.0
        """Time from which the device can distinguish a command from the reply to its login."""
        self._clock = clock
        self.waiter: Deferred[None] | None = None
        """Fires when the waiting caller may write; None if no caller waits."""
        self._retry: Callable[[], None] = _nothing
        self._silence_limit = 0.0
        self._timer: IDelayedCall | None = None

    def wait(self, silence_limit: float, retry: Callable[[], None]) -> Deferred[None]:
        """Wait until a command may be written.

        :param silence_limit: seconds of silence after which the device may not listen; 0: it
            always listens.
        :param retry: called when it is time to call :meth:`offer` again.
        :return: may be cancelled; fails with :class:`ConnectionEnded`.
        """
        self.waiter = Deferred(self._cancelled)
        self._silence_limit = silence_limit
        self._retry = retry
        return self.waiter

    def offer(self, last_heard: float) -> None:
        """Let the waiting caller write, unless it is too early; call this on a free connection.

        :param last_heard: time of the device's last frame.
        """
        now = self._clock.seconds()
        if now < self.settled_at:
            if self._timer is None:
                self._timer = self._clock.callLater(self.settled_at - now, self._settled)
            return
        if self._silence_limit and now - last_heard >= self._silence_limit:
            return
        if (waiter := self._take_waiter()) is not None:
            waiter.callback(None)

    def end(self) -> None:
        """Fail the waiting caller, because the connection ends."""
        if (waiter := self._take_waiter()) is not None:
            waiter.errback(ConnectionEnded())

    def _cancelled(self, _: Deferred[None]) -> None:
        self._take_waiter()

    def _settled(self) -> None:
        self._timer = None
        self._retry()

    def _take_waiter(self) -> Deferred[None] | None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiter, self.waiter = self.waiter, None
        self._retry = _nothing
        return waiter


def _nothing() -> None:
    """Do nothing: no caller waits."""
