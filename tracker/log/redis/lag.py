"""Lag of the consumer groups of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import Factory, field, frozen

from tracker.keys import PROCESSOR_GROUP
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import mapping
from tracker.redis.script import NAMED, Script
from tracker.untrusted import shown

#: Maximum number of undelivered entries that are counted, and of their bytes; see :data:`_COUNT`.
MAX_COUNTED: Final = 1000
MAX_COUNTED_BYTES: Final = 1 << 20
_COUNT_STEP: Final = 20

# Redis calculates the lag from entries-read, a counter that is wrong after Redis 7.0 rewrote its
# append-only file and restarted, and is missing after other events. Entries are therefore counted,
# which blocks Redis (1.6 ms for 1000 entries of 350 bytes) and is limited: one number of entries
# for the group of the processors, and the same number for all other groups together. A range
# returns the contents of entries, hence in small steps. Redis refuses a range after the largest ID,
# hence pcall.
_COUNT: Final = f"""\
{NAMED}\
local about = named(redis.call('XINFO', 'STREAM', KEYS[1]))
local countable, countable_bytes = {MAX_COUNTED}, {MAX_COUNTED_BYTES}
-- The number of entries after the last delivered one, true if these are all, and the first one.
local function count(group)
  local last, found, first = group['last-delivered-id'], 0, false
  if last == about['last-generated-id'] then return 0, true, false end
  local processors = group.name == '{PROCESSOR_GROUP}'
  local limit = processors and {MAX_COUNTED} or countable
  local bytes = processors and {MAX_COUNTED_BYTES} or countable_bytes
  local complete = false
  repeat
    local step = math.max(1, math.min({_COUNT_STEP}, limit + 1 - found))
    local entries = redis.pcall('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', step)
    for _, entry in ipairs(entries) do
      last, first, found = entry[1], first or entry[1], found + 1
      for _, part in ipairs(entry[2]) do bytes = bytes - #part end
    end
    complete = #entries < step
  until complete or found > limit or bytes < 0
  if not processors then countable, countable_bytes = math.max(0, limit - found), bytes end
  return found, complete, first
end
"""

# One script reads all figures at one moment, by the clock that made the entries' IDs. It returns
# no fields of entries, which XINFO STREAM would do for the first and the last one. ARGV: the number
# of consumers to read, which applies to the group ARGV[3] and again to all other groups together,
# because Redis is blocked meanwhile; the number of consumers to return for each group; the group;
# the number of other groups to return.
_READ: Final = Script(
    f"""\
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
{_COUNT}"""
    """\
local groups, readable, max = {}, tonumber(ARGV[1]), tonumber(ARGV[2])
local left = readable
local function consumers(group)
  if group.name == ARGV[3] then
    if group.consumers > readable then return {} end
  else
    if group.consumers > left then return {} end
    left = left - group.consumers
  end
  local members = {}
  for index, facts in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group.name)) do
    members[index] = named(facts)
  end
  if #members > max then
    table.sort(members, function(one, other)
      if one.pending ~= other.pending then return one.pending > other.pending end
      return one.idle < other.idle
    end)
  end
  local found = {}
  for index = 1, math.min(#members, max) do
    local member = members[index]
    found[index] = {member.name, member.pending, member.idle}
  end
  return found
end
local listed = 0
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = named(facts)
  listed = listed + 1
  if listed <= tonumber(ARGV[4]) or group.name == ARGV[3] then
    local counted, complete, after = count(group)
    local lag = group.lag
    if complete then lag = counted elseif lag and lag < counted then lag = false end
    local pending = redis.call('XPENDING', KEYS[1], group['name'])
    groups[#groups + 1] = {
      group['name'], lag or false, pending[1], pending[2],
      after, consumers(group), group['consumers']}
  end
end
local counts = {'length', about['length'], 'entries-added', about['entries-added']}
return {redis.call('TIME'), counts, groups}
"""
)

# Corrects the counter of each group whose lag is provably wrong, or not known because the counter
# is. The last delivered entry stays the same. Deleted entries make the lag unknown whatever the
# counter is; its correction would be undone by the next one. Returns the names of the groups whose
# lags have changed, and the lags before and after. ARGV: the number of groups to read.
_REPAIR: Final = Script(
    f"""\
local repaired = {{}}
if redis.call('EXISTS', KEYS[1]) == 0 then return repaired end
{_COUNT}"""
    """\
local listed = 0
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = named(facts)
  listed = listed + 1
  if listed <= tonumber(ARGV[1]) then
    local counted, complete = count(group)
    local wrong = group.lag and group.lag ~= counted or not group['entries-read']
    if complete and wrong then
      local done = redis.pcall('XGROUP', 'SETID', KEYS[1], group.name,
        group['last-delivered-id'], 'ENTRIESREAD', about['entries-added'] - counted)
      if not done.err and group.lag ~= counted then
        repaired[#repaired + 1] = {group.name, group.lag or false, counted}
      end
    end
  end
end
return repaired
"""
)

#: With more groups than this, the group of the processors is put first, to be among those shown.
MANY_GROUPS: Final = 50
#: Maximum numbers of groups of a stream, and of consumers of a group, that are returned.
MAX_GROUPS: Final = 1000
MAX_CONSUMERS: Final = 100
#: Maximum number of consumers that are read: of the group of the processors, and of all other
#: groups together. Redis takes 4 ms for each 1000. If a group has more, none of its consumers is
#: read.
MAX_READ: Final = 10_000


@frozen
class ConsumerLag:
    """A member of a group."""

    name: str
    pending: int
    """Entries that were delivered to it and are not acknowledged."""
    idle: float
    """Seconds since its last attempt to read."""


@frozen
class GroupLag:
    """The lag of one group."""

    name: str
    undelivered: int | None
    """Entries that were not delivered to any consumer; None if their number is not known."""
    pending: int
    """Entries that were delivered to a consumer and are not acknowledged."""
    oldest_age: float
    """Seconds since the oldest of all these was appended; 0 without any."""
    consumers: Sequence[ConsumerLag]
    """At most :data:`MAX_CONSUMERS`, sorted by pending entries, most first. Empty if there are
    more than :data:`MAX_READ`."""
    consumer_count: int = field(default=Factory(lambda self: len(self.consumers), takes_self=True))
    """The number of all consumers."""

    @property
    def total(self) -> int | None:
        """Entries not yet processed; None if their number is not known."""
        return None if self.undelivered is None else self.undelivered + self.pending

    def as_json(self) -> dict[str, Any]:
        """Return the lag as a JSON object; times in seconds."""
        return {
            "lag": self.undelivered,
            "pending": self.pending,
            "oldest_unprocessed_age": self.oldest_age,
            "consumers": {
                consumer.name: {"pending": consumer.pending, "idle": consumer.idle}
                for consumer in self.consumers
            },
        }


@frozen
class StreamLag:
    """A stream, and the lag of each of its groups."""

    stream: str
    entries: int
    """Number of entries in the stream."""
    added: int
    """Number of entries ever appended to it."""
    groups: Sequence[GroupLag]
    """At most :data:`MAX_GROUPS`; the group of the processors is included if it exists."""

    def group(self, name: str) -> GroupLag | None:
        """Return the group of this name, or None."""
        return next((group for group in self.groups if group.name == name), None)


async def stream_lag(redis: RedisConnection, stream: str) -> StreamLag | None:
    """Return the lag of all groups of a stream; None if the stream does not exist.

    Up to :data:`MAX_COUNTED` undelivered entries are counted. Beyond that, their number is the one
    that Redis reports. It reports none after entries were deleted or the group was set to another
    ID. The oldest entry's age is known even then, because its ID contains the time of the append.

    :raises Unavailable: if Redis is down.
    :raises Refused: if the key is not a stream.
    """
    reply = await _READ.run(redis, [stream], MAX_READ, MAX_CONSUMERS, PROCESSOR_GROUP, MAX_GROUPS)
    if reply is None:
        return None
    (seconds, microseconds), facts, groups = reply
    now = int(seconds) * 1000 + int(microseconds) // 1000
    about = mapping(facts)
    if len(groups) > MANY_GROUPS:
        groups.sort(key=lambda group: group[0] != PROCESSOR_GROUP.encode())
    return StreamLag(
        stream,
        about[b"length"],
        about[b"entries-added"],
        [_group(now, group) for group in groups[:MAX_GROUPS]],
    )


async def repair_lag(redis: RedisConnection, stream: str) -> dict[str, tuple[int | None, int]]:
    """Correct the lags that Redis reports wrongly and that can be counted.

    :return: group whose lag has changed → the lag that Redis reported (None: none), and the
        number of undelivered entries, which it reports now.
    :raises Unavailable: if Redis is down.
    :raises Refused: if the key is not a stream.
    """
    rows = await _REPAIR.run(redis, [stream], MAX_GROUPS)
    return {shown(name): (before, after) for name, before, after in rows}


def _group(now: int, row: Sequence[Any]) -> GroupLag:
    """Return a group from its row in the reply of :data:`_READ`.

    :param now: milliseconds since 1970 by Redis' clock.
    """
    name, undelivered, pending, first_pending, next_id, consumers, consumer_count = row
    unprocessed = [_milliseconds(one) for one in (first_pending, next_id) if one is not None]
    return GroupLag(
        shown(name),
        undelivered,
        pending,
        # A client may choose an ID in the future.
        max(0, now - min(unprocessed, default=now)) / 1000,
        [ConsumerLag(shown(one), count, idle / 1000) for one, count, idle in consumers],
        consumer_count,
    )


def _milliseconds(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
