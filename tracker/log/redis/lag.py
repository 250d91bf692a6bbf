"""Read the lag of the consumer groups of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import Factory, field, frozen

from tracker.keys import PROCESSOR_GROUP
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import mapping
from tracker.redis.script import Script
from tracker.untrusted import shown

# One script, so that all figures are of one moment, by the clock that made the entries'
# IDs, and no entry's fields travel: XINFO STREAM has those of the first and the last one.
# After the largest ID there can be none (pcall). ARGV: consumers that are read, as Redis serves
# nobody else meanwhile: so many of one group, and so many of all others together; those of each
# group that are returned; the group; groups that are returned, besides it.
_READ: Final = Script("""\
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local groups, readable, most = {}, tonumber(ARGV[1]), tonumber(ARGV[2])
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
    local member = {}
    for fact = 1, #facts, 2 do member[facts[fact]] = facts[fact + 1] end
    members[index] = member
  end
  if #members > most then
    table.sort(members, function(one, other)
      if one.pending ~= other.pending then return one.pending > other.pending end
      return one.idle < other.idle
    end)
  end
  local found = {}
  for index = 1, math.min(#members, most) do
    local member = members[index]
    found[index] = {member.name, member.pending, member.idle}
  end
  return found
end
local listed = 0
for _, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for fact = 1, #facts, 2 do group[facts[fact]] = facts[fact + 1] end
  listed = listed + 1
  if listed <= tonumber(ARGV[4]) or group.name == ARGV[3] then
    local after = redis.pcall('XRANGE', KEYS[1],
      '(' .. group['last-delivered-id'], '+', 'COUNT', 1)
    local pending = redis.call('XPENDING', KEYS[1], group['name'])
    groups[#groups + 1] = {
      group['name'], group['lag'] or false, pending[1], pending[2],
      after[1] and after[1][1] or false, consumers(group), group['consumers']}
  end
end
local about = {}
local facts = redis.call('XINFO', 'STREAM', KEYS[1])
for fact = 1, #facts, 2 do about[facts[fact]] = facts[fact + 1] end
local told = {'length', about['length'], 'entries-added', about['entries-added']}
return {redis.call('TIME'), told, groups}
""")

#: With more groups than this, the group of the processors comes first, so that it is not cut.
MANY_GROUPS: Final = 50
#: Groups of a stream, and consumers of a group, that are returned.
MAX_GROUPS: Final = 1000
MAX_CONSUMERS: Final = 100
#: Consumers that are read, of the group of the processors and of all others together: Redis takes
#: 4 ms for each 1000. Of a group that has more, none is read.
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
    """The entries that a group has not finished."""

    name: str
    undelivered: int | None
    """Entries that were not delivered to any consumer; None if Redis cannot tell."""
    pending: int
    """Entries that were delivered to a consumer and are not acknowledged."""
    oldest_age: float
    """Seconds since the oldest of all these was appended; 0 if there is none."""
    consumers: Sequence[ConsumerLag]
    """At most :data:`MAX_CONSUMERS`, those with the most pending entries first. Empty if there are
    too many to be read, see :data:`MAX_READ`."""
    consumer_count: int = field(default=Factory(lambda self: len(self.consumers), takes_self=True))
    """The number of all consumers."""

    @property
    def total(self) -> int | None:
        """Entries not yet processed; None if Redis cannot tell."""
        return None if self.undelivered is None else self.undelivered + self.pending

    def as_json(self) -> dict[str, Any]:
        """Return what is shown to people and programs; times in seconds."""
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
    """Entries that are in it now."""
    added: int
    """Entries that were ever appended to it."""
    groups: Sequence[GroupLag]
    """At most :data:`MAX_GROUPS`; the group of the processors is among them if there is one."""

    def group(self, name: str) -> GroupLag | None:
        """The group of this name."""
        return next((group for group in self.groups if group.name == name), None)


async def stream_lag(redis: RedisConnection, stream: str) -> StreamLag | None:
    """Return the lag of all groups of a stream; None if there is no such stream.

    Redis cannot always tell how many entries were not delivered to a group: not after entries were
    deleted, or the group was set to another ID. The oldest entry's age is known even then: its ID
    says when it was appended.

    :raises Refused, Unavailable: if Redis cannot be asked, or the key is not a stream.
    """
    answer = await _READ.run(redis, [stream], MAX_READ, MAX_CONSUMERS, PROCESSOR_GROUP, MAX_GROUPS)
    if answer is None:
        return None
    (seconds, microseconds), facts, groups = answer
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


def _group(now: int, row: Sequence[Any]) -> GroupLag:
    """Return a group from its row in the reply of :data:`_READ`.

    :param now: milliseconds since 1970, by Redis' clock.
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
