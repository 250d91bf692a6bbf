"""Reading streams as a member of a consumer group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracker.errors import Refused
from tracker.log.allowance import Allowance, Content
from tracker.log.entries import Delivered, entry_order
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import mapping


async def create_group(redis: RedisConnection, stream: str, group: str, after: str = "0-0") -> bool:
    """Create the group, and the stream, where missing; it begins behind the entry ``after``.

    It begins at the first entry where the stream does not reach that far: then it is
    another one, whose entries may have lower IDs.

    :return: whether it was created now.
    """
    # Not without need: when Redis is out of memory it refuses to create what there is, and a
    # processor that reads is what makes room.
    if await _is_there(redis, stream, group):
        return False
    try:
        await redis.execute("XGROUP", "CREATE", stream, group, "0", "MKSTREAM")
    except Refused as error:
        if str(error).startswith("BUSYGROUP"):
            return False
        raise
    facts = await redis.execute("XINFO", "STREAM", stream)
    last = mapping(facts)[b"last-generated-id"].decode()
    if (0, 0) < entry_order(after) <= entry_order(last):
        await redis.execute("XGROUP", "SETID", stream, group, after)
    return True


async def _is_there(redis: RedisConnection, stream: str, group: str) -> bool:
    try:
        groups = await redis.execute("XINFO", "GROUPS", stream)
    except Refused as error:
        if "no such key" in str(error):
            return False
        raise
    return any(group.encode() in fields[1:2] for fields in groups)


async def read_new(
    redis: RedisConnection,
    group: str,
    consumer: str,
    allowance: Allowance,
    block_ms: int | None = None,
) -> list[Delivered]:
    """Read entries that were not delivered to the group before.

    :param allowance: the streams to be read, with bounds.
    :param block_ms: milliseconds to wait for an entry; None: do not wait. Meanwhile ``redis``
        serves no other command, and its reply timeout must exceed this.
    """
    block = () if block_ms is None else ("BLOCK", block_ms)
    found: list[Delivered] = []
    streams = allowance.open()
    while streams:
        count = allowance.step(streams)
        reply = await redis.execute(
            *("XREADGROUP", "GROUP", group, consumer, "COUNT", count, *block),
            *("STREAMS", *streams, *[">"] * len(streams)),
        )
        entries = _delivered(reply)
        found += entries
        streams = _go_on(allowance, count, entries)
        block = ()
    return found


async def read_pending(
    redis: RedisConnection,
    group: str,
    consumer: str,
    after: Mapping[str, str],
    allowance: Allowance,
) -> list[Delivered]:
    """Read entries that were delivered to this consumer and are not acknowledged, oldest first.

    :param after: stream → ID after which entries are read.
    :param allowance: the streams to be read, with bounds.
    """
    behind = dict(after)
    found: list[Delivered] = []
    streams = allowance.open()
    while streams:
        count = allowance.step(streams)
        reply = await redis.execute(
            *("XREADGROUP", "GROUP", group, consumer, "COUNT", count),
            *("STREAMS", *streams, *(behind[stream] for stream in streams)),
        )
        entries = _delivered(reply)
        found += entries
        behind |= {entry.stream: entry.id for entry in entries}
        streams = _go_on(allowance, count, entries)
    return found


def _go_on(allowance: Allowance, count: int, entries: Sequence[Delivered]) -> list[str]:
    """Count entries, and return the streams that may have more: those with ``count`` entries."""
    contents: dict[str, list[Content]] = {}
    for entry in entries:
        contents.setdefault(entry.stream, []).append(entry.content)
    for stream, taken in contents.items():
        allowance.take(stream, taken)
    return [stream for stream in allowance.open() if len(contents.get(stream, ())) >= count]


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
