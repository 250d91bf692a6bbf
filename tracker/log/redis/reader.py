"""Reads from Redis Streams as a member of a consumer group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from tracker.errors import Refused
from tracker.log.allowance import READ_BYTES, Allowance
from tracker.log.entries import BEGINNING, StreamEntry, entry_order
from tracker.log.interfaces import IRecordReader
from tracker.log.redis.checkpointpublisher import CheckpointPublisher
from tracker.log.redis.dead import append_dead
from tracker.redis.connection import RedisConnection
from tracker.redis.replies import mapping

#: Cursor of XAUTOCLAIM at the beginning, and again at the end, of an iteration.
_CURSOR: Final = b"0-0"
#: Special ID of entries that were not yet delivered to the group.
_NEW: Final = ">"
#: After the last possible ID, Redis would read from the beginning.
_LAST_ID_BUT_ONE: Final = "18446744073709551615-18446744073709551614"


@implementer(IRecordReader)
class RedisReader:
    """One member of a consumer group of Redis.

    :param waiting: a connection for reads that wait, and for nothing else, because a waiting read
        blocks it. Its reply timeout must exceed the time of the wait.
    :param redis: a connection for all other commands.
    :param group: the consumer group.
    :param name: this member's name in the group; it must stay the same after a restart.
    :param entries: maximum number of entries of each stream in one batch.
    :param size: maximum number of bytes in one batch, of all streams together.
    :param publisher: publishes what is finished; None if the group has no checkpoint in Redis.
    """

    def __init__(
        self,
        waiting: RedisConnection,
        redis: RedisConnection,
        *,
        group: str,
        name: str,
        entries: int,
        size: int = READ_BYTES,
        publisher: CheckpointPublisher | None = None,
    ) -> None:
        self._waiting = waiting
        self._redis = redis
        self._group = group
        self._name = name
        self._entries = entries
        self._size = size
        self._publisher = publisher
        self._lengths: dict[str, float] = {}

    def when_connected(self) -> Deferred[None]:
        """See IRecordReader."""
        return Deferred.fromCoroutine(self._connected())

    async def _connected(self) -> None:
        for connection in (self._waiting, self._redis):
            await connection.when_connected()

    async def join(self, stream: str, after: str = BEGINNING) -> bool:
        """See IRecordReader."""
        created = await self._join(stream, after)
        if self._publisher is not None:
            await self._publisher.start(stream)
        return created

    async def _join(self, stream: str, after: str) -> bool:
        # Redis refuses XGROUP CREATE when it is out of memory, even if the group exists. But then
        # a member must read, so that entries can be trimmed.
        if await self._exists(stream):
            return False
        try:
            await self._redis.execute("XGROUP", "CREATE", stream, self._group, "0", "MKSTREAM")
        except Refused as error:
            if str(error).startswith("BUSYGROUP"):
                return False
            raise
        facts = mapping(await self._redis.execute("XINFO", "STREAM", stream))
        last = facts[b"last-generated-id"].decode()
        if entry_order(BEGINNING) < entry_order(after) <= entry_order(last):
            await self._redis.execute("XGROUP", "SETID", stream, self._group, after)
        return True

    async def _exists(self, stream: str) -> bool:
        try:
            return await self._facts(stream) is not None
        except Refused as error:
            if "no such key" in str(error):
                return False
            raise

    async def _facts(self, stream: str) -> dict[bytes, Any] | None:
        """Return the fields of XINFO GROUPS for the group; None if it does not exist."""
        for reply in await self._redis.execute("XINFO", "GROUPS", stream):
            facts = mapping(reply)
            if facts[b"name"] == self._group.encode():
                return facts
        return None

    def allowance(self, streams: Sequence[str]) -> Allowance:
        """See IRecordReader."""
        return Allowance(streams, self._entries, self._size, self._lengths)

    async def read(self, allowance: Allowance, wait: float = 0.0) -> list[StreamEntry]:
        """See IRecordReader."""
        if not wait:
            return await self._read(self._redis, allowance, {})
        found = await self._read(self._waiting, allowance, {}, "BLOCK", int(wait * 1000))
        if not found:
            await self._reset_idle_time(allowance.open())
        return found

    async def _reset_idle_time(self, streams: Sequence[str]) -> None:
        """Show that this member is running.

        Redis before 7.2 neither creates a consumer nor resets its idle time when it finds no entry
        for it; but it does so for a read of pending ones, here of those after the last ID but one.
        """
        call = ("XREADGROUP", "GROUP", self._group, self._name, "COUNT", 1, "STREAMS")
        await self._redis.execute(*call, *streams, *[_LAST_ID_BUT_ONE] * len(streams))

    async def unfinished(self, streams: Sequence[str]) -> AsyncIterator[list[StreamEntry]]:
        """See IRecordReader."""
        after = dict.fromkeys(streams, "0")
        while entries := await self._read(self._redis, self.allowance(streams), after):
            yield entries

    async def _read(
        self,
        redis: RedisConnection,
        allowance: Allowance,
        after: dict[str, str],
        *options: str | int,
    ) -> list[StreamEntry]:
        """Read until the allowance is used up, or all available entries are read.

        :param after: stream → ID after which this member's pending entries are read; it is
            updated. From other streams, new entries are read.
        :param options: options of the first call only.
        """
        found: list[StreamEntry] = []
        streams = allowance.open()
        while streams:
            count = allowance.step(streams)
            first = [after.get(stream, _NEW) for stream in streams]
            call = ("XREADGROUP", "GROUP", self._group, self._name, "COUNT", count, *options)
            reply = await redis.execute(*call, "STREAMS", *streams, *first)
            full = set()
            for key, entries in reply or ():
                stream = key.decode()
                read = [StreamEntry(stream, one.decode(), content) for one, content in entries]
                found += read
                allowance.take(stream, [content for _, content in entries])
                if read and stream in after:
                    after[stream] = read[-1].id
                elif read and self._publisher is not None:
                    self._publisher.read(stream, [entry.id for entry in read])
                if len(entries) >= count:
                    full.add(stream)
            # The other streams are read completely.
            streams = [stream for stream in allowance.open() if stream in full]
            options = ()
        return found

    async def claim_idle(self, stream: str, idle: float) -> AsyncIterator[list[StreamEntry]]:
        """See IRecordReader."""
        await self._reset_idle_time([stream])
        cursor = _CURSOR
        while True:
            found: list[StreamEntry] = []
            allowance = self.allowance([stream])
            while allowance.open():
                call = ("XAUTOCLAIM", stream, self._group, self._name, int(idle * 1000), cursor)
                count = allowance.step([stream])
                cursor, entries, deleted = await self._redis.execute(*call, "COUNT", count)
                # Redis has already removed deleted entries from the group's pending ones.
                claimed = [(entry_id, None) for entry_id in deleted] + entries
                found += [StreamEntry(stream, one.decode(), content) for one, content in claimed]
                allowance.take(stream, [content for _, content in claimed])
                if cursor == _CURSOR:
                    break
            if found:
                yield found
            if cursor == _CURSOR:
                return

    async def keep(self, stream: str, entry_ids: Sequence[str]) -> None:
        """See IRecordReader."""
        call = ("XCLAIM", stream, self._group, self._name, 0)
        await self._redis.execute(*call, *entry_ids, "JUSTID")

    async def acknowledge(self, stream: str, entry_ids: Sequence[str]) -> None:
        """See IRecordReader."""
        if self._publisher is None:
            await self._acknowledge(stream, entry_ids)
        else:
            acknowledge = partial(self._acknowledge, stream, entry_ids)
            await self._publisher.finished(stream, entry_ids, acknowledge)

    def _acknowledge(self, stream: str, entry_ids: Sequence[str]) -> Deferred[Any]:
        return self._redis.execute("XACK", stream, self._group, *entry_ids)

    async def dead_letter(self, entry: StreamEntry, reason: str) -> None:
        """See IRecordReader."""
        call = ("XPENDING", entry.stream, self._group, entry.id, entry.id, 1)
        pending = await self._redis.execute(*call)
        attempts = pending[0][3] if pending else 0
        await append_dead(self._redis, entry, reason, attempts)
        await self.acknowledge(entry.stream, [entry.id])

    async def oldest_unfinished(self, stream: str) -> str | None:
        """See IRecordReader."""
        count, first, _, _ = await self._redis.execute("XPENDING", stream, self._group)
        if count:
            return str(first.decode())
        facts = await self._facts(stream)
        if facts is None:
            return None
        after = "(" + facts[b"last-delivered-id"].decode()
        found = await self._redis.execute("XRANGE", stream, after, "+", "COUNT", 1)
        return found[0][0].decode() if found else None
