"""Call a function when Redis is first connected, and then at an interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime


class Connectable(Protocol):
    """A connection, or an object that uses connections."""

    def when_connected(self) -> Deferred[None]:
        """Return a Deferred that fires when the connection is usable."""


class RedisTimer(Service):
    """Service that calls a function when Redis is first connected, then at an interval.

    :param redis: the connection to wait for.
    :param seconds: seconds from one call to the next.
    :param function: a coroutine function; its calls never overlap.
    """

    def __init__(
        self, clock: IReactorTime, redis: Connectable, seconds: float, function: Callable[[], Any]
    ) -> None:
        self._when_connected = redis.when_connected
        self._timer = TimerService(seconds, function)
        self._timer.clock = clock
        self._first_connection: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Wait for the connection, then call the function."""
        super().startService()
        self._first_connection = self._when_connected().addCallbacks(
            lambda _: self._timer.startService(), lambda failure: None
        )

    def stopService(self) -> Deferred[None]:
        """Stop. Fires when a call that is under way has ended.

        Cancelling the Deferred ends the wait, but not the call.
        """
        super().stopService()
        self._first_connection.cancel()
        if not self._timer.running:
            return succeed(None)
        # TimerService logs an error if its own Deferred is cancelled.
        stopped: Deferred[None] = Deferred()
        self._timer.stopService().chainDeferred(stopped)
        return stopped
