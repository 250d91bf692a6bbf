"""A snapshot of the data in Redis that the console shows, by a bounded number of commands."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from attrs import define, field, frozen

from tracker.errors import Refused
from tracker.keys import CONNECTIONS, RESPONSES, WAITING, dead_letters, outbound
from tracker.log.allowance import size_of
from tracker.log.entries import StreamEntry
from tracker.log.redis.dead import DeadLetter, dead_letter
from tracker.log.redis.heartbeats import InstanceHeartbeat, heartbeats
from tracker.log.redis.lag import StreamLag, stream_lag
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import shown

#: Maximum number of streams, and of instances, that are read.
MAX_STREAMS: Final = 30
MAX_INSTANCES: Final = 200
#: Maximum number of dead letters per stream, and of queued commands per instance.
MAX_LETTERS: Final = 20
MAX_QUEUED: Final = 20
#: Maximum size of these entries in a snapshot, in bytes; further ones are only counted.
MAX_SNAPSHOT_BYTES: Final = 4 << 20

T = TypeVar("T")


@frozen
class DeadLetters:
    """The dead letters of a stream."""

    stream: str
    total: int
    latest: Sequence[DeadLetter]
    """Newest first."""


@frozen
class Snapshot:
    """The data of one sample."""

    lags: Sequence[StreamLag]
    """Lag of the existing streams of positions."""
    responses: StreamLag | None
    """Lag of the stream of responses, if it exists."""
    heartbeats: Sequence[InstanceHeartbeat]
    connected: int
    """Number of connected devices."""
    waiting: int
    """Number of devices that commands wait for."""
    queued: int
    """Number of commands that instances have not finished."""
    entries: Sequence[StreamEntry]
    """The first entries of these commands."""
    dead: Sequence[DeadLetters]
    """Dead letters of the streams that have any."""
    left_out: int = 0
    """Number of streams beyond :data:`MAX_STREAMS`, which are not read."""
    malformed: Mapping[str, str] = field(factory=dict)
    """Malformed key, shortened and printable → reason."""


async def take_snapshot(redis: RedisConnection, configured: Iterable[str]) -> Snapshot:
    """Read all data of a sample.

    A key of the wrong type counts as empty, and is listed as malformed.

    :param configured: streams of positions, in addition to those that instances advertise. Of more
        than :data:`MAX_STREAMS`, the configured ones are read first.
    :raises Refused: if Redis refuses a command.
    :raises Unavailable: if Redis is not available.
    """
    reader = _SnapshotReader(redis)
    living = await heartbeats(redis, reader.malformed, MAX_INSTANCES)
    advertised = {stream for heartbeat in living for stream in heartbeat.streams}
    first = set(configured)
    streams = [*sorted(first), *sorted(advertised - first)]
    lags, dead = [], []
    for stream in sorted(streams[:MAX_STREAMS]):
        if (lag := await reader.lag(stream)) is not None:
            lags.append(lag)
        if (letters := await reader.dead(stream)) is not None:
            dead.append(letters)
    queued, entries = 0, []
    for heartbeat in living[:MAX_INSTANCES]:
        count, these = await reader.queued(outbound(heartbeat.instance_id))
        queued += count
        entries += these
    return Snapshot(
        lags,
        await reader.lag(RESPONSES),
        living,
        await reader.size("HLEN", CONNECTIONS),
        await reader.size("SCARD", WAITING),
        queued,
        entries,
        dead,
        max(0, len(streams) - MAX_STREAMS),
        reader.malformed,
    )


@define
class _SnapshotReader:
    """Reader of a snapshot, which collects the keys of the wrong type."""

    redis: RedisConnection
    malformed: dict[str, str] = field(factory=dict)
    left: int = MAX_SNAPSHOT_BYTES
    """Bytes of entries that may still be read."""

    async def lag(self, stream: str) -> StreamLag | None:
        return await self._unless_malformed(stream, stream_lag(self.redis, stream), None)

    async def size(self, command: str, key: str) -> int:
        return await self._unless_malformed(key, self.redis.execute(command, key), 0)

    async def dead(self, stream: str) -> DeadLetters | None:
        name = dead_letters(stream)
        if not (total := await self.size("XLEN", name)):
            return None
        letters = await self._entries(name, MAX_LETTERS, newest=True)
        return DeadLetters(
            stream,
            total,
            [dead_letter(letter.id.encode(), letter.content or ()) for letter in letters],
        )

    async def queued(self, name: str) -> tuple[int, list[StreamEntry]]:
        if not (count := await self.size("XLEN", name)):
            return 0, []
        return count, await self._entries(name, MAX_QUEUED)

    async def _entries(self, name: str, count: int, newest: bool = False) -> list[StreamEntry]:
        if self.left <= 0:
            return []
        entries = await read_range(
            self.redis, name, "-", "+", count=count, newest=newest, size=self.left
        )
        self.left -= size_of([entry.content for entry in entries])
        return entries

    async def _unless_malformed(self, key: str, read: Awaitable[T], otherwise: T) -> T:
        try:
            return await read
        except Refused as error:
            if not is_wrong_type(error):
                raise
            self.malformed[shown(key)] = "wrong type"
            return otherwise
