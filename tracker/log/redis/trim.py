"""Trimming streams by age and size, never past what a group has not finished.

Each check, and what is done after it, are one script: no group can be created, set back or given an
entry in between.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from tracker.redis.connection import RedisConnection
from tracker.redis.script import Script
from tracker.untrusted import shown

#: Entries that one call removes at most, so that Redis serves others in between.
BATCH: Final = 10_000
#: Entries of a node, as Redis is set up unless told otherwise; it removes only whole ones.
_NODE: Final = 100

# KEYS: the stream. ARGV: milliseconds of age (or -1), bytes (or -1), entries to remove at
# most, entries of a node, and for dead letters '1': they need no group, and are removed to
# the entry. IDs are compared as text, by length and then by digits: a number of Lua has 53
# bits, and these have 64.
#
# The floor is the oldest entry that some group has not finished: the smaller of its first
# pending one and the first one behind its last delivered one. The age asks for a cut at an
# ID, but not above the floor; the bytes ask for a number of entries, below the floor.
_TRIM: Final = Script("""\
local stream, floor, keeper = KEYS[1], false, ''
local function less(a, b)
  local ams, aseq = a:match('^(%d+)-(%d+)$')
  local bms, bseq = b:match('^(%d+)-(%d+)$')
  if ams == bms then ams, bms = aseq, bseq end
  if #ams ~= #bms then return #ams < #bms end
  return ams < bms
end
local function keep(id, group)
  if id and (not floor or less(id, floor)) then floor, keeper = id, group end
end
local function first()
  local entry = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return entry and entry[1]
end

if redis.call('EXISTS', stream) == 0 then return false end
local groups = redis.call('XINFO', 'GROUPS', stream)
for _, facts in ipairs(groups) do
  local group = {}
  for fact = 1, #facts, 2 do group[facts[fact]] = facts[fact + 1] end
  keep(redis.call('XPENDING', stream, group.name)[2], group.name)
  local after = redis.pcall('XRANGE', stream,
    '(' .. group['last-delivered-id'], '+', 'COUNT', 1)
  keep(after[1] and after[1][1], group.name)
end

local retain, bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local batch, node, dead = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local may = dead or #groups > 0
local removed, held = 0, ''

local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - retain
if retain >= 0 and oldest > 0 then
  local cut = string.format('%.0f-0', oldest)
  local start = first()
  if start and less(start, cut) then
    if may then
      if floor and less(floor, cut) then cut, held = floor, 'age' end
      removed = redis.call('XTRIM', stream, 'MINID', '~', cut, 'LIMIT', batch)
      if dead and removed == 0 then removed = redis.call('XTRIM', stream, 'MINID', cut) end
    else
      held = 'age'
    end
  end
end

local used = redis.call('MEMORY', 'USAGE', stream, 'SAMPLES', 100) or 0
if bytes >= 0 and used > bytes and removed == 0 then
  local length = redis.call('XLEN', stream)
  local excess = math.floor(length * (1 - bytes / used))
  if may and length > 0 then
    removed = redis.call('XTRIM', stream, 'MINID', '~',
      floor or '18446744073709551615-18446744073709551615',
      'LIMIT', math.min(batch, math.max(excess, node)))
  end
  if removed == 0 and (floor or not may) and held == '' then held = 'bytes' end
end
return {removed, held, keeper, floor or '', #groups, used, redis.call('XLEN', stream)}
""")

# KEYS: the stream. ARGV: the group, milliseconds. XGROUP DELCONSUMER would drop what is
# pending, so it must not become pending between the look and the deletion.
_REMOVE_IDLE: Final = Script("""\
local gone = {}
if redis.call('EXISTS', KEYS[1]) == 0 then return gone end
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for fact = 1, #facts, 2 do group[facts[fact]] = facts[fact + 1] end
  if group.name == ARGV[1] then
    for _, its in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
      local consumer = {}
      for fact = 1, #its, 2 do consumer[its[fact]] = its[fact + 1] end
      if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
        gone[#gone + 1] = consumer.name
      end
    end
  end
end
return gone
""")


@frozen
class Trimmed:
    """The result of one call."""

    removed: int
    held_by: str
    """The limit that is exceeded by what may not be removed: ``age``, ``bytes``, or empty."""
    group: str
    """The group that is furthest behind; empty if none has unfinished entries."""
    floor: str
    """ID of the oldest entry that this group has not finished; empty if there is none."""
    groups: int
    bytes: int
    """Memory of the stream, by a sample: before the last entries were removed."""
    entries: int
    """Entries that are left."""


async def trim(
    redis: RedisConnection, stream: str, retain: float | None, retain_bytes: int | None
) -> Trimmed | None:
    """Remove old entries from a stream; call it again as long as it removes some.

    Redis removes whole nodes of a stream, so some hundred old entries may stay. Never removed
    are an entry that some group has not finished, those behind it, and any entry of a stream
    without a group.

    :param retain: seconds; older entries are removed.
    :param retain_bytes: memory that the stream may take; the oldest entries beyond it are
        removed.
    :return: None if there is no such stream.
    :raises Refused, Unavailable: if Redis cannot be asked, or the key is not a stream.
    """
    return _trimmed(
        await _TRIM.run(
            redis,
            [stream],
            -1 if retain is None else int(retain * 1000),
            -1 if retain_bytes is None else retain_bytes,
            BATCH,
            _NODE,
            0,
        )
    )


async def trim_dead(redis: RedisConnection, dead_stream: str, retain: float) -> Trimmed | None:
    """Remove old entries from a stream of dead letters, which needs no group."""
    arguments = (int(retain * 1000), -1, BATCH, _NODE, 1)
    return _trimmed(await _TRIM.run(redis, [dead_stream], *arguments))


async def remove_idle_consumers(
    redis: RedisConnection, stream: str, group: str, idle: float
) -> list[str]:
    """Remove consumers that were idle for ``idle`` seconds and have nothing pending.

    :return: their names.
    """
    names = await _REMOVE_IDLE.run(redis, [stream], group, int(idle * 1000))
    return [shown(name) for name in names]


def _trimmed(answer: Any) -> Trimmed | None:
    if answer is None:
        return None
    removed, held, group, floor, groups, used, entries = answer
    return Trimmed(
        removed,
        held.decode(),
        shown(group),
        floor.decode(),
        groups,
        used,
        entries,
    )
