"""Dead letters: entries that could not be stored, kept unchanged for inspection.

An entry of a dead-letter stream begins with four added fields: ``_id``, ``_stream``, ``_reason``
and ``_attempts``. The fields of the original entry follow unchanged, even if they have the same
names, and can be appended to their stream again, with the time of their first arrival.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from tracker.errors import Refused
from tracker.keys import dead_letters
from tracker.log.entries import StreamEntry
from tracker.log.redis.moving import MAX_MOVED, arrival, move, with_arrival
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection
from tracker.redis.pipeline import pipelined
from tracker.untrusted import MAX_LINE, shown

#: Maximum number of digits of a number of attempts.
_MAX_DIGITS: Final = 18
_ADDED_FIELDS: Final = (b"_id", b"_stream", b"_reason", b"_attempts")


@frozen
class RetryResult:
    """The result of a retry of dead letters."""

    moved: int = 0
    failed: Mapping[str, str] = field(factory=dict)
    """ID → the reason why it was not appended; it is still a dead letter."""


@frozen
class DeadLetter:
    """An entry of a dead-letter stream."""

    id: str
    """ID in the dead-letter stream."""
    original_id: str
    """ID in the original stream; empty if it is not recorded."""
    reason: str
    """The reason why it could not be stored; empty if it is not recorded."""
    attempts: int | None
    """Number of deliveries; None if it is not recorded."""
    content: Sequence[bytes]
    """Alternating names and values of the original entry."""

    @property
    def device_id(self) -> str:
        """The device ID in the entry, printable and shortened; empty if the entry has none."""
        for name, value in zip(self.content[::2], self.content[1::2], strict=False):
            if name == b"device_id":
                return shown(value, 20)
        return ""

    @property
    def fields(self) -> list[tuple[str, str]]:
        r"""Names and values as text; bytes that are not UTF-8 are written as ``\xff``."""
        texts = [part.decode(errors="backslashreplace") for part in self.content]
        return list(zip(texts[::2], texts[1::2], strict=True))


async def append_dead(
    redis: RedisConnection, entry: StreamEntry, reason: str, attempts: int
) -> None:
    """Copy an entry to its dead-letter stream. The caller must acknowledge it afterwards.

    One command copies the whole entry or nothing. After a crash before the acknowledgement the
    entry is delivered again and may be copied twice. Both copies then have the same ``_id``, and
    the position is stored once even if both are retried.

    :param attempts: the number of deliveries so far.
    :raises Refused: if the entry was not copied.
    :raises Unavailable: if the entry may have been copied.
    """
    added = ("_id", entry.id, "_stream", entry.stream, "_reason", shown(reason, MAX_LINE))
    call = ("XADD", dead_letters(entry.stream), "*", *added, "_attempts", attempts)
    await redis.execute(*call, *(entry.content or ()))


async def read_dead(
    redis: RedisConnection, stream: str, first: str = "-", last: str = "+", *, count: int = 1000
) -> list[DeadLetter]:
    """Return dead letters of ``stream``, oldest first; fewer than ``count`` if they are long.

    :param first: ID of the first one; ``(ID`` excludes this entry.
    :param last: ID of the last one.
    """
    entries = await read_range(redis, dead_letters(stream), first, last, count=count)
    return [dead_letter(entry.id.encode(), entry.content or ()) for entry in entries]


async def retry_dead(redis: RedisConnection, stream: str, ids: Sequence[str]) -> RetryResult:
    """Move dead letters back to the end of their stream, as new entries.

    They keep the time of their first arrival. Missing IDs are ignored. An entry that cannot be
    appended stays a dead letter, and does not prevent the others from being moved; see
    :func:`~tracker.log.redis.moving.move`.

    :raises Unavailable: if Redis is down.
    :raises Refused: if the key of the dead letters is not a stream.
    """
    moved, failed = 0, dict[str, str]()
    source = dead_letters(stream)
    for start in range(0, len(ids), MAX_MOVED):
        contents: dict[str, Sequence[bytes]] = {}
        page = ids[start : start + MAX_MOVED]
        for reply in await pipelined(redis, (("XRANGE", source, one, one) for one in page)):
            if isinstance(reply, Refused):
                raise reply
            for entry_id, content in reply:
                letter = dead_letter(entry_id, content)
                if letter.content:
                    arrived = arrival(letter.original_id, letter.id)
                    contents[letter.id] = with_arrival(letter.content, arrived)
                else:
                    failed[letter.id] = "it has no fields to append"
        result = await move(redis, source, stream, contents)
        moved += result.moved
        failed |= result.failed
    return RetryResult(moved, failed)


async def drop_dead(redis: RedisConnection, stream: str, ids: Sequence[str]) -> int:
    """Delete dead letters, and return the number of those that existed."""
    dropped: int = await redis.execute("XDEL", dead_letters(stream), *ids)
    return dropped


def dead_letter(entry_id: bytes, content: Sequence[bytes]) -> DeadLetter:
    """Return an entry of a dead-letter stream as a dead letter."""
    added: dict[bytes, bytes] = {}
    end = 0
    # Fields of the original entry may have the same names: only the first ones were added.
    while end < len(content) and content[end] in _ADDED_FIELDS and content[end] not in added:
        added[content[end]] = content[end + 1]
        end += 2
    attempts = added.get(b"_attempts", b"")
    return DeadLetter(
        entry_id.decode(),
        _text(added.get(b"_id")),
        _text(added.get(b"_reason")),
        int(attempts) if attempts.isdigit() and len(attempts) <= _MAX_DIGITS else None,
        content[end:],
    )


def _text(value: Any) -> str:
    return (value or b"").decode(errors="backslashreplace")
