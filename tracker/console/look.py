"""One look at Redis: all that the console shows of it, by a bounded number of commands."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from attrs import define, field, frozen

from tracker.errors import Refused
from tracker.keys import CONNECTIONS, RESPONSES, WAITING, dead_letters, outbound
from tracker.log.allowance import size_of
from tracker.log.entries import Delivered
from tracker.log.redis.dead import DeadLetter, dead_letter
from tracker.log.redis.heartbeats import InstanceHeartbeat, heartbeats
from tracker.log.redis.lag import StreamLag, stream_lag
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import shown

#: Streams, and instances, that are read; further ones are not.
MOST_STREAMS: Final = 30
MOST_INSTANCES: Final = 200
#: Dead letters of each stream that are shown, and queued commands of each instance.
MOST_LETTERS: Final = 20
MOST_QUEUED: Final = 20
#: Bytes of all these in one look; beyond them, only their numbers are read.
LOOK_BYTES: Final = 4 << 20

T = TypeVar("T")


@frozen
class Dead:
    """The dead letters of a stream."""

    stream: str
    total: int
    latest: Sequence[DeadLetter]
    """Newest first."""


@frozen
class Look:
    """The result of one look."""

    lags: Sequence[StreamLag]
    """Lag of the existing streams of positions."""
    responses: StreamLag | None
    """Lag of the stream of responses, if it exists."""
    heartbeats: Sequence[InstanceHeartbeat]
    connected: int
    """Devices that are connected to any instance."""
    waiting: int
    """Devices that commands wait for."""
    queued: int
    """Commands that instances have not finished."""
    entries: Sequence[Delivered]
    """The first of these."""
    dead: Sequence[Dead]
    """Dead letters of the streams that have any."""
    left_out: int = 0
    """Number of streams that are not read because there are too many."""
    malformed: Mapping[str, str] = field(factory=dict)
    """Key, printable and short → what is wrong with it. The others are there all the same."""


async def look(redis: RedisConnection, configured: Iterable[str]) -> Look:
    """Read the state of all that the console shows.

    A key of the wrong type counts as empty, and is listed as malformed.

    :param configured: streams of positions, besides those that instances say they write;
        where there are too many, these go first.
    :raises Refused, Unavailable: when Redis cannot be asked.
    """
    seeing = _Seeing(redis)
    beats = await heartbeats(redis, seeing.malformed, MOST_INSTANCES)
    told = {stream for beat in beats for stream in beat.streams}
    first = set(configured)
    streams = [*sorted(first), *sorted(told - first)]
    lags, dead = [], []
    for stream in sorted(streams[:MOST_STREAMS]):
        if (lag := await seeing.lag(stream)) is not None:
            lags.append(lag)
        if (letters := await seeing.dead(stream)) is not None:
            dead.append(letters)
    queued, entries = 0, []
    for beat in beats[:MOST_INSTANCES]:
        count, these = await seeing.queued(outbound(beat.instance_id))
        queued += count
        entries += these
    return Look(
        lags,
        await seeing.lag(RESPONSES),
        beats,
        await seeing.size("HLEN", CONNECTIONS),
        await seeing.size("SCARD", WAITING),
        queued,
        entries,
        dead,
        max(0, len(streams) - MOST_STREAMS),
        seeing.malformed,
    )


@define
class _Seeing:
    """Reads from Redis, and remembers the keys of the wrong type."""

    redis: RedisConnection
    malformed: dict[str, str] = field(factory=dict)
    left: int = LOOK_BYTES
    """Bytes of entries that may still be read."""

    async def lag(self, stream: str) -> StreamLag | None:
        return await self._unless_malformed(stream, stream_lag(self.redis, stream), None)

    async def size(self, command: str, key: str) -> int:
        return await self._unless_malformed(key, self.redis.execute(command, key), 0)

    async def dead(self, stream: str) -> Dead | None:
        name = dead_letters(stream)
        if not (total := await self.size("XLEN", name)):
            return None
        letters = await self._entries(name, MOST_LETTERS, newest=True)
        return Dead(
            stream,
            total,
            [dead_letter(letter.id.encode(), letter.content or ()) for letter in letters],
        )

    async def queued(self, name: str) -> tuple[int, list[Delivered]]:
        if not (count := await self.size("XLEN", name)):
            return 0, []
        return count, await self._entries(name, MOST_QUEUED)

    async def _entries(self, name: str, count: int, newest: bool = False) -> list[Delivered]:
        if self.left <= 0:
            return []
        entries = await read_range(
            self.redis, name, "-", "+", count=count, newest=newest, size=self.left
        )
        self.left -= size_of([entry.content for entry in entries])
        return entries

    async def _unless_malformed(self, key: str, asked: Awaitable[T], otherwise: T) -> T:
        try:
            return await asked
        except Refused as error:
            if not is_wrong_type(error):
                raise
            self.malformed[shown(key)] = "wrong type"
            return otherwise
