"""The stream of responses and its group, in memory, as far as the bridge asks for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tracker.redis.connection import Refused

Pair = tuple[bytes, list[bytes]]


class FakeStream(FakeRedis):
    """Redis with the stream of responses; it stands for two connections."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(
            answers={
                "XINFO": self._xinfo,
                "XGROUP": self._xgroup,
                "XREADGROUP": self._xreadgroup,
                "XAUTOCLAIM": self._xautoclaim,
                "XCLAIM": self._xclaim,
                "XACK": self._xack,
            }
        )
        self._clock = clock
        self.entries: dict[str, list[bytes]] = {}
        self.pending: dict[str, str] = {}
        """Entry → the consumer that has it."""
        self.claimed: list[tuple[Any, ...]] = []
        """What was asked to be kept."""
        self.idle = False
        """Whether others have been idle for long."""
        self._made = False
        self._read = 0
        self._reading: list[tuple[str, int, Deferred[Any]]] = []

    def add(self, command_id: str, status: str, **fields: str) -> str:
        """Append a response; its entry."""
        entry_id = f"{len(self.entries) + 1}-0"
        content = {"command_id": command_id, "instance_id": "one", "status": status}
        content |= {"at": "2026-11-22T10:00:00.000Z"} | fields
        self.entries[entry_id] = [text.encode() for pair in content.items() for text in pair]
        for consumer, count, reading in self._reading[:]:
            self._reading.remove((consumer, count, reading))
            reading.callback(self._new(consumer, count))
        return entry_id

    def flush(self) -> None:
        """All is gone, and the group."""
        self.entries.clear()
        self.pending.clear()
        self._made, self._read = False, 0
        reading, self._reading = self._reading, []
        for _, _, deferred in reading:
            deferred.errback(Refused("NOGROUP No such key"))

    @property
    def unread(self) -> int:
        return len(self.entries) - self._read

    def _xinfo(self, what: str, stream: str) -> Any:
        if what == "STREAM":
            return [b"last-generated-id", b"0-0"]
        if not self._made:
            raise Refused("ERR no such key")
        return [[b"name", b"directus"]]

    def _xgroup(self, *_: Any) -> bytes:
        self._made = True
        return b"OK"

    def _xreadgroup(self, _: str, group: str, consumer: str, *more: Any) -> Any:
        if not self._made:
            raise Refused("NOGROUP No such key")
        count, after = more[1], more[-1]
        if after != ">":
            beyond = int(after.partition("-")[0])
            ours = [one for one, who in self.pending.items() if who == consumer]
            return self._pairs([one for one in ours if int(one[:-2]) > beyond][:count])
        if self.unread:
            return self._new(consumer, count)
        reading: Deferred[Any] = Deferred(
            lambda this: self._reading.remove((consumer, count, this))
        )
        self._reading.append((consumer, count, reading))
        overdue = self._clock.callLater(more[3] / 1000, self._end, consumer, count, reading)

        def in_time(answer: Any) -> Any:
            if overdue.active():
                overdue.cancel()
            return answer

        return reading.addBoth(in_time)

    def _end(self, consumer: str, count: int, reading: Deferred[Any]) -> None:
        self._reading.remove((consumer, count, reading))
        reading.callback(None)

    def _new(self, consumer: str, count: int) -> Any:
        found = list(self.entries)[self._read : self._read + count]
        self._read += len(found)
        self.pending |= dict.fromkeys(found, consumer)
        return self._pairs(found)

    def _pairs(self, entry_ids: list[str]) -> Any:
        return [(b"commands:responses", [(one.encode(), self.entries[one]) for one in entry_ids])]

    def _xautoclaim(self, stream: str, group: str, consumer: str, *_: Any) -> Any:
        if not self._made:
            raise Refused("NOGROUP No such key")
        others = [one for one, who in self.pending.items() if self.idle and who != consumer]
        self.pending |= dict.fromkeys(others, consumer)
        return [b"0-0", [(one.encode(), self.entries[one]) for one in others], []]

    def _xclaim(self, *arguments: Any) -> Any:
        self.claimed.append(arguments[4:-1])
        return []

    def _xack(self, stream: str, group: str, *entry_ids: str) -> int:
        for one in entry_ids:
            self.pending.pop(one, None)
        return len(entry_ids)
