"""Read ranges of a stream, outside of any group."""

from __future__ import annotations

from tracker.log.allowance import Allowance
from tracker.log.entries import Delivered, behind
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
) -> list[Delivered]:
    """Read the entries from ``first`` to ``last``.

    Fewer than ``count`` if they are long: at least one, and not more than some 16 MiB.

    :param first: ``-`` for the first entry there is; ``(ID`` excludes the entry ID.
    :param last: ``+`` for the last one; likewise.
    :param count: entries, at most.
    :param newest: read backwards, from the last one.
    :param size: bytes of a smaller bound than that. The first entry is then read on its own,
        since a whole step of long ones would be far over the bound.
    """
    allowance = Allowance([stream], count)
    if size is not None:
        allowance = Allowance([stream], count, size, {stream: float(size)})
    found: list[Delivered] = []
    while allowance.open():
        step = allowance.step([stream])
        bounds = ("XREVRANGE", stream, last, first) if newest else ("XRANGE", stream, first, last)
        reply = await redis.execute(*bounds, "COUNT", step)
        found += [Delivered(stream, entry_id.decode(), content) for entry_id, content in reply]
        allowance.take(stream, [content for _, content in reply])
        if len(reply) < step:
            break
        further = behind(found[-1].id)
        if newest:
            last = f"({found[-1].id}"
        elif further is not None:
            first = further
        else:
            break
    return found
