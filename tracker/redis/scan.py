"""Iteration over collections that are too large for one reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from tracker.redis.connection import RedisConnection


async def scan(
    redis: RedisConnection, command: Sequence[str], *options: str | bytes | int
) -> AsyncIterator[list[bytes]]:
    """Yield the pages of SCAN, SSCAN or HSCAN; some may be empty.

    An element that exists during the whole iteration is yielded at least once. An element that
    is added or removed meanwhile may be missing.

    :param command: the name of the command and, except for SCAN, the key.
    """
    cursor = b"0"
    while True:
        cursor, page = await redis.execute(*command, cursor, *options)
        yield page
        if cursor == b"0":
            return
