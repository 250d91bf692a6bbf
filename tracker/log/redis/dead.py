"""Dead letters: entries that could not be stored, kept unchanged for inspection.

An entry of a dead-letter stream begins with four added fields: ``_id``, ``_stream``, ``_reason``
and ``_attempts``. The fields of the original entry follow unchanged, even if they have the same
names, and can be appended to their stream again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from tracker.errors import Refused
from tracker.keys import dead_letters
from tracker.log.entries import StreamEntry
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script
from tracker.untrusted import MAX_LINE, shown

#: Maximum number of digits of a number of attempts.
_MAX_DIGITS: Final = 18
_ADDED_FIELDS: Final = (b"_id", b"_stream", b"_reason", b"_attempts")

#: Maximum number of names and values in one call from Lua; its stack has some 8,000 slots.
_MAX_UNPACKED: Final = 7000
_TOO_MANY: Final = b"too many fields"

# KEYS: the dead-letter stream, the stream. ARGV: IDs. Moves the existing entries one by one, and
# returns their number, and the refused entries with the reason. A refused entry does not prevent
# the next ones from being moved.
_RETRY: Final = Script(f"""\
local moved, failed = 0, {{}}
for _, id in ipairs(ARGV) do
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    local added_fields = {{_id = true, _stream = true, _reason = true, _attempts = true}}
    local content, first = entry[2], 1
    while content[first] and added_fields[content[first]] do
      added_fields[content[first]] = nil
      first = first + 2
    end
    if not content[first] then
      failed[#failed + 1] = {{id, 'it has no fields to append'}}
    elseif #content > {_MAX_UNPACKED} then
      failed[#failed + 1] = {{id, '{_TOO_MANY.decode()}'}}
    else
      local added = redis.pcall('XADD', KEYS[2], '*', unpack(content, first))
      if type(added) == 'table' and added.err then
        failed[#failed + 1] = {{id, added.err}}
      else
        redis.call('XDEL', KEYS[1], id)
        moved = moved + 1
      end
    end
  end
end
return {{moved, failed}}
""")


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

    Missing IDs are ignored. An entry that cannot be appended stays a dead letter, and does not
    prevent the others from being moved.

    Each entry is moved atomically, except entries of several thousand fields: these are appended
    first and then deleted. After a crash between both steps they are in both streams, which is
    harmless, because a position is stored once.

    :raises Unavailable: if Redis is down.
    :raises Refused: if the key of the dead letters is not a stream.
    """
    moved, refused = await _RETRY.run(redis, [dead_letters(stream), stream], *ids)
    failed = {}
    for entry_id, reason in refused:
        if reason == _TOO_MANY:
            reason = await _move(redis, stream, entry_id.decode())
        if reason is None:
            moved += 1
        else:
            failed[entry_id.decode()] = shown(reason)
    return RetryResult(moved, failed)


async def _move(redis: RedisConnection, stream: str, entry_id: str) -> str | None:
    """Append one dead letter again, then delete it; return the error, or None if it was moved."""
    found = await read_dead(redis, stream, entry_id, entry_id)
    if not found:
        return "it was deleted meanwhile"
    try:
        await redis.execute("XADD", stream, "*", *found[0].content)
    except Refused as error:
        return str(error)
    await drop_dead(redis, stream, [entry_id])
    return None


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
