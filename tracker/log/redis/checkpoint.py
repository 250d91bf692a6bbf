"""The checkpoint of a stream: which entries the processors have finished.

It is a sorted set of *runs*. A run is a range of IDs all of whose entries are finished: they are in
the sink, dead letters, deleted, or discarded. The run that starts at the beginning of the stream
ends at the committed checkpoint, which the janitor never trims past. A processor records what it
has stored before it acknowledges it. An entry that is neither in a run nor pending nor undelivered
is therefore *skipped*: its group or consumer was changed by hand, and it is not recorded as stored.

Runs merge when the stream has no entry between them. Each entry that is not finished separates two
runs, so that their number stays small. A run is one member, "first:last" with IDs of fixed width,
and the order of the members is the order of the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import field, frozen

from tracker.keys import PROCESSOR_GROUP, checkpoint
from tracker.log.entries import BEGINNING
from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.redis.connection import RedisConnection
from tracker.redis.script import NAMED, Script

#: Maximum number of runs of a stream. Beyond it, only entries that extend a run are recorded; the
#: checkpoint then stays behind, which is harmless.
MAX_RUNS: Final = 10_000
#: Maximum number of runs that one call records, so that Redis is not blocked for long.
MAX_RECORDED: Final = 1000
#: Maximum number of pending entries that are read at once.
_MAX_PENDING: Final = 20_000
#: Maximum number of entries that a search examines, and of entries and bytes in one call of Redis.
MAX_EXAMINED: Final = 10_000
_STEP: Final = 500
_STEP_BYTES: Final = 1 << 20

_WIDTH: Final = 41
#: Maximum number of members other than runs that a search ignores.
_MAX_STRANGE: Final = 100

# IDs of fixed width, which Redis reads as well, can be compared as text.
_RUNS: Final = f"""\
local function wide(id)
  local ms, seq = id:match('^(%d+)-(%d+)$')
  return ('0'):rep(20 - #ms) .. ms .. '-' .. ('0'):rep(20 - #seq) .. seq
end
local BEGINNING = wide('0-0')
-- The ends of the first run that a search returns, and its member. Other members are ignored.
local function ends(command, key, low, high)
  for _ = 1, {_MAX_STRANGE} do
    local found = redis.pcall(command, key, low, high, 'LIMIT', 0, 1)
    local member = not found.err and found[1]
    if not member then break end
    local first, last = member:match('^(%d+%-%d+):(%d+%-%d+)$')
    if first and #first == {_WIDTH} and #last == {_WIDTH} and first <= last then
      return first, last, member
    end
    low = '(' .. member
  end
  return false, false, false
end
-- The last run that starts at or before an ID, and the first one that starts after it.
local function run_before(key, id)
  return ends('ZREVRANGEBYLEX', key, '(' .. id .. ';', '-')
end
local function run_after(key, id)
  return ends('ZRANGEBYLEX', key, '[' .. id .. ';', '+')
end
local function committed(key)
  local _, last = run_before(key, BEGINNING)
  return last
end
{NAMED}\
local function find_group(stream, name)
  for _, facts in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = named(facts)
    if group.name == name then return group end
  end
end
-- The first entry of a range of IDs. Redis refuses a range after the largest ID.
local function first_entry(stream, low, high)
  local found = redis.pcall('XRANGE', stream, low, high, 'COUNT', 1)
  return found[1] and wide(found[1][1])
end
"""

#: Lua functions, among them :data:`~tracker.redis.script.NAMED`, and ``committed``: returns the
#: committed checkpoint of a key, or false.
FUNCTIONS: Final = _RUNS

# KEYS: the stream, its checkpoint. ARGV: first and last ID of each run. The first write can only
# free memory: after it, Redis permits the others even if it is full.
_RECORD: Final = Script(
    _RUNS
    + f"""\
local stream, key = KEYS[1], KEYS[2]
if redis.call('EXISTS', key) == 0 then return false end
redis.call('ZREM', key, '')
local function is_joined(last, first)
  return first <= last or not first_entry(stream, '(' .. last, '(' .. first)
end
local dropped = 0
local function add(first, last)
  local removed = false
  local other_first, other_last, member = run_before(key, first)
  if member and is_joined(other_last, first) then
    redis.call('ZREM', key, member)
    first, removed = other_first, true
    if last < other_last then last = other_last end
  end
  while true do
    other_first, other_last, member = run_after(key, first)
    if not member or not is_joined(last, other_first) then break end
    redis.call('ZREM', key, member)
    removed = true
    if last < other_last then last = other_last end
  end
  if removed or redis.call('ZCARD', key) < {MAX_RUNS} then
    redis.call('ZADD', key, 0, first .. ':' .. last)
  else
    dropped = dropped + 1
  end
end
local first, last = wide(ARGV[1]), wide(ARGV[2])
for index = 3, #ARGV, 2 do
  local next_first, next_last = wide(ARGV[index]), wide(ARGV[index + 1])
  if first <= next_first and is_joined(last, next_first) then
    if last < next_last then last = next_last end
  else
    add(first, last)
    first, last = next_first, next_last
  end
end
add(first, last)
return dropped
"""
)

# KEYS: the stream, its checkpoint. ARGV: the group. A checkpoint after the last ID of the stream is
# that of another stream of the same name. At the start, all entries are finished that were
# delivered and are not pending.
_CREATE: Final = Script(
    _RUNS
    + f"""\
local stream, key = KEYS[1], KEYS[2]
redis.call('ZCARD', key) -- refused if the key is of another type
local group = find_group(stream, ARGV[1])
if not group then return 0 end
local about = named(redis.call('XINFO', 'STREAM', stream))
local known = committed(key)
local _, latest = ends('ZREVRANGEBYLEX', key, '+', '-')
local generated = wide(about['last-generated-id'])
if known and latest and latest <= generated then return 0 end
redis.call('DEL', key)
local delivered = wide(group['last-delivered-id'])
-- A group may have been set to an ID after the end; it has not finished what is yet to be appended.
if delivered > generated then delivered = generated end
local first, last = BEGINNING, BEGINNING
local pending = redis.call('XPENDING', stream, ARGV[1], '-', '+', {_MAX_PENDING})
for _, one in ipairs(pending) do
  local id = wide(one[1])
  if first then
    local high = id <= delivered and '(' .. id or delivered
    local before = redis.call('XREVRANGE', stream, high, first, 'COUNT', 1)[1]
    if before then last = wide(before[1]) end
    if before or first == BEGINNING then redis.call('ZADD', key, 0, first .. ':' .. last) end
  end
  first = first_entry(stream, '(' .. id, delivered)
end
if first and #pending < {_MAX_PENDING} and first <= delivered then
  redis.call('ZADD', key, 0, first .. ':' .. delivered)
end
return 1
"""
)

# KEYS: the stream, its checkpoint. ARGV: the group; the ID after which to search, or '' for the
# committed checkpoint; '1' to return at once if the entry after that is pending or undelivered.
# Returns the committed checkpoint; ranges of skipped entries with their numbers; the ID after which
# the search must continue, or false; the first entry that was examined; and whether the last range
# may go on after that.
_SEARCH: Final = Script(
    _RUNS
    + f"""\
local stream, key = KEYS[1], KEYS[2]
redis.call('ZCARD', key)
local done = committed(key)
local group = redis.call('EXISTS', stream) == 1 and done and find_group(stream, ARGV[1])
if not group then return {{done, {{}}, false, false, 0}} end
local delivered = wide(group['last-delivered-id'])
local at = ARGV[2] == '' and done or ARGV[2]
if ARGV[3] == '1' then
  local next_entry = first_entry(stream, '(' .. at, '+')
  local pending = redis.call('XPENDING', stream, ARGV[1])[2]
  if not next_entry or next_entry > delivered or pending and next_entry >= wide(pending) then
    return {{done, {{}}, false, false, 0}}
  end
end
local ranges, range, examined, bytes, first_examined = {{}}, nil, 0, 0, false
while at < delivered do
  local _, inside = run_before(key, at)
  if inside and inside > at then at = inside end
  local run_first, run_last = run_after(key, at)
  local high = run_first and run_first <= delivered and '(' .. run_first or delivered
  local entries
  repeat
    entries = redis.call('XRANGE', stream, '(' .. at, high, 'COUNT', 20)
    local waiting = {{}}
    if entries[1] then
      first_examined = first_examined or wide(entries[1][1])
      -- Deleted entries may be pending, too.
      local pending = redis.call('XPENDING', stream, ARGV[1],
        entries[1][1], entries[#entries][1], {_MAX_PENDING})
      for _, one in ipairs(pending) do waiting[one[1]] = true end
      if #pending == {_MAX_PENDING} then
        for _, entry in ipairs(entries) do waiting[entry[1]] = true end
      end
    end
    for _, entry in ipairs(entries) do
      at = wide(entry[1])
      for _, part in ipairs(entry[2]) do bytes = bytes + #part end
      if waiting[entry[1]] then
        range = nil
      elseif range then
        range[2], range[3] = at, range[3] + 1
      else
        range = {{at, at, 1}}
        ranges[#ranges + 1] = range
      end
    end
    examined = examined + #entries + 1
    if examined >= {_STEP} or bytes >= {_STEP_BYTES} then
      return {{done, ranges, at, first_examined, range and 1 or 0}}
    end
  until #entries < 20
  range = nil
  if not run_first or run_first > delivered then break end
  at = run_last
end
return {{done, ranges, false, first_examined, 0}}
"""
)

Run = tuple[str, str]
"""First and last ID of entries that are finished, without any other entry between them."""


@frozen
class SkippedRange:
    """Neighbouring entries, all of which are skipped."""

    first: str
    last: str
    entries: int

    @property
    def times(self) -> tuple[str, str]:
        """Times when the first and the last one were appended; ISO 8601 UTC."""
        return _time(self.first), _time(self.last)

    def as_json(self) -> dict[str, Any]:
        """Return the range as a JSON object."""
        first_time, last_time = self.times
        return {
            "first": self.first,
            "last": self.last,
            "entries": self.entries,
            "first_time": first_time,
            "last_time": last_time,
        }


@frozen
class Skipped:
    """The skipped entries of a stream."""

    committed: str | None
    """ID up to which all entries are finished; None if no processor has published one."""
    ranges: Sequence[SkippedRange] = field(factory=list)
    complete: bool = True
    """False if there may be more, after :data:`MAX_EXAMINED` entries."""

    @property
    def entries(self) -> int:
        """Number of skipped entries that were found."""
        return sum(one.entries for one in self.ranges)

    @property
    def count(self) -> str:
        """The number of skipped entries in words."""
        return f"{self.entries}" if self.complete else f"{self.entries} or more"


async def create_checkpoint(redis: RedisConnection, stream: str) -> bool:
    """Publish the checkpoint of a stream, unless it exists.

    :return: True if it was published.
    :raises Unavailable: if Redis is down.
    :raises Refused: if the key of the checkpoint is of another type, or must not be written.
    """
    return bool(await _CREATE.run(redis, [stream, checkpoint(stream)], PROCESSOR_GROUP))


async def record_finished(redis: RedisConnection, stream: str, runs: Sequence[Run]) -> int | None:
    """Record that the entries of these runs are finished.

    :return: the number of runs that were not recorded because there are :data:`MAX_RUNS`; None if
        nothing was recorded because no checkpoint is published.
    :raises Unavailable: if Redis is down.
    :raises Refused: if the key of the checkpoint is of another type, or must not be written.
    """
    keys, dropped = [stream, checkpoint(stream)], 0
    for start in range(0, len(runs), MAX_RECORDED):
        page = runs[start : start + MAX_RECORDED]
        left_out = await _RECORD.run(redis, keys, *[one for run in page for one in run])
        if left_out is None:
            return None
        dropped += left_out
    return dropped


async def advance_checkpoint(redis: RedisConnection, stream: str) -> None:
    """Move the committed checkpoint over entries that were deleted."""
    await record_finished(redis, stream, [(BEGINNING, BEGINNING)])


async def find_skipped(redis: RedisConnection, stream: str, *, thorough: bool = True) -> Skipped:
    """Search the skipped entries of a stream.

    :param thorough: False: do not search if the first entry after the committed checkpoint is not
        skipped, which costs Redis next to nothing. Entries that were skipped behind unfinished ones
        are then found as soon as those are finished.
    :raises Unavailable: if Redis is down.
    :raises Refused: if the stream or its checkpoint is of another type.
    """
    ranges: list[SkippedRange] = []
    after, is_open, examined = b"", False, 0
    while True:
        done, found, following, first, may_go_on = await _SEARCH.run(
            redis, [stream, checkpoint(stream)], PROCESSOR_GROUP, after, 0 if thorough else 1
        )
        thorough = True
        rows = [SkippedRange(_narrow(one), _narrow(last), count) for one, last, count in found]
        if is_open and rows and rows[0].first == _narrow(first):
            last_range, next_range = ranges.pop(), rows.pop(0)
            entries = last_range.entries + next_range.entries
            ranges.append(SkippedRange(last_range.first, next_range.last, entries))
        ranges += rows
        examined += _STEP
        committed = None if done is None else _narrow(done)
        if following is None or examined >= MAX_EXAMINED:
            return Skipped(committed, ranges, following is None)
        after, is_open = following, bool(may_go_on)


def _narrow(entry_id: bytes) -> str:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return f"{int(milliseconds)}-{int(sequence)}"


def _time(entry_id: str) -> str:
    return iso_milliseconds(min(int(entry_id.partition("-")[0]), MAX_TIMESTAMP_MS))
