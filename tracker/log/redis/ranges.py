"""Reads of stream ranges, independent of consumer groups."""

from __future__ import annotations

from tracker.log.allowance import Allowance
from tracker.log.entries import StreamEntry, exclusive_start
from tracker.redis.connection import RedisConnection


async def read_range(
    redis: RedisConnection,
    stream: str,
    first: str,
    last: str,
    *,
    count: int,
    newest: bool = False,
    size: int | None = None,
) -> list[StreamEntry]:
    """Read the entries from ``first`` to ``last``.

    If they are long, fewer than ``count`` are returned: at least one, and about 16 MiB at most.

    :param first: ID of the first entry; ``-``: the oldest one; ``(ID``: excludes this entry.
    :param last: ID of the last entry; ``+``: the newest one; ``(ID``: excludes this entry.
    :param count: maximum number of entries.
    :param newest: read backwards from the last entry.
    :param size: limit in bytes, smaller than 16 MiB. The first entry is then read alone, because a
        step of several long entries would exceed the limit by far.
    """
    allowance = Allowance([stream], count)
    if size is not None:
        allowance = Allowance([stream], count, size, {stream: float(size)})
    found: list[StreamEntry] = []
    while allowance.open():
        step = allowance.step([stream])
        bounds = ("XREVRANGE", stream, last, first) if newest else ("XRANGE", stream, first, last)
        reply = await redis.execute(*bounds, "COUNT", step)
        found += [StreamEntry(stream, entry_id.decode(), content) for entry_id, content in reply]
        allowance.take(stream, [content for _, content in reply])
        if len(reply) < step:
            break
        following = exclusive_start(found[-1].id)
        if newest:
            last = f"({found[-1].id}"
        elif following is not None:
            first = following
        else:
            break
    return found
