"""A stream with a consumer group in memory, for tests of code that reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from tracker.errors import Refused, Unavailable
from tracker.log.allowance import Allowance
from tracker.log.entries import BEGINNING, StreamEntry, entry_order
from tracker.log.interfaces import IRecordReader


class MemoryStream:
    """A stream with one group. Calls return at once, except reads that wait for entries.

    :param batch: maximum number of entries of one read.
    """

    def __init__(self, clock: Clock, name: str, batch: int) -> None:
        self.clock = clock
        self.name = name
        self.batch = batch
        self.available = True
        """True while the log is connected."""
        self.idle = False
        """True if the entries of all members may be claimed."""
        self.entries: dict[str, list[bytes] | None] = {}
        """ID → alternating names and values; None: deleted."""
        self.pending: dict[str, str] = {}
        """ID → the member to which the entry was delivered."""
        self.dead: dict[str, str] = {}
        """ID → the reason why the entry became a dead letter."""
        self.kept: list[Sequence[str]] = []
        """The IDs of each call of :meth:`MemoryReader.keep`."""
        self.joined = False
        """True if the group exists."""
        self.delivered = 0
        self.waiting: list[Deferred[None]] = []
        """Reads that wait for entries."""

    def append(self, fields: dict[str, str]) -> str:
        """Append an entry, and return its ID."""
        entry_id = f"{len(self.entries) + 1}-0"
        self.entries[entry_id] = [text.encode() for pair in fields.items() for text in pair]
        self._wake()
        return entry_id

    def flush(self) -> None:
        """Remove all entries and the group."""
        self.entries.clear()
        self.pending.clear()
        self.joined, self.delivered = False, 0
        self._wake()

    @property
    def unread(self) -> int:
        """Number of undelivered entries."""
        return len(self.entries) - self.delivered

    def reader(self, name: str) -> MemoryReader:
        """Return a member of the group."""
        return MemoryReader(self, name)

    def check(self, group: bool = True) -> None:
        """Raise the error of a call in the present state, if any.

        :param group: True if the call requires the group.
        """
        if not self.available:
            raise Unavailable("not connected")
        if group and not self.joined:
            raise Refused("NOGROUP No such key")

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            deferred.callback(None)


@implementer(IRecordReader)
class MemoryReader:
    """See :class:`tracker.log.interfaces.IRecordReader`."""

    def __init__(self, stream: MemoryStream, name: str) -> None:
        self._stream = stream
        self._name = name

    def when_connected(self) -> Deferred[None]:
        return succeed(None)

    async def join(self, stream: str, after: str = BEGINNING) -> bool:
        self._stream.check(group=False)
        joined, self._stream.joined = self._stream.joined, True
        if not joined:
            self._stream.delivered = sum(
                entry_order(one) <= entry_order(after) for one in self._stream.entries
            )
        return not joined

    def allowance(self, streams: Sequence[str]) -> Allowance:
        return Allowance(streams, self._stream.batch)

    async def read(self, allowance: Allowance, wait: float = 0.0) -> list[StreamEntry]:
        self._stream.check()
        if wait and not self._stream.unread:
            await self._wait(wait)
            self._stream.check()
        found: list[StreamEntry] = []
        while (streams := allowance.open()) and self._stream.unread:
            begin, count = self._stream.delivered, allowance.step(streams)
            entries = self._entries(list(self._stream.entries)[begin : begin + count])
            allowance.take(self._stream.name, [entry.content for entry in entries])
            self._stream.delivered += len(entries)
            found += entries
        self._stream.pending |= dict.fromkeys([entry.id for entry in found], self._name)
        return found

    async def _wait(self, seconds: float) -> None:
        deferred: Deferred[None] = Deferred(self._stream.waiting.remove)
        self._stream.waiting.append(deferred)

        def time_out() -> None:
            self._stream.waiting.remove(deferred)
            deferred.callback(None)

        timer = self._stream.clock.callLater(seconds, time_out)
        try:
            await deferred
        finally:
            if timer.active():
                timer.cancel()

    async def unfinished(self, streams: Sequence[str]) -> AsyncIterator[list[StreamEntry]]:
        self._stream.check()
        ours = [one for one, name in self._stream.pending.items() if name == self._name]
        for start in range(0, len(ours), self._stream.batch):
            yield self._entries(ours[start : start + self._stream.batch])
            self._stream.check()

    async def claim_idle(self, stream: str, idle: float) -> AsyncIterator[list[StreamEntry]]:
        self._stream.check()
        pending = self._stream.pending
        kept = self._stream.kept[-1] if self._stream.kept else pending.keys()
        others = [
            one
            for one, name in pending.items()
            if self._stream.idle and (name != self._name or one not in kept)
        ]
        pending |= dict.fromkeys(others, self._name)
        if others:
            yield self._entries(others)

    async def keep(self, stream: str, entry_ids: Sequence[str]) -> None:
        self._stream.check()
        self._stream.kept.append(entry_ids)

    async def acknowledge(self, stream: str, entry_ids: Sequence[str]) -> None:
        self._stream.check(group=False)
        for one in entry_ids:
            self._stream.pending.pop(one, None)

    async def dead_letter(self, entry: StreamEntry, reason: str) -> None:
        self._stream.dead[entry.id] = reason
        await self.acknowledge(entry.stream, [entry.id])

    async def oldest_unfinished(self, stream: str) -> str | None:
        self._stream.check()
        later = list(self._stream.entries)[self._stream.delivered :]
        return min([*self._stream.pending, *later[:1]], key=entry_order, default=None)

    def _entries(self, entry_ids: Sequence[str]) -> list[StreamEntry]:
        entries = self._stream.entries
        return [StreamEntry(self._stream.name, one, entries[one]) for one in entry_ids]
