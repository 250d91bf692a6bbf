"""Send several commands to Redis in one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import DeferredList

from tracker.errors import Refused
from tracker.redis.connection import RedisConnection

#: Commands that are sent at once.
_MAX_SENT: Final = 200


async def pipelined(
    redis: RedisConnection, commands: Iterable[Sequence[str | bytes | int]]
) -> list[Any]:
    """Send commands, and return their replies in the same order.

    The reply to a command that Redis refuses is the exception, :data:`Refused`.

    :raises Unavailable: if Redis cannot be asked; some commands may have been executed.
    """
    every = list(commands)
    answers: list[Any] = []
    for start in range(0, len(every), _MAX_SENT):
        asked = [redis.execute(*command) for command in every[start : start + _MAX_SENT]]
        for succeeded, answer in await DeferredList(asked, consumeErrors=True):
            if not succeeded and not answer.check(Refused):
                answer.raiseException()
            answers.append(answer if succeeded else answer.value)
    return answers


async def existing(redis: RedisConnection, keys: Sequence[str]) -> list[str]:
    """Return the keys that exist, and those for which the user has no permission to ask."""
    there = await pipelined(redis, (("EXISTS", key) for key in keys))
    return [key for key, exists in zip(keys, there, strict=True) if exists]
