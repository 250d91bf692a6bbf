"""A connection to Redis on which a test acts before or after a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from tracker.redis.connection import RedisConnection

#: Called with the arguments of a command. If it raises, so does the command; if it returns a
#: Deferred, the command waits for it.
Hook = Callable[..., "Deferred[None] | None"]


def nothing(*_: Any) -> None:
    """Do nothing."""


class Intercepted:
    """A :class:`RedisConnection` with a hook before and after each command.

    :param before: called before a command is sent.
    :param after: called after the reply to a command, before the caller has it.
    """

    def __init__(
        self, connection: RedisConnection, before: Hook = nothing, after: Hook = nothing
    ) -> None:
        self._connection = connection
        self.before = before
        self.after = after
        self.when_connected = connection.when_connected

    @property
    def connected(self) -> bool:
        return self._connection.connected

    @property
    def connections(self) -> int:
        return self._connection.connections

    def execute(self, *arguments: Any) -> Deferred[Any]:
        def send(_: object) -> Deferred[Any]:
            return self._connection.execute(*arguments)

        def replied(reply: Any) -> Deferred[Any]:
            return maybeDeferred(self.after, *arguments).addCallback(lambda _: reply)

        return maybeDeferred(self.before, *arguments).addCallback(send).addCallback(replied)
