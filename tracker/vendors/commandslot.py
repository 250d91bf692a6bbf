"""The moment at which a command may be written on a connection."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tracker.interfaces import ConnectionEnded


class CommandSlot:
    """Lets callers wait until they may write a command on one connection, one for each device."""

    __slots__ = ("_clock", "_retry", "_timer", "settled_at", "waiters")

    def __init__(self, clock: IReactorTime) -> None:
        self.settled_at = 0.0
        """Time from which the device can distinguish a command from the reply to its login."""
        self.waiters: dict[Deferred[None], float] = {}
        """Deferred of a waiting caller, which fires when it may write → its ``silence_limit``."""
        self._clock = clock
        self._retry: Callable[[], None] = _nothing
        self._timer: IDelayedCall | None = None

    def wait(self, silence_limit: float, retry: Callable[[], None]) -> Deferred[None]:
        """Wait until a command may be written.

        :param silence_limit: seconds of silence after which the device may not listen; 0: it
            always listens.
        :param retry: called when it is time to call :meth:`offer` again.
        :return: may be cancelled; fails with :class:`ConnectionEnded`.
        """
        waiter: Deferred[None] = Deferred(self._forget)
        self.waiters[waiter] = silence_limit
        self._retry = retry
        return waiter

    def offer(self, last_heard: float) -> None:
        """Let the waiting callers write, unless it is too early; call this on a free connection.

        :param last_heard: time of the device's last frame.
        """
        now = self._clock.seconds()
        if now < self.settled_at:
            if self._timer is None:
                self._timer = self._clock.callLater(self.settled_at - now, self._settled)
            return
        for waiter, silence_limit in list(self.waiters.items()):
            is_silent = silence_limit and now - last_heard >= silence_limit
            # An earlier caller may have closed the connection.
            if waiter in self.waiters and not is_silent:
                self._forget(waiter)
                waiter.callback(None)

    def end(self) -> None:
        """Fail the waiting callers, because the connection ends."""
        for waiter in list(self.waiters):
            if waiter in self.waiters:
                self._forget(waiter)
                waiter.errback(ConnectionEnded())

    def _settled(self) -> None:
        self._timer = None
        self._retry()

    def _forget(self, waiter: Deferred[None]) -> None:
        self.waiters.pop(waiter, None)
        if not self.waiters:
            self._retry = _nothing
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None


def _nothing() -> None:
    """Do nothing: no caller waits."""
