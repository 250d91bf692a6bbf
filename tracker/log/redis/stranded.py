"""Search for streams of positions that no processor reads, under any name.

After the name of a stream was corrected, no instance advertises the wrong one. The stream is then
found among all keys of Redis, by its content: one of its first or last entries has the fields of a
position. Redis iterates over its keys in small steps and is never blocked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from typing import Any, Final

from attrs import define, field, frozen
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tracker.durations import age
from tracker.errors import Refused, Unavailable
from tracker.keys import COMMANDS_PREFIX, PROCESSOR_GROUP, dead_letters
from tracker.log.redis.heartbeats import is_stream_name
from tracker.log.redis.lag import GroupLag, stream_lag
from tracker.log.redis.lagmetrics import LIVE_TIMEOUT
from tracker.observe.figures import gauge
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_foreign_key, is_wrong_type
from tracker.redis.script import Script
from tracker.redis.timer import RedisTimer
from tracker.untrusted import shown
from tracker.wording import counted

#: Seconds between two searches.
SEARCH_INTERVAL: Final = 60.0
#: Seconds of one search; the next one continues where it ended.
SEARCH_SECONDS: Final = 5.0

#: Maximum number of streams that a search reports; those with the most entries come first.
MAX_STREAMS: Final = 1000
#: Maximum number of stranded streams that have metrics, and are logged.
MAX_LABELLED: Final = 50

#: Number of keys for one step of SCAN, which takes Redis some 0.3 ms.
_SCAN_COUNT: Final = 1000
#: Fields of an entry that are compared with those of a position.
_MAX_FIELDS: Final = 64
#: Entries at each end of a stream that are examined. Any client may have appended another one.
_EXAMINED: Final = 3
_MAX_FOREIGN: Final = 10_000
_DEAD_SUFFIX: Final = dead_letters("")

# KEYS: a stream. ARGV: maximum number of fields to compare; entries to examine at each end. Returns
# whether one of these looks like a position (without its content, which may be long), the number of
# entries, the first ID and the time; false if the stream is empty.
_SHAPE: Final = Script("""\
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])
if not first[1] then return false end
local function has_position(entries)
  for _, entry in ipairs(entries) do
    local seen = {}
    for at = 1, math.min(#entry[2], 2 * tonumber(ARGV[1])), 2 do seen[entry[2][at]] = true end
    if seen.ts and seen.device_id and seen.codec and seen.payload and not seen._id then
      return true
    end
  end
end
local shaped = has_position(first)
  or has_position(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[2]))
return {shaped and 1 or 0, redis.call('XLEN', KEYS[1]), first[1][1], redis.call('TIME')}
""")


@frozen
class FoundStream:
    """A stream of positions, or of their dead letters."""

    name: str
    entries: int
    oldest_age: float
    """Seconds since the first entry was appended."""

    @property
    def is_dead(self) -> bool:
        """True for dead letters."""
        return self.name.endswith(_DEAD_SUFFIX)


@frozen
class StrandedStream:
    """A stream of positions whose entries no processor reads."""

    name: str
    entries: int | None
    """Number of entries that no processor has finished; None if Redis does not report it."""
    oldest_age: float
    """Seconds since the oldest of these was appended."""

    def described(self) -> str:
        """Return the number and the age of the entries as text."""
        count = (
            "an unknown number of entries"
            if self.entries is None
            else counted(self.entries, "entry", "entries")
        )
        return f"{count}, the oldest {age(self.oldest_age)} old"


@define
class StreamSearch:
    """Search among all keys of Redis, which may take several calls."""

    redis: RedisConnection
    clock: IReactorTime
    streams: dict[str, FoundStream] = field(factory=dict)
    """The streams that were found by the current or last search; at most :data:`MAX_STREAMS`."""
    left_out: int = 0
    """Number of streams beyond that."""
    _cursor: bytes = b"0"
    _foreign: set[bytes] = field(factory=set)
    """Keys that the user may not access; Redis writes each attempt to its ACL LOG."""

    async def proceed(self, seconds: float) -> bool:
        """Search for some seconds; return True if all keys were examined.

        Otherwise the next call continues. After a complete search it begins another one.

        :raises Refused: if Redis refuses to list its keys.
        :raises Unavailable: if Redis is down.
        """
        deadline = self.clock.seconds() + seconds
        if self._cursor == b"0":
            self.streams, self.left_out = {}, 0
        while True:
            options = ("COUNT", _SCAN_COUNT, "TYPE", "stream")
            self._cursor, keys = await self.redis.execute("SCAN", self._cursor, *options)
            for key in keys:
                if key not in self._foreign and (found := await self._examined(key)) is not None:
                    self.streams[found.name] = found
            self._limit()
            if self._cursor == b"0":
                return True
            if self.clock.seconds() >= deadline:
                return False

    async def _examined(self, key: bytes) -> FoundStream | None:
        try:
            return await examine(self.redis, key)
        except Refused as error:
            if not is_foreign_key(error):
                raise
            if len(self._foreign) < _MAX_FOREIGN:
                self._foreign.add(key)
            return None

    def _limit(self) -> None:
        left_out = len(self.streams) - MAX_STREAMS
        if left_out > 0:
            largest = nlargest(MAX_STREAMS, self.streams.values(), key=lambda one: one.entries)
            self.streams = {one.name: one for one in largest}
            self.left_out += left_out


async def examine(redis: RedisConnection, key: bytes) -> FoundStream | None:
    """Return a stream of positions or dead letters; None if the key is something else, or empty.

    :raises Refused: if the user may not access the key, or not run scripts.
    :raises Unavailable: if Redis is down.
    """
    try:
        name = key.decode()
    except UnicodeDecodeError:
        return None  # no ingest instance can write a stream of such a name
    if name.startswith(COMMANDS_PREFIX) or not is_stream_name(name):
        return None
    try:
        reply = await _SHAPE.run(redis, [name], _MAX_FIELDS, _EXAMINED)
    except Refused as error:
        if not is_wrong_type(error):
            raise
        return None
    if reply is None:
        return None
    is_position, entries, first_id, (seconds, microseconds) = reply
    now = int(seconds) * 1000 + int(microseconds) // 1000
    # A client may choose an ID in the future.
    age = max(0, now - int(first_id.partition(b"-")[0])) / 1000
    found = FoundStream(name, entries, age)
    return found if is_position or found.is_dead else None


async def stranded(
    redis: RedisConnection, found: Iterable[FoundStream], configured: Collection[str]
) -> list[StrandedStream]:
    """Return the stranded ones among some streams, those with the oldest entries first.

    A stream is stranded if it has no group ``processor``, or has entries that the group has not
    finished and no live consumer.

    :param configured: streams that are never stranded, because processors with this configuration
        read them.
    :raises Unavailable: if Redis is down.
    """
    result = []
    for stream in found:
        if not stream.is_dead and stream.name not in configured:
            try:
                lag = await stream_lag(redis, stream.name)
            except Refused as error:
                if not is_wrong_type(error):
                    raise
                continue  # it was replaced by a key of another type meanwhile
            if lag is None:
                continue
            group = lag.group(PROCESSOR_GROUP)
            if group is None:
                result.append(StrandedStream(stream.name, lag.entries, stream.oldest_age))
            elif is_stranded(group):
                result.append(StrandedStream(stream.name, group.total, group.oldest_age))
    return sorted(result, key=lambda one: (-one.oldest_age, one.name))


def is_stranded(group: GroupLag) -> bool:
    """Return True if the group has unfinished entries and no live consumer."""
    return group.total != 0 and not has_live_consumer(group)


def has_live_consumer(group: GroupLag) -> bool:
    """Return True if a consumer has tried to read lately, or if there are too many to know."""
    if group.consumer_count and not group.consumers:
        return True
    return any(consumer.idle < LIVE_TIMEOUT for consumer in group.consumers)


class StrandedStreams(RedisTimer):
    """Service that searches for stranded streams every minute.

    While Redis is down, the last result is kept, and the metrics have no values.

    :param configured: streams that processors with this configuration read.
    :param metrics_registry: the registry to which the metrics are added; None: no metrics, and
        nothing is logged.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        configured: Iterable[str],
        *,
        metrics_registry: CollectorRegistry | None = None,
    ) -> None:
        super().__init__(clock, redis, SEARCH_INTERVAL, self._proceed)
        self.streams: Sequence[StrandedStream] | None = None
        """The result of the last complete search; None before the first one."""
        self._redis = redis
        self._configured = frozenset(configured)
        self._search = StreamSearch(redis, clock)
        self._logged: Mapping[str, Any] | None = None if metrics_registry is None else {}
        if metrics_registry is not None:
            metrics_registry.register(self)

    async def _proceed(self) -> None:
        try:
            if await self._search.proceed(SEARCH_SECONDS):
                found = self._search.streams.values()
                self.streams = await stranded(self._redis, found, self._configured)
                self._report(self.streams)
        except Unavailable:
            return  # the connection reports the outage, and the next search follows
        except Refused as error:
            self._log.warn("search for stranded streams failed: {error}", error=error)
        except Exception:  # noqa: BLE001 - an exception would stop the timer for good
            self._log.failure("search for stranded streams failed")

    def _report(self, streams: Sequence[StrandedStream]) -> None:
        """Log the streams that were not stranded before."""
        if self._logged is None:
            return
        logged, self._logged = self._logged, {one.name: one for one in streams[:MAX_LABELLED]}
        for name, one in self._logged.items():
            if name not in logged:
                self._log.warn(
                    "{stream}: no processor reads it ({entries}). Run tracker-admin streams list.",
                    stream=shown(name),
                    entries=one.described(),
                )

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by Prometheus' client at each scrape."""
        count = gauge("tracker_stranded_streams", "Streams of positions that no processor reads.")
        entries = gauge(
            "tracker_stranded_entries",
            "Entries of the stream that no processor reads; absent if Redis does not report them.",
            "stream",
        )
        age = gauge(
            "tracker_stranded_oldest_age_seconds",
            "Age of the oldest entry of the stream that no processor reads.",
            "stream",
        )
        streams = self.streams
        if streams is not None and self._redis.connected:
            count.add_metric([], len(streams))
            for one in streams[:MAX_LABELLED]:
                if one.entries is not None:
                    entries.add_metric([one.name], one.entries)
                age.add_metric([one.name], one.oldest_age)
        yield from (count, entries, age)
