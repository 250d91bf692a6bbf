"""Several commands in one round trip to Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import DeferredList

from tracker.errors import Refused
from tracker.redis.connection import RedisConnection

#: Maximum number of commands in one round trip.
_MAX_COMMANDS: Final = 200


async def pipelined(
    redis: RedisConnection, commands: Iterable[Sequence[str | bytes | int]]
) -> list[Any]:
    """Send commands, and return their replies in the same order.

    The reply to a command that Redis refuses is the exception, :data:`Refused`.

    :raises Unavailable: if Redis is down; some commands may have been executed.
    """
    pending = list(commands)
    replies: list[Any] = []
    for start in range(0, len(pending), _MAX_COMMANDS):
        sent = [redis.execute(*command) for command in pending[start : start + _MAX_COMMANDS]]
        for succeeded, reply in await DeferredList(sent, consumeErrors=True):
            if not succeeded and not reply.check(Refused):
                reply.raiseException()
            replies.append(reply if succeeded else reply.value)
    return replies


async def existing(redis: RedisConnection, keys: Sequence[str]) -> list[str]:
    """Return the keys that exist, and those for which the user may not run EXISTS."""
    replies = await pipelined(redis, (("EXISTS", key) for key in keys))
    return [key for key, exists in zip(keys, replies, strict=True) if exists]
