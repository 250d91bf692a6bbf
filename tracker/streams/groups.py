"""Reading streams as a member of a consumer group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.streams.connection import RedisConnection, Refused


@frozen
class Delivered:
    """An entry as the group delivered it."""

    stream: str
    id: str
    content: Sequence[bytes] | None
    """Names and values in turn; None when the entry was deleted after it was delivered."""

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """Name → value; the last one where a name occurs twice."""
        content = self.content or ()
        return dict(zip(content[::2], content[1::2], strict=True))

    @property
    def appended_at(self) -> str:
        """When Redis appended it (the entry's ID says so), ISO 8601 UTC."""
        # Whoever appends may choose the ID, and need not choose a time.
        return iso_milliseconds(min(int(self.id.partition("-")[0]), MAX_TIMESTAMP_MS))


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
            content,
        )
        for stream, entries in reply or ()
        for entry_id, content in entries
    ]
