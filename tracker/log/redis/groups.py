"""Reading streams as a member of a consumer group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from tracker.log.redis.allowance import Allowance, Content
from tracker.log.redis.entry_ids import behind
from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.redis.connection import RedisConnection, Refused

#: The cursor with which :func:`claim_idle` begins, and that it returns at the end.
FIRST: Final = "0-0"


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


def entry_order(entry_id: str) -> tuple[int, int]:
    """What entries of one stream are ordered by.

    :raises ValueError: when it is no ID.
    """
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)


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
    last = dict(zip(facts[::2], facts[1::2], strict=True))[b"last-generated-id"].decode()
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


async def first_pending(redis: RedisConnection, stream: str, group: str) -> str | None:
    """The ID of the oldest entry that was delivered and is not acknowledged."""
    count, first, _, _ = await redis.execute("XPENDING", stream, group)
    return first.decode() if count else None


async def first_unacknowledged(redis: RedisConnection, stream: str, group: str) -> str | None:
    """The same, or of the first that was not delivered as yet; the group must be there."""
    pending = await first_pending(redis, stream, group)
    if pending is not None:
        return pending
    for fields in await redis.execute("XINFO", "GROUPS", stream):
        facts = dict(zip(fields[::2], fields[1::2], strict=True))
        if facts[b"name"] == group.encode():
            after = "(" + facts[b"last-delivered-id"].decode()
            found = await redis.execute("XRANGE", stream, after, "+", "COUNT", 1)
            return found[0][0].decode() if found else None
    return None


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


async def claim_idle(
    redis: RedisConnection,
    group: str,
    consumer: str,
    idle_ms: int,
    stream: str,
    cursor: str,
    allowance: Allowance,
) -> tuple[list[Delivered], str]:
    """Claim entries that have been pending and idle for ``idle_ms`` milliseconds, oldest first.

    Entries that were deleted from the stream are included, without content; Redis has
    removed them from the group.

    :param cursor: where to begin in the list of pending entries: :data:`FIRST`, or what the
        last call returned.
    :return: the entries, and the next cursor; :data:`FIRST` at the end.
    """
    found: list[Delivered] = []
    while allowance.open():
        count = allowance.step([stream])
        following, entries, deleted = await redis.execute(
            *("XAUTOCLAIM", stream, group, consumer, idle_ms, cursor, "COUNT", count)
        )
        claimed = [Delivered(stream, entry_id.decode(), None) for entry_id in deleted]
        claimed += _delivered([(stream.encode(), entries)])
        allowance.take(stream, [entry.content for entry in claimed])
        found += claimed
        cursor = following.decode()
        if cursor == FIRST:
            break
    return found, cursor


async def read_range(
    redis: RedisConnection,
    stream: str,
    first: str,
    last: str,
    count: int,
    newest: bool = False,
    size: int | None = None,
) -> list[Delivered]:
    """Read the entries from ``first`` to ``last``, outside of any group.

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
        entries = _delivered([(stream.encode(), reply)])
        found += entries
        if not _go_on(allowance, step, entries):
            break
        further = behind(entries[-1].id)
        if newest:
            last = f"({entries[-1].id}"
        elif further is not None:
            first = further
        else:
            break
    return found


def _go_on(allowance: Allowance, count: int, entries: Sequence[Delivered]) -> list[str]:
    """Count entries, and return the streams that may have more: those with ``count`` entries."""
    contents: dict[str, list[Content]] = {}
    for entry in entries:
        contents.setdefault(entry.stream, []).append(entry.content)
    for stream, taken in contents.items():
        allowance.take(stream, taken)
    return [stream for stream in allowance.open() if len(contents.get(stream, ())) >= count]


async def keep_claim(
    redis: RedisConnection, group: str, consumer: str, stream: str, entry_ids: Sequence[str]
) -> None:
    """Say that this consumer is still busy with entries that it was given.

    Those that another one has claimed meanwhile are taken back.
    """
    await redis.execute("XCLAIM", stream, group, consumer, 0, *entry_ids, "JUSTID")


async def attempts(redis: RedisConnection, group: str, stream: str, entry_id: str) -> int:
    """How often a pending entry was delivered; 0 for one that is not pending."""
    reply = await redis.execute("XPENDING", stream, group, entry_id, entry_id, 1)
    return reply[0][3] if reply else 0


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
