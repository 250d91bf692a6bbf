"""Dead letters: entries that could not be processed, kept whole for people to inspect.

An entry of a dead stream begins with four fields of ours: ``_id``, ``_stream``,
``_reason`` and ``_attempts``. What comes after them is the entry as it was, so that it can
be appended again, whatever its own fields are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from tracker.errors import Refused
from tracker.keys import dead_letters
from tracker.log.entries import Delivered
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script
from tracker.untrusted import MAX_LINE, shown

#: Digits of a number of attempts.
_MAX_DIGITS: Final = 18
_OURS: Final = (b"_id", b"_stream", b"_reason", b"_attempts")

#: Names and values that Lua can pass on in one call; its stack has some 8,000 slots.
_MAX_UNPACKED: Final = 7000
_TOO_MANY: Final = b"too many fields"

# KEYS: the dead stream, the stream. ARGV: IDs. Moves the existing ones, one after another;
# returns their number, and the refused ones with the reason. A refused one does not stop the
# ones after it.
_RETRY: Final = Script(f"""\
local moved, stuck = 0, {{}}
for _, id in ipairs(ARGV) do
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    local ours = {{_id = true, _stream = true, _reason = true, _attempts = true}}
    local content, first = entry[2], 1
    while content[first] and ours[content[first]] do
      ours[content[first]] = nil
      first = first + 2
    end
    if not content[first] then
      stuck[#stuck + 1] = {{id, 'nothing in it to append'}}
    elseif #content > {_MAX_UNPACKED} then
      stuck[#stuck + 1] = {{id, '{_TOO_MANY.decode()}'}}
    else
      local added = redis.pcall('XADD', KEYS[2], '*', unpack(content, first))
      if type(added) == 'table' and added.err then
        stuck[#stuck + 1] = {{id, added.err}}
      else
        redis.call('XDEL', KEYS[1], id)
        moved = moved + 1
      end
    end
  end
end
return {{moved, stuck}}
""")


@frozen
class Retried:
    """The result of a retry of dead letters."""

    moved: int = 0
    stuck: Mapping[str, str] = field(factory=dict)
    """ID → why it was not appended; it is still a dead letter."""


@frozen
class DeadLetter:
    """An entry of a dead stream."""

    id: str
    """Its ID in the dead stream."""
    original_id: str
    """Its ID in its stream; empty if that is not recorded, as are the next two."""
    reason: str
    attempts: int | None
    """Number of times that it had been delivered; None if that is not recorded."""
    content: Sequence[bytes]
    """The entry as it was: names and values in turn."""

    @property
    def device_id(self) -> str:
        """The device id in the entry, printable and short; empty if it has none."""
        for name, value in zip(self.content[::2], self.content[1::2], strict=False):
            if name == b"device_id":
                return shown(value, 20)
        return ""

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Names and values as text; bytes that are not UTF-8 as ``\\xff``."""
        texts = [part.decode(errors="backslashreplace") for part in self.content]
        return list(zip(texts[::2], texts[1::2], strict=True))


async def append_dead(redis: RedisConnection, entry: Delivered, reason: str, attempts: int) -> None:
    """Copy an entry to the dead stream of its stream; acknowledge it afterwards.

    One command copies all of it or nothing. After a crash before the acknowledgement the entry is
    delivered again, and may be copied twice: both copies then have the same ``_id``, and the
    position is stored once even if both are retried.

    :param attempts: how often it was delivered.
    :raises Refused: if it was not copied.
    :raises Unavailable: if it may have been copied.
    """
    ours = ("_id", entry.id, "_stream", entry.stream, "_reason", shown(reason, MAX_LINE))
    call = ("XADD", dead_letters(entry.stream), "*", *ours, "_attempts", attempts)
    await redis.execute(*call, *(entry.content or ()))


async def read_dead(
    redis: RedisConnection, stream: str, first: str = "-", last: str = "+", *, count: int = 1000
) -> list[DeadLetter]:
    """Return dead letters of ``stream``, oldest first; fewer than ``count`` if they are long.

    :param first: ID of the first one; ``(ID`` excludes that entry.
    """
    entries = await read_range(redis, dead_letters(stream), first, last, count=count)
    return [dead_letter(entry.id.encode(), entry.content or ()) for entry in entries]


async def retry_dead(redis: RedisConnection, stream: str, ids: Sequence[str]) -> Retried:
    """Append dead letters to their stream again, and remove them.

    They become new entries at the end. Missing IDs are ignored. An entry that cannot be appended
    stays, and does not stop the others.

    Each is moved in one atomic step, except entries of some thousand fields: these are appended
    first and then removed. After a crash in between they are in both streams, which is
    harmless, since a position is stored once.

    :raises Refused, Unavailable: if Redis cannot be asked, or the key of the dead letters is
        not a stream.
    """
    moved, refused = await _RETRY.run(redis, [dead_letters(stream), stream], *ids)
    stuck = {}
    for entry_id, why in refused:
        if why == _TOO_MANY:
            why = await _move(redis, stream, entry_id.decode())
        if why is None:
            moved += 1
        else:
            stuck[entry_id.decode()] = shown(why)
    return Retried(moved, stuck)


async def _move(redis: RedisConnection, stream: str, entry_id: str) -> str | None:
    """Append one dead letter again and remove it; return why not, None if it was moved."""
    found = await read_dead(redis, stream, entry_id, entry_id)
    if not found:
        return "it is gone"
    try:
        await redis.execute("XADD", stream, "*", *found[0].content)
    except Refused as error:
        return str(error)
    await drop_dead(redis, stream, [entry_id])
    return None


async def drop_dead(redis: RedisConnection, stream: str, ids: Sequence[str]) -> int:
    """Remove dead letters for good.

    :return: the number of those that existed.
    """
    dropped: int = await redis.execute("XDEL", dead_letters(stream), *ids)
    return dropped


def dead_letter(entry_id: bytes, content: Sequence[bytes]) -> DeadLetter:
    """Return the dead letter in an entry of a dead stream."""
    ours: dict[bytes, bytes] = {}
    end = 0
    # An entry's own fields may have these names, too: only the first ones are ours.
    while end < len(content) and content[end] in _OURS and content[end] not in ours:
        ours[content[end]] = content[end + 1]
        end += 2
    attempts = ours.get(b"_attempts", b"")
    return DeadLetter(
        entry_id.decode(),
        _text(ours.get(b"_id")),
        _text(ours.get(b"_reason")),
        int(attempts) if attempts.isdigit() and len(attempts) <= _MAX_DIGITS else None,
        content[end:],
    )


def _text(value: Any) -> str:
    return (value or b"").decode(errors="backslashreplace")
