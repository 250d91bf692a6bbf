"""Trimming of streams by age and size, which never removes unfinished entries.

Each check and the action after it are one script: meanwhile no group can be created, set back to an
earlier ID, or read.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from tracker.keys import checkpoint
from tracker.log.redis.checkpoint import FUNCTIONS
from tracker.redis.connection import RedisConnection
from tracker.redis.script import NAMED, Script
from tracker.untrusted import shown

#: Maximum number of entries removed by one call, so that Redis is not blocked for long.
BATCH: Final = 10_000
#: Entries of one stream node by default (stream-node-max-entries); Redis trims whole nodes.
_NODE: Final = 100

# KEYS: the stream. ARGV: maximum age in milliseconds (or -1), maximum bytes (or -1), maximum
# number of entries to remove, entries of a node, and '1' for dead letters, which need no group
# and are trimmed exactly. IDs are compared as text, by length and then by digits, because a number
# in Lua has 53 bits and a part of an ID has 64.
#
# The floor is the oldest entry that some group has not finished: the smaller one of its first
# pending entry and the first entry after its last delivered one. It is also the first entry after
# the committed checkpoint, whose key is ARGV[6] if the stream can have one. A janitor that may not
# read it trims as if there were none; doctor reports missing permissions. The maximum age gives an
# ID up to which entries are removed, but not beyond the floor. The maximum bytes give a number of
# entries to remove, below the floor.
_TRIM: Final = Script(
    FUNCTIONS
    + """\
local stream, floor, slowest, skipped = KEYS[1], false, '', 0
local function less(a, b)
  local ams, aseq = a:match('^(%d+)-(%d+)$')
  local bms, bseq = b:match('^(%d+)-(%d+)$')
  if ams == bms then ams, bms = aseq, bseq end
  if #ams ~= #bms then return #ams < #bms end
  return ams < bms
end
local function keep(id, group)
  if id and (not floor or less(id, floor)) then floor, slowest = id, group end
end
local function first()
  local entry = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return entry and entry[1]
end

if redis.call('EXISTS', stream) == 0 then return false end
local groups = redis.call('XINFO', 'GROUPS', stream)
for _, facts in ipairs(groups) do
  local group = named(facts)
  keep(redis.call('XPENDING', stream, group.name)[2], group.name)
  local after = redis.pcall('XRANGE', stream,
    '(' .. group['last-delivered-id'], '+', 'COUNT', 1)
  keep(after[1] and after[1][1], group.name)
end
local done = #groups > 0 and ARGV[6] ~= '' and committed(ARGV[6])
local skipped_entry = done and redis.pcall('XRANGE', stream, '(' .. done, '+', 'COUNT', 1)[1]
if skipped_entry and (not floor or less(skipped_entry[1], floor)) then
  floor, skipped = skipped_entry[1], 1
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
return {
  removed, held, slowest, floor or '', skipped, #groups, used, redis.call('XLEN', stream)}
"""
)

# KEYS: the stream. ARGV: the group, milliseconds. XGROUP DELCONSUMER drops the consumer's pending
# entries; no entry may therefore become pending between the check and the deletion.
_REMOVE_IDLE: Final = Script(
    NAMED
    + """\
local removed_names = {}
if redis.call('EXISTS', KEYS[1]) == 0 then return removed_names end
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  if named(facts).name == ARGV[1] then
    for _, its in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
      local consumer = named(its)
      if consumer.pending == 0 and consumer.idle > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
        removed_names[#removed_names + 1] = consumer.name
      end
    end
  end
end
return removed_names
"""
)


@frozen
class TrimResult:
    """The result of trimming a stream."""

    removed: int
    exceeded: str
    """The limit exceeded by entries that must be kept: ``age``, ``bytes``, or empty."""
    group: str
    """The group that is furthest behind; empty if no group has unfinished entries."""
    floor: str
    """ID of the oldest entry that must be kept; empty if there is none."""
    skipped: bool
    """True if this entry is skipped; else the group has not finished it."""
    groups: int
    bytes: int
    """Memory of the stream before the removal, estimated from a sample."""
    entries: int
    """Number of remaining entries."""


async def trim(
    redis: RedisConnection, stream: str, retain: float | None, retain_bytes: int | None
) -> TrimResult | None:
    """Remove old entries from a stream; repeat the call as long as it removes entries.

    Redis removes whole nodes of a stream, and some hundred old entries may therefore remain.
    Entries that some group has not finished are never removed, nor are later entries, nor any
    entry of a stream without groups. Nothing after the committed checkpoint is removed either.

    :param retain: maximum age in seconds; older entries are removed.
    :param retain_bytes: maximum memory of the stream; the oldest entries beyond it are removed.
    :return: None if the stream does not exist.
    :raises Unavailable: if Redis is down.
    :raises Refused: if the key is not a stream.
    """
    return _trim_result(
        await _TRIM.run(
            redis,
            [stream],
            -1 if retain is None else int(retain * 1000),
            -1 if retain_bytes is None else retain_bytes,
            BATCH,
            _NODE,
            0,
            checkpoint(stream),
        )
    )


async def trim_dead(redis: RedisConnection, dead_stream: str, retain: float) -> TrimResult | None:
    """Remove old entries from a dead-letter stream, which needs no group."""
    arguments = (int(retain * 1000), -1, BATCH, _NODE, 1, "")
    return _trim_result(await _TRIM.run(redis, [dead_stream], *arguments))


async def remove_idle_consumers(
    redis: RedisConnection, stream: str, group: str, idle: float
) -> list[str]:
    """Remove consumers without pending entries that were idle for more than ``idle`` seconds.

    :return: their names.
    """
    names = await _REMOVE_IDLE.run(redis, [stream], group, int(idle * 1000))
    return [shown(name) for name in names]


def _trim_result(reply: Any) -> TrimResult | None:
    if reply is None:
        return None
    removed, held, group, floor, skipped, groups, used, entries = reply
    return TrimResult(
        removed,
        held.decode(),
        shown(group),
        floor.decode(),
        bool(skipped),
        groups,
        used,
        entries,
    )
