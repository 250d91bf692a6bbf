"""Asking Redis several questions at once, which takes one round trip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.defer import FirstError, gatherResults

from tracker.streams.connection import RedisConnection


async def pipelined(
    redis: RedisConnection, commands: Iterable[Sequence[str | bytes | int]]
) -> list[Any]:
    """Send some hundred commands at most, and return their answers in the same order.

    :raises Refused, Unavailable: if one of them fails; the others may have been executed.
    """
    asked = [redis.execute(*command) for command in commands]
    try:
        return list(await gatherResults(asked, consumeErrors=True))
    except FirstError as error:
        error.subFailure.raiseException()
        raise
