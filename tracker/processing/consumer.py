"""Takes entries from the streams and acknowledges them once the sink has committed them.

Every turn of the loop is safe to repeat: an entry that was committed but not yet
acknowledged when the process died is delivered again, and the sink leaves what it
has alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tracker.interfaces import Batch, IPositionSink, SinkUnusable, StoredPosition
from tracker.keys import PROCESSOR_GROUP, dead_letters
from tracker.lifecycle import Abort
from tracker.observe.ratelimit import RateLimit
from tracker.position import BadEntry, Position, digest
from tracker.streams.connection import RedisConnection, Refused, Unavailable
from tracker.streams.groups import (
    Delivered,
    acknowledge,
    create_group,
    read_new,
    read_pending,
)

#: Entries of each stream in one batch.
BATCH_SIZE: Final = 1000
#: Milliseconds that a read waits for something to come.
BLOCK_MS: Final = 5000
#: Seconds until a failed sink or stream is tried again: the first time, and at most.
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 15.0


#: Lines a minute about entries that are no positions, or gone.
REJECTION_LINES: Final = 10


class Consumer(Service):
    """One member of the group ``processor``.

    :param reading: a connection that only this consumer uses, since its reads block.
    :param commands: a connection for everything else.
    :param vendors: stream → the vendor whose positions it holds.
    :param name: this consumer's name in the group; the same after a restart, so that
        it finishes what it had begun.
    :param report: told None while entries flow into the sink, else what keeps them.
    :param abort: told when the sink can never be opened.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        reading: RedisConnection,
        commands: RedisConnection,
        vendors: Mapping[str, str],
        name: str,
        sink: IPositionSink,
        report: Callable[[str | None], None],
        abort: Abort,
    ) -> None:
        self._clock = clock
        self._reading = reading
        self._commands = commands
        self._vendors = vendors
        self._streams = sorted(vendors)
        self._name = name
        self._sink = sink
        self._report = report
        self._abort = abort
        self._delay = FIRST_RETRY
        self._rejections = RateLimit(clock, REJECTION_LINES, 60.0)
        self._loop: Deferred[None] | None = None
        self._interruptible: Deferred[Any] | None = None

    def startService(self) -> None:
        """Open the sink, then consume."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._run())
        self._loop.addErrback(self._died)

    def _died(self, failure: Any) -> None:
        self._log.failure("the consumer died", failure)
        self._abort(f"the consumer died: {failure.getErrorMessage()}")

    def stopService(self) -> Deferred[None]:
        """Finish the batch at hand, then close the sink."""
        super().stopService()
        if self._interruptible is not None:
            self._interruptible.cancel()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._loop is not None:
            await self._loop
        await self._sink.close()

    async def _run(self) -> None:
        try:
            await self._sink.open()
        except SinkUnusable as error:
            self._abort(str(error))
            return
        while self.running:
            try:
                await self._consume()
            except (Refused, Unavailable) as error:
                self._report(f"cannot read the streams: {error}")
                await self._sleep(self._delay)
                self._delay = min(2 * self._delay, LAST_RETRY)

    async def _consume(self) -> None:
        """Consume until stopped, or until Redis fails."""
        await self._or_stopped(self._reading.when_connected())
        await self._or_stopped(self._commands.when_connected())
        if not self.running:
            return
        for stream in self._streams:
            if await create_group(self._commands, stream, PROCESSOR_GROUP):
                self._log.info(
                    "group {group} created on {stream}", group=PROCESSOR_GROUP, stream=stream
                )
        self._report(None)
        where = (PROCESSOR_GROUP, self._name, self._streams, BATCH_SIZE)
        while self.running and (entries := await read_pending(self._commands, *where)):
            self._log.info("{count} entries of before are unfinished", count=len(entries))
            await self._process(entries)
        while self.running:
            read = Deferred.fromCoroutine(read_new(self._reading, *where, BLOCK_MS))
            entries = await self._or_stopped(read) or []
            self._delay = FIRST_RETRY
            if entries:
                await self._process(entries)

    async def _process(self, entries: Sequence[Delivered]) -> None:
        """Commit, put aside what is no position, and only then acknowledge."""
        positions: list[StoredPosition] = []
        dead: list[tuple[Delivered, str]] = []
        checkpoints: dict[tuple[str, str], str] = {}
        ids: defaultdict[str, list[str]] = defaultdict(list)
        for entry in entries:
            ids[entry.stream].append(entry.id)
            checkpoints[entry.stream, PROCESSOR_GROUP] = entry.id
            if entry.content is None:
                self._tell("lost, since it was deleted before it was stored", entry)
                continue
            try:
                positions.append(_stored_position(entry, self._vendors[entry.stream]))
            except BadEntry as error:
                dead.append((entry, str(error)))
            except Exception as error:  # noqa: BLE001 - one entry must not stop all others
                self._log.failure("an entry that cannot be read: {id}", id=entry.id)
                dead.append((entry, repr(error)))
        if not await self._store(Batch(positions, checkpoints)):
            return  # stopped: the entries stay pending and come again
        for entry, reason in dead:
            await self._put_aside(entry, reason)
        for stream, entry_ids in ids.items():
            await acknowledge(self._commands, PROCESSOR_GROUP, stream, entry_ids)

    async def _store(self, batch: Batch) -> bool:
        """Store the batch, however long the sink takes; False when stopped before."""
        delay = FIRST_RETRY
        failed = False
        while self.running:
            try:
                await self._sink.store(batch)
            except Exception as error:  # noqa: BLE001 - whatever ails the sink, the batch waits
                failed = True
                self._report(f"the sink does not store: {error}")
                await self._sleep(delay)
                delay = min(2 * delay, LAST_RETRY)
                continue
            if failed:
                self._report(None)
            return True
        return False

    async def _put_aside(self, entry: Delivered, reason: str) -> None:
        """Keep an entry that is no position, with everything in it, where people can look."""
        where = dead_letters(entry.stream)
        content = entry.content or ()
        await self._commands.execute(
            "XADD", where, "*", "_id", entry.id, "_reason", reason, *content
        )
        self._tell(f"put aside: {reason}", entry)

    def _tell(self, what: str, entry: Delivered) -> None:
        suppressed = self._rejections.admit()
        if suppressed is not None:
            self._log.error(
                "{stream} {id}: {what}{more}",
                stream=entry.stream,
                id=entry.id,
                what=what,
                more=f" (and {suppressed} more, not shown)" if suppressed else "",
            )

    async def _or_stopped(self, deferred: Deferred[Any]) -> Any:
        """The result of ``deferred``; None at once when the service stops before."""
        self._interruptible = deferred
        try:
            return await deferred
        except CancelledError:
            return None
        finally:
            self._interruptible = None

    async def _sleep(self, seconds: float) -> None:
        if self.running:
            await self._or_stopped(deferLater(self._clock, seconds))


def _stored_position(entry: Delivered, vendor: str) -> StoredPosition:
    fields = entry.fields
    try:
        codec = fields[b"codec"].decode("ascii")
        payload = fields[b"payload"].decode("utf-8")
    except KeyError as error:
        raise BadEntry(f"the field {error.args[0].decode()} is missing") from None
    except UnicodeDecodeError as error:
        raise BadEntry(f"not text: {error}") from None
    return StoredPosition(
        Position.from_payload(payload), digest(payload), vendor, codec, entry.appended_at
    )
