"""One look at Redis: all that the console shows of it, in a bounded number of questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import frozen

from tracker.keys import CONNECTIONS, RESPONSES, WAITING, dead_letters, outbound
from tracker.streams.advertised import Beat, heartbeats
from tracker.streams.connection import RedisConnection, Refused
from tracker.streams.dead import DeadLetter, dead_letter
from tracker.streams.groups import Delivered, read_range
from tracker.streams.lag import StreamLag, stream_lag

#: Streams, and instances, that are looked at; those beyond it are not.
MOST_STREAMS: Final = 30
MOST_INSTANCES: Final = 200
#: Dead letters of each stream that are shown, and queued commands of each instance.
MOST_LETTERS: Final = 20
MOST_QUEUED: Final = 20


@frozen
class Dead:
    """The dead letters of a stream."""

    stream: str
    total: int
    latest: Sequence[DeadLetter]
    """Newest first."""


@frozen
class Look:
    """What there was to see."""

    lags: Sequence[StreamLag]
    """Of the streams of positions that there are."""
    responses: StreamLag | None
    """Of the stream of what became of commands, if it is there."""
    beats: Sequence[Beat]
    connected: int
    """Devices that are connected to any instance."""
    waiting: int
    """Devices that commands wait for."""
    queued: int
    """Commands that instances have not finished."""
    entries: Sequence[Delivered]
    """The first of these."""
    dead: Sequence[Dead]
    """Streams that have any."""
    left_out: int = 0
    """Streams that are not looked at, as there are too many."""


async def look(redis: RedisConnection, configured: Iterable[str]) -> Look:
    """See how everything is.

    :param configured: streams of positions, besides those that instances say they write;
        where there are too many, these go first.
    :raises Refused, Unavailable: when Redis cannot be asked.
    """
    beats = await heartbeats(redis)
    told = {stream for beat in beats for stream in beat.streams}
    first = set(configured)
    streams = [*sorted(first), *sorted(told - first)]
    lags, dead = [], []
    for stream in sorted(streams[:MOST_STREAMS]):
        if (lag := await _lag(redis, stream)) is not None:
            lags.append(lag)
        if total := await redis.execute("XLEN", dead_letters(stream)):
            dead.append(Dead(stream, total, await _latest_dead(redis, stream)))
    queued, entries = 0, []
    for beat in beats[:MOST_INSTANCES]:
        name = outbound(beat.instance_id)
        if count := await redis.execute("XLEN", name):
            queued += count
            entries += await read_range(redis, name, "-", "+", MOST_QUEUED)
    return Look(
        lags,
        await _lag(redis, RESPONSES),
        beats,
        await redis.execute("HLEN", CONNECTIONS),
        await redis.execute("SCARD", WAITING),
        queued,
        entries,
        dead,
        max(0, len(streams) - MOST_STREAMS),
    )


async def _latest_dead(redis: RedisConnection, stream: str) -> list[DeadLetter]:
    name = dead_letters(stream)
    letters = await read_range(redis, name, "-", "+", MOST_LETTERS, newest=True)
    return [dead_letter(letter.id.encode(), letter.content or ()) for letter in letters]


async def _lag(redis: RedisConnection, stream: str) -> StreamLag | None:
    try:
        return await stream_lag(redis, stream)
    except Refused as error:
        if str(error).startswith("WRONGTYPE"):
            return None  # somebody else's key has this name
        raise
