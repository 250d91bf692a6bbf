"""How far the consumer groups of a stream are behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import Factory, field, frozen

from tracker.keys import PROCESSOR_GROUP
from tracker.streams.connection import RedisConnection
from tracker.streams.script import Script
from tracker.untrusted import shown

# One script, so that all figures are of one moment, by the clock that made the entries'
# IDs, and no entry's fields travel: XINFO STREAM has those of the first and the last one.
# After the largest ID there can be none (pcall).
_READ: Final = Script("""\
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local groups = {}
for index, facts in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for fact = 1, #facts, 2 do group[facts[fact]] = facts[fact + 1] end
  local after = redis.pcall('XRANGE', KEYS[1],
    '(' .. group['last-delivered-id'], '+', 'COUNT', 1)
  groups[index] = {
    group['name'], group['lag'] or false, redis.call('XPENDING', KEYS[1], group['name']),
    after[1] and after[1][1] or false,
    redis.call('XINFO', 'CONSUMERS', KEYS[1], group['name'])}
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


@frozen
class ConsumerLag:
    """A member of a group."""

    name: str
    pending: int
    """Entries that it was given and has not acknowledged."""
    idle: float
    """Seconds since it last asked for entries."""


@frozen
class GroupLag:
    """What a group has not finished."""

    name: str
    undelivered: int | None
    """Entries that no consumer was given yet; None where Redis cannot tell."""
    pending: int
    """Entries that were given to a consumer and are not acknowledged."""
    oldest_age: float
    """Seconds since the oldest of all these was appended; 0 where there is none."""
    consumers: Sequence[ConsumerLag]
    """At most :data:`MAX_CONSUMERS`; if there are more, those with the most pending entries."""
    consumer_count: int = field(default=Factory(lambda self: len(self.consumers), takes_self=True))
    """The number of all consumers."""

    @property
    def total(self) -> int | None:
        """Entries not yet processed; None where Redis cannot tell."""
        return None if self.undelivered is None else self.undelivered + self.pending

    def as_json(self) -> dict[str, Any]:
        """What of it is shown, to people and programs alike; times in seconds."""
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
    """A stream, and how far each of its groups is."""

    stream: str
    entries: int
    """That are in it now."""
    added: int
    """That were ever appended to it."""
    groups: Sequence[GroupLag]
    """At most :data:`MAX_GROUPS`; the group of the processors is among them if there is one."""

    def group(self, name: str) -> GroupLag | None:
        """The group of this name."""
        return next((group for group in self.groups if group.name == name), None)


async def stream_lag(redis: RedisConnection, stream: str) -> StreamLag | None:
    """Where all groups of a stream are; None while there is no such stream.

    Redis cannot always tell how many entries a group was not given yet: after entries
    were deleted, or the group was set to another place. The oldest entry's age is known
    even then: its ID says when it was appended.

    :raises Refused, Unavailable: when Redis cannot be asked, or the key is no stream.
    """
    answer = await _READ.run(redis, [stream])
    if answer is None:
        return None
    (seconds, microseconds), facts, groups = answer
    now = int(seconds) * 1000 + int(microseconds) // 1000
    about = _facts(facts)
    if len(groups) > MANY_GROUPS:
        groups.sort(key=lambda group: group[0] != PROCESSOR_GROUP.encode())
    return StreamLag(
        stream,
        about[b"length"],
        about[b"entries-added"],
        [_group(now, *group) for group in groups[:MAX_GROUPS]],
    )


def _group(
    now: int,
    name: bytes,
    undelivered: int | None,
    pending: Sequence[Any],
    next_id: bytes | None,
    consumers: Sequence[Sequence[Any]],
) -> GroupLag:
    count, first_pending, *_ = pending
    unprocessed = [_milliseconds(one) for one in (first_pending, next_id) if one is not None]
    members = [_consumer(_facts(facts)) for facts in consumers]
    if len(members) > MAX_CONSUMERS:
        members.sort(key=lambda member: (-member.pending, member.idle))
    return GroupLag(
        shown(name),
        undelivered,
        count,
        # Whoever appends may choose an ID of the future.
        max(0, now - min(unprocessed, default=now)) / 1000,
        members[:MAX_CONSUMERS],
        len(consumers),
    )


def _consumer(facts: Mapping[bytes, Any]) -> ConsumerLag:
    return ConsumerLag(shown(facts[b"name"]), facts[b"pending"], facts[b"idle"] / 1000)


def _milliseconds(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _facts(reply: Sequence[Any]) -> dict[bytes, Any]:
    """Redis' alternating names and values."""
    return dict(zip(reply[::2], reply[1::2], strict=True))
