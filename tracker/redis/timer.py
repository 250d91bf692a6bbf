"""Call a function at an interval once Redis is connected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.application.internet import TimerService
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime


class Connectable(Protocol):
    """A connection, or something that uses connections."""

    def when_connected(self) -> Deferred[None]:
        """Wait for the connection."""


class RedisTimer(Service):
    """Calls a function when Redis is connected for the first time, then regularly.

    :param redis: its first connection is awaited.
    :param seconds: from one call to the next.
    :param do: a coroutine function, never called again before it has returned.
    """

    def __init__(
        self, clock: IReactorTime, redis: Connectable, seconds: float, do: Callable[[], Any]
    ) -> None:
        self._first_connection = redis.when_connected
        self._timer = TimerService(seconds, do)
        self._timer.clock = clock
        self._first: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._first = self._first_connection().addCallbacks(
            lambda _: self._timer.startService(), lambda failure: None
        )

    def stopService(self) -> Deferred[None]:
        """Stop; fires when a call that is under way has ended.

        Cancelling it ends the wait, and not the call.
        """
        super().stopService()
        self._first.cancel()
        if not self._timer.running:
            return succeed(None)
        # TimerService logs it as an error if its own Deferred is cancelled.
        stopped: Deferred[None] = Deferred()
        self._timer.stopService().chainDeferred(stopped)
        return stopped
