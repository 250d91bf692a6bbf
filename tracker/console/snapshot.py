"""A snapshot of the data in Redis that the console shows, by a bounded number of commands."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, TypeVar

from attrs import define, field, frozen

from tracker.command import is_device_id
from tracker.errors import Refused, Unavailable
from tracker.keys import (
    CONNECTIONS,
    RESPONSES,
    WAITING,
    checkpoint,
    dead_letters,
    outbound,
    waiting_commands,
)
from tracker.log.allowance import size_of
from tracker.log.entries import StreamEntry
from tracker.log.redis.checkpoint import find_skipped
from tracker.log.redis.dead import DeadLetter, dead_letter
from tracker.log.redis.heartbeats import InstanceHeartbeat, heartbeats
from tracker.log.redis.lag import StreamLag, stream_lag
from tracker.log.redis.ranges import read_range
from tracker.log.redis.stranded import StrandedStream
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import shown

#: Maximum number of streams, and of instances, that are read.
MAX_STREAMS: Final = 30
MAX_INSTANCES: Final = 200
#: Maximum number of dead letters per stream, and of queued commands per instance.
MAX_LETTERS: Final = 20
MAX_QUEUED: Final = 20
#: Maximum number of devices whose waiting commands are read, and of commands per device.
MAX_WAITING_DEVICES: Final = 20
MAX_WAITING: Final = 5
#: Maximum size of these entries in a snapshot, in bytes; further ones are only counted.
MAX_SNAPSHOT_BYTES: Final = 4 << 20

T = TypeVar("T")

_REFUSED: Final = "Redis refused a command; see the console's log"


class Part(StrEnum):
    """A part of the overview that may be unknown."""

    INSTANCES = "instances"
    LAG = "lag"
    DEAD = "dead"
    CONNECTED = "connected"
    QUEUED = "queued"
    WAITING = "waiting"
    COMMANDS = "commands"


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
    connected: int | None
    """Number of connected devices; None if unknown."""
    waiting: int | None
    """Number of devices that commands wait for; None if unknown."""
    queued: int | None
    """Number of commands that instances have not finished; None if unknown."""
    entries: Sequence[StreamEntry]
    """The first entries of these commands, and of some that wait for their devices."""
    dead: Sequence[DeadLetters]
    """Dead letters of the streams that have any."""
    left_out: int = 0
    """Number of streams beyond :data:`MAX_STREAMS`, which are left out."""
    malformed: Mapping[str, str] = field(factory=dict)
    """Malformed key, shortened and printable → reason."""
    unknown: Mapping[Part, str] = field(factory=dict)
    """Part that is not known, or not completely → reason for the user."""
    refused: str = ""
    """Error of the first command that Redis refused for another reason than a key's type."""
    stranded: Sequence[StrandedStream] = ()
    """Streams that no processor reads and no instance writes; at most :data:`MAX_STREAMS`."""
    skipped: Mapping[str, int | None] = field(factory=dict)
    """Stream → number of its entries that processors skipped; None: it is not known."""


async def take_snapshot(
    redis: RedisConnection,
    configured: Iterable[str],
    stranded: Sequence[StrandedStream] | None = (),
) -> Snapshot:
    """Read all data of a sample.

    A part that Redis refuses to read is unknown; the other parts are complete. A key of the wrong
    type is also listed as malformed.

    :param configured: streams of positions, in addition to those that instances advertise. Of more
        than :data:`MAX_STREAMS`, the configured ones are read first.
    :param stranded: the last known stranded streams; None: they are not known yet.
    :raises Unavailable: if Redis is not available.
    """
    reader = _SnapshotReader(redis)
    living = await reader.heartbeats()
    advertised = {stream for heartbeat in living for stream in heartbeat.streams}
    first = set(configured)
    streams = [*sorted(first), *sorted(advertised - first)]
    if stranded is None:
        reader.unknown[Part.LAG] = "stranded streams are not known yet"
    others = [one for one in stranded or () if one.name not in advertised]
    lags, dead = [], []
    skipped: dict[str, int | None] = {}
    for stream in sorted(streams[:MAX_STREAMS]):
        if (lag := await reader.lag(Part.LAG, stream)) is not None:
            lags.append(lag)
            skipped[stream] = await reader.skipped(stream)
        if (letters := await reader.dead(stream)) is not None:
            dead.append(letters)
    if (letters := await reader.dead(RESPONSES)) is not None:
        dead.append(letters)
    queued, entries = 0, []
    for heartbeat in living[:MAX_INSTANCES]:
        count, these = await reader.queued(outbound(heartbeat.instance_id))
        queued += count
        entries += these
    entries += await reader.waiting_entries()
    return Snapshot(
        lags=lags,
        responses=await reader.lag(Part.COMMANDS, RESPONSES),
        heartbeats=living,
        connected=await reader.size(Part.CONNECTED, "HLEN", CONNECTIONS, "a hash"),
        waiting=await reader.size(Part.WAITING, "SCARD", WAITING, "a set"),
        queued=None if Part.QUEUED in reader.unknown else queued,
        entries=entries,
        dead=dead,
        left_out=max(0, len(streams) - MAX_STREAMS) + max(0, len(others) - MAX_STREAMS),
        malformed=reader.malformed,
        unknown=reader.unknown,
        refused=reader.refused,
        stranded=others[:MAX_STREAMS],
        skipped=skipped,
    )


@define
class _SnapshotReader:
    """Reader of a snapshot, which collects the keys of the wrong type, and what is unknown."""

    redis: RedisConnection
    malformed: dict[str, str] = field(factory=dict)
    unknown: dict[Part, str] = field(factory=dict)
    refused: str = ""
    left: int = MAX_SNAPSHOT_BYTES
    """Bytes of entries that may still be read."""

    async def heartbeats(self) -> list[InstanceHeartbeat]:
        try:
            return await heartbeats(self.redis, self.malformed, MAX_INSTANCES)
        except Refused as error:
            # Heartbeats also name the streams, and the instances that have queued commands.
            self.refused = str(error)
            parts = (Part.INSTANCES, Part.LAG, Part.DEAD, Part.QUEUED)
            self.unknown.update(dict.fromkeys(parts, _REFUSED))
            return []

    async def lag(self, part: Part, stream: str) -> StreamLag | None:
        return await self._read(part, stream, stream_lag(self.redis, stream), "a stream")

    async def skipped(self, stream: str) -> int | None:
        # The lag is known even if the checkpoint cannot be read, which doctor reports.
        try:
            found = await find_skipped(self.redis, stream, thorough=False)
        except Refused as error:
            if is_wrong_type(error):
                self.malformed[shown(checkpoint(stream))] = "not a sorted set"
            return None
        return None if found.committed is None else found.entries

    async def size(self, part: Part, command: str, key: str, kind: str) -> int | None:
        return await self._read(part, key, self.redis.execute(command, key), kind)

    async def dead(self, stream: str) -> DeadLetters | None:
        name = dead_letters(stream)
        if not (total := await self.size(Part.DEAD, "XLEN", name, "a stream")):
            return None
        letters = await self._entries(Part.DEAD, name, MAX_LETTERS, newest=True)
        return DeadLetters(
            stream,
            total,
            [dead_letter(letter.id.encode(), letter.content or ()) for letter in letters],
        )

    async def queued(self, name: str) -> tuple[int, list[StreamEntry]]:
        if not (count := await self.size(Part.QUEUED, "XLEN", name, "a stream")):
            return 0, []
        return count, await self._entries(Part.QUEUED, name, MAX_QUEUED)

    async def waiting_entries(self) -> list[StreamEntry]:
        """Return the first commands that wait for some of the devices."""
        reading = self.redis.execute("SSCAN", WAITING, 0, "COUNT", MAX_WAITING_DEVICES)
        found = await self._read(Part.WAITING, WAITING, reading, "a set")
        entries = []
        for device in found[1][:MAX_WAITING_DEVICES] if found else []:
            device_id = device.decode(errors="replace")
            if is_device_id(device_id):
                # A key of the wrong type for one device leaves the number of devices known.
                entries += await self._entries(None, waiting_commands(device_id), MAX_WAITING)
        return entries

    async def _entries(
        self, part: Part | None, name: str, count: int, newest: bool = False
    ) -> list[StreamEntry]:
        if self.left <= 0:
            return []
        reading = read_range(self.redis, name, "-", "+", count=count, newest=newest, size=self.left)
        entries = await self._read(part, name, reading, "a stream") or []
        self.left -= size_of([entry.content for entry in entries])
        return entries

    async def _read(self, part: Part | None, key: str, read: Awaitable[T], kind: str) -> T | None:
        """Return what was read; None if Redis refused it, and the part, if any, is then unknown."""
        try:
            return await read
        except Refused as error:
            if is_wrong_type(error):
                self.malformed[shown(key)] = f"not {kind}"
            else:
                self.refused = self.refused or str(error)
            if part is not None:
                self.unknown.setdefault(part, unknown_reason(error, key, kind))
            return None


def unknown_reason(error: Refused | Unavailable, key: str, kind: str) -> str:
    """Return the reason, for the user, why data in a key are unknown.

    :param kind: what the key should be, such as ``a stream``.
    """
    if isinstance(error, Unavailable):
        return "Redis is not available; see the console's log"
    if is_wrong_type(error):
        return f"{shown(key)} is not {kind}: rename or delete it"
    return _REFUSED
