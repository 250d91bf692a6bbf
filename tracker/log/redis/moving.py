"""Moves of entries from one stream to another, which keep the time of the first arrival."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from attrs import field, frozen

from tracker.errors import Refused
from tracker.extra import ARRIVED, NO_EXTRA, read_extra
from tracker.log.redis.ranges import read_range
from tracker.position import MAX_TIMESTAMP_MS, BadEntry, iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.script import NAMED, Script
from tracker.untrusted import shown

#: Maximum number of entries that are moved at once; that blocks Redis for a millisecond.
MAX_MOVED: Final = 64

#: Maximum number of names and values in one call from Lua; its stack has some 8,000 slots.
_MAX_UNPACKED: Final = 7000

_EXTRA: Final = b"extra"
_ID: Final = re.compile(r"([0-9]{1,20})-[0-9]{1,20}")

# KEYS: the source, the target. ARGV: of each entry the ID in the source, the number of names and
# values, and these. Returns for each entry 1 if it was moved, 0 if it does not exist, or the error.
_MOVE: Final = Script("""\
local results, at = {}, 1
while ARGV[at] do
  local id, last, result = ARGV[at], at + 1 + tonumber(ARGV[at + 1]), 0
  if #redis.call('XRANGE', KEYS[1], id, id) > 0 then
    local added = redis.pcall('XADD', KEYS[2], '*', unpack(ARGV, at + 2, last))
    if type(added) == 'table' and added.err then
      result = added.err
    else
      redis.call('XDEL', KEYS[1], id)
      result = 1
    end
  end
  results[#results + 1] = result
  at = last + 1
end
return results
""")

# KEYS: a stream. ARGV: a group. Deletes the stream if it is empty and has no other group. Returns
# '' if it does not exist afterwards, else the reason.
_DELETE_EMPTY: Final = Script(
    NAMED
    + """\
if redis.call('EXISTS', KEYS[1]) == 0 then return '' end
if redis.call('XLEN', KEYS[1]) > 0 then return 'it has new entries' end
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if named(facts).name ~= ARGV[1] then return 'it has other groups' end
end
local deleted = redis.pcall('DEL', KEYS[1])
if type(deleted) == 'table' and deleted.err then return deleted.err end
return ''
"""
)

#: Maximum number of bytes that are read at once.
_READ_BYTES: Final = 4 << 20

Content = Sequence[bytes]
"""Alternating names and values of an entry."""


@frozen
class MoveResult:
    """The result of a move of entries."""

    moved: int = 0
    failed: Mapping[str, str] = field(factory=dict)
    """ID → the error of Redis; the entry is still in the source."""


async def move(
    redis: RedisConnection, source: str, target: str, entries: Mapping[str, Content]
) -> MoveResult:
    """Append entries to the target as new ones, and delete them from the source.

    Missing entries are ignored. An entry that Redis refuses to append does not prevent the others
    from being moved.

    Each entry is moved atomically, except entries of several thousand fields: these are appended
    first and then deleted. After a crash between both steps they are in both streams, which is
    harmless, because a position is stored once.

    :param entries: ID in the source → the content to append; at most :data:`MAX_MOVED`.
    :raises Refused: if the source is not a stream.
    :raises Unavailable: if Redis is down; some entries may have been moved.
    """
    arguments: list[str | bytes | int] = []
    wide, together = [], []
    for entry_id, content in entries.items():
        if len(content) > _MAX_UNPACKED:
            wide.append(entry_id)
        else:
            together.append(entry_id)
            arguments += (entry_id, len(content), *content)
    moved, failed = 0, {}
    results = await _MOVE.run(redis, [source, target], *arguments) if together else ()
    for entry_id, result in zip(together, results, strict=True):
        if isinstance(result, int):
            moved += result
        else:
            failed[entry_id] = shown(result)
    for entry_id in wide:
        try:
            await redis.execute("XADD", target, "*", *entries[entry_id])
            moved += await redis.execute("XDEL", source, entry_id)
        except Refused as error:
            failed[entry_id] = shown(error)
    return MoveResult(moved, failed)


async def move_all(redis: RedisConnection, source: str, target: str) -> AsyncIterator[int]:
    """Move all entries that a stream has now; yield the number of entries moved since the last one.

    They keep the time of their first arrival. If the caller stops, or the connection is lost, the
    entries that were not moved are still in the source, and another call continues with them.

    :raises Refused: if an entry cannot be appended.
    :raises Unavailable: if Redis is down.
    """
    seconds, _ = await redis.execute("TIME")
    now = f"{int(seconds)}999-0"
    newest = await redis.execute("XREVRANGE", source, "+", "-", "COUNT", 1)
    while newest:
        last = newest[0][0].decode()
        page = await read_range(redis, source, "-", last, count=MAX_MOVED, size=_READ_BYTES)
        if not page:
            return
        contents = {
            entry.id: with_arrival(entry.content or (), arrival(entry.id, now)) for entry in page
        }
        result = await move(redis, source, target, contents)
        yield result.moved
        for error in result.failed.values():
            raise Refused(error)


async def delete_empty(redis: RedisConnection, stream: str, group: str) -> str:
    """Delete a stream if it has neither entries nor groups other than ``group``.

    :return: the reason if the stream still exists, else an empty text.
    """
    reason: bytes = await _DELETE_EMPTY.run(redis, [stream], group)
    return shown(reason) if reason else ""


def arrival(*entry_ids: str) -> str | None:
    """Return the earliest time in IDs of an entry, ISO 8601 UTC; None if no ID is valid."""
    times = [int(match[1]) for one in entry_ids if (match := _ID.fullmatch(one))]
    # A client may choose any ID when it appends, also one that is not a valid time.
    return iso_milliseconds(min(*times, MAX_TIMESTAMP_MS)) if times else None


def with_arrival(content: Content, arrived: str | None) -> Content:
    """Return the content with the time of the first arrival in the field ``extra``.

    An earlier time that it already has is kept, and so is a field that is malformed.

    :param arrived: ISO 8601 UTC with milliseconds; None: unknown, nothing is added.
    """
    if arrived is None:
        return content
    names = content[::2]
    # If a name is repeated, its last value counts.
    at = 2 * (len(names) - names[::-1].index(_EXTRA)) - 1 if _EXTRA in names else None
    try:
        text = b"" if at is None else content[at]
        extra = read_extra(text.decode()) if text else NO_EXTRA
        if extra.arrived is not None and extra.arrived <= arrived:
            return content
        marked = extra.marked(ARRIVED, arrived).text.encode()
    except (BadEntry, UnicodeDecodeError):
        return content
    if at is None:
        return [*content, _EXTRA, marked]
    return [*content[:at], marked, *content[at + 1 :]]
