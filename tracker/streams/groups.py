"""Reading streams as a member of a consumer group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from tracker.position import iso_milliseconds
from tracker.streams.connection import RedisConnection, Refused


@frozen
class Delivered:
    """An entry as the group delivered it."""

    stream: str
    id: str
    fields: Mapping[bytes, bytes] | None
    """None when the entry was deleted after it had been delivered once."""

    @property
    def appended_at(self) -> str:
        """When Redis appended it (the entry's ID says so), ISO 8601 UTC."""
        return iso_milliseconds(int(self.id.partition("-")[0]))


async def create_group(redis: RedisConnection, stream: str, group: str) -> bool:
    """Create the group, and the stream, where missing; it begins at the first entry.

    :return: whether it was created now.
    """
    try:
        await redis.execute("XGROUP", "CREATE", stream, group, "0", "MKSTREAM")
    except Refused as error:
        if str(error).startswith("BUSYGROUP"):
            return False
        raise
    return True


async def read_new(
    redis: RedisConnection,
    group: str,
    consumer: str,
    streams: Sequence[str],
    count: int,
    block_ms: int,
) -> list[Delivered]:
    """Entries that nobody in the group has seen; waits for one up to ``block_ms``.

    At most ``count`` of each stream; none when the time is over. ``redis`` serves
    nothing else meanwhile, and its reply timeout must exceed ``block_ms``.
    """
    reply = await redis.execute(
        *("XREADGROUP", "GROUP", group, consumer, "COUNT", count, "BLOCK", block_ms),
        *("STREAMS", *streams, *[">"] * len(streams)),
    )
    return _delivered(reply)


async def read_pending(
    redis: RedisConnection, group: str, consumer: str, streams: Sequence[str], count: int
) -> list[Delivered]:
    """Entries that this consumer was given before and has not acknowledged, oldest first."""
    reply = await redis.execute(
        *("XREADGROUP", "GROUP", group, consumer, "COUNT", count),
        *("STREAMS", *streams, *["0"] * len(streams)),
    )
    return _delivered(reply)


async def acknowledge(
    redis: RedisConnection, group: str, stream: str, entry_ids: Sequence[str]
) -> None:
    """Tell the group that these entries are done with."""
    await redis.execute("XACK", stream, group, *entry_ids)


def _delivered(reply: Any) -> list[Delivered]:
    return [
        Delivered(
            stream.decode(),
            entry_id.decode(),
            None if fields is None else dict(zip(fields[::2], fields[1::2], strict=True)),
        )
        for stream, entries in reply or ()
        for entry_id, fields in entries
    ]
