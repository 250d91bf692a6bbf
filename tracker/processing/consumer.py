"""Takes entries from the streams and acknowledges them once the sink has committed them.

Every turn of the loop is safe to repeat: an entry that was committed but not yet
acknowledged when the process died is delivered again, and the sink leaves what it
has alone.

Any number of processors share the group. Each finishes what it was given before; what a
consumer has been idle with for long is claimed by another one. It may come back and commit
it, too: then it is there already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tracker.interfaces import Batch, BatchRefused, IPositionSink, SinkUnusable, StoredPosition
from tracker.keys import PROCESSOR_GROUP
from tracker.lifecycle import Abort
from tracker.observe.health import Pulse
from tracker.observe.ratelimit import RateLimit
from tracker.position import BadEntry
from tracker.processing.entries import stored_position
from tracker.processing.metrics import ProcessMetrics
from tracker.settings import setting
from tracker.streams.connection import RedisConnection, Refused, Unavailable
from tracker.streams.dead import put_aside
from tracker.streams.groups import (
    Delivered,
    acknowledge,
    attempts,
    claim_idle,
    create_group,
    entry_order,
    first_pending,
    keep_claim,
    read_new,
    read_pending,
)
from tracker.untrusted import MAX_LINE, shown

#: Milliseconds that a read waits for something to come.
BLOCK_MS: Final = 5000
#: Seconds until a failed sink or stream is tried again: the first time, and at most.
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 15.0
#: Seconds without a turn, or another try, after which it is stuck. A sink that is away or slow
#: answers long before: that it does not.
STUCK: Final = 300.0
#: Beside the checkpoint of the group, which is the last entry that was committed, stands the
#: first one that was not finished by then: by any consumer.
_UNFINISHED: Final = f"{PROCESSOR_GROUP}:unfinished"

#: Lines a minute about entries that are no positions, or gone.
REJECTION_LINES: Final = 10


T = TypeVar("T")
_Row = tuple[Delivered, StoredPosition]


@define
class _Taken:
    """Entries that were read, and what is to be done with each."""

    rows: list[_Row] = field(factory=list)
    dead: list[tuple[Delivered, str]] = field(factory=list)
    """Those that cannot be stored, and why."""
    ids: defaultdict[str, list[str]] = field(factory=lambda: defaultdict(list))
    """Stream → all of them, to be acknowledged."""
    unfinished: dict[str, str] = field(factory=dict)
    """Stream → the oldest entry that any consumer still had when these were committed."""
    count: int = 0


@frozen
class Pace:
    """How entries are put together to batches. Each is an option of the same name."""

    batch_size: int = setting(4000, 1, 100_000, "Entries of each stream in one batch, at most.")
    batch_delay: float = setting(
        0.02, 0, 60, "Seconds that a batch waits for more entries if there are fewer."
    )
    claim_after: float = setting(
        60.0,
        1,
        86_400,
        "Seconds after which entries of another processor are claimed that does nothing with "
        "them; more than the slowest batch takes.",
    )


class Consumer(Service):
    """One member of the group ``processor``.

    :param reading: a connection that only this consumer uses, since its reads block.
    :param commands: a connection for everything else.
    :param vendors: stream → the vendor whose positions it holds.
    :param name: this consumer's name in the group; the same after a restart, so that
        it finishes what it had begun.
    :param report: told None while entries flow into the sink, else what keeps them.
    :param abort: told when the sink can never be opened.
    :param metrics: are told what becomes of entries.
    :param name_attributes: adds names to a position, where they are asked for.
    :param pulse: beats while this consumes, however long the sink takes.
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
        pace: Pace,
        metrics: ProcessMetrics,
        name_attributes: Callable[[StoredPosition], StoredPosition] | None = None,
        pulse: Pulse | None = None,
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
        self._pace = pace
        self._metrics = metrics
        self._name_attributes = name_attributes
        self._pulse = pulse or Pulse(STUCK)
        self._where = (PROCESSOR_GROUP, name, self._streams, pace.batch_size)
        self._read: Deferred[_Taken] | None = None  # under way
        self._opened = False
        self._next_claim = 0.0
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
        self._pulse.rest()
        if self._interruptible is not None:
            self._interruptible.cancel()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._loop is not None:
            await self._loop
        if self._read is not None:  # what it brings stays pending
            self._read.addErrback(lambda _: None).cancel()
        await self._sink.close()

    async def _run(self) -> None:
        try:
            await self._patiently("the sink cannot be opened", self._sink.open, {})
            self._opened = True
        except SinkUnusable as error:
            self._abort(str(error))
            return
        while self.running:
            try:
                await self._consume()
            except (Refused, Unavailable) as error:
                self._report(f"cannot read the streams: {error}")
                self._pulse.beat()
                await self._sleep(self._delay)
                self._delay = min(2 * self._delay, LAST_RETRY)

    async def _consume(self) -> None:
        """Consume until stopped, or until Redis fails."""
        self._pulse.rest()
        for connection in (self._reading, self._commands):
            await self._or_stopped(connection.when_connected())
            if not self.running:
                return
        for stream in self._streams:
            await self._make_group(stream)
        self._report(None)
        await self._forget_read()
        await self._finish_pending()
        while self.running:
            self._pulse.beat()
            await self._claim()
            taken = await self._next_batch()
            self._delay = FIRST_RETRY
            if taken.count:
                await self._process(taken)

    async def _finish_pending(self) -> None:
        """Begin with what this consumer was given before; what stays pending is for later."""
        group, name, streams, count = self._where
        after = dict.fromkeys(streams, "0")
        while self.running and (
            entries := await read_pending(self._commands, group, name, after, count)
        ):
            self._log.info("{count} entries of before are unfinished", count=len(entries))
            await self._process(self._take(entries))
            after |= {entry.stream: entry.id for entry in entries}

    async def _make_group(self, stream: str) -> None:
        answer = await self._patiently(
            "the sink does not tell what it has",
            lambda: self._sink.checkpoint(stream, _UNFINISHED),
            {},
        )
        if answer is None:
            return
        (unfinished,) = answer
        after = "0-0"
        if unfinished is not None:
            # The group was there, and is lost with what it knew of others' entries. What is
            # read again is stored once.
            after = f"{max(0, entry_order(unfinished)[0] - 1)}-0"
        if await create_group(self._commands, stream, PROCESSOR_GROUP, after):
            self._log.warn(
                "group {group} created on {stream}, after {after}",
                group=PROCESSOR_GROUP,
                stream=stream,
                after=after,
            )

    async def _forget_read(self) -> None:
        # What a read brought that was under way when Redis failed is pending now.
        if self._read is not None:
            read, self._read = self._read, None
            with suppress(Refused, Unavailable):
                await self._or_stopped(read)

    async def _next_batch(self) -> _Taken:
        """A batch: full, or what has come within a moment. The next one is read meanwhile."""
        if self._read is None:
            self._read = self._start_read()
            taken = await self._or_stopped(self._read) or _Taken()
            if 0 < taken.count < self._pace.batch_size:
                await self._sleep(self._pace.batch_delay)
        else:  # it was under way while the last batch was committed: that was delay enough
            taken = await self._or_stopped(self._read) or _Taken()
        self._read = None
        if not self.running:
            return _Taken()  # they stay pending, and come first after the next start
        if 0 < taken.count < self._pace.batch_size:
            self._take(await read_new(self._commands, *self._where), taken)
        if taken.count:
            self._read = self._start_read()
        return taken

    def _start_read(self) -> Deferred[_Taken]:
        read = Deferred.fromCoroutine(read_new(self._reading, *self._where, BLOCK_MS))
        return read.addCallback(self._take)

    async def _claim(self) -> None:
        """Take over what others have left lying."""
        if self._clock.seconds() < self._next_claim:
            return
        self._next_claim = self._clock.seconds() + self._pace.claim_after / 2
        idle_ms = int(self._pace.claim_after * 1000)
        for stream in self._streams:
            while self.running and (
                entries := await claim_idle(
                    self._commands, *self._where[:2], stream, idle_ms, self._pace.batch_size
                )
            ):
                self._log.warn(
                    "{count} entries of {stream} claimed from consumers that did nothing with them",
                    count=len(entries),
                    stream=stream,
                )
                self._metrics.claimed.labels(stream).inc(len(entries))
                await self._process(self._take(entries))

    def _take(self, entries: Sequence[Delivered], taken: _Taken | None = None) -> _Taken:
        """Make rows of entries, behind those that were taken before."""
        taken = taken or _Taken()
        taken.count += len(entries)
        for entry in entries:
            taken.ids[entry.stream].append(entry.id)
            if entry.content is None:
                self._metrics.deleted.labels(entry.stream).inc()
                self._tell("lost, since it was deleted before it was stored", entry)
                continue
            try:
                stored = stored_position(entry, self._vendors[entry.stream])
                if self._name_attributes is not None:
                    stored = self._name_attributes(stored)
                taken.rows.append((entry, stored))
            except BadEntry as error:
                taken.dead.append((entry, str(error)))
            except Exception as error:  # noqa: BLE001 - one entry must not stop all others
                self._log.failure("an entry that cannot be read: {id}", id=entry.id)
                taken.dead.append((entry, shown(repr(error))))
        return taken

    async def _process(self, taken: _Taken) -> None:
        """Commit, put aside what cannot be stored, and only then acknowledge."""
        self._pulse.beat()
        for stream in taken.ids:
            first = await first_pending(self._commands, stream, PROCESSOR_GROUP)
            if first is not None:
                taken.unfinished[stream] = first
        if not await self._store(taken.rows, taken):
            return  # stopped: the entries stay pending and come again
        # Those first that are stored: Redis may have no room for what is put aside.
        dead = {(entry.stream, entry.id) for entry, _ in taken.dead}
        for stream, entry_ids in taken.ids.items():
            if done := [entry_id for entry_id in entry_ids if (stream, entry_id) not in dead]:
                await acknowledge(self._commands, PROCESSOR_GROUP, stream, done)
                self._metrics.processed.labels(stream).inc(len(done))
        for entry, reason in taken.dead:
            await self._put_aside(entry, reason)

    async def _store(self, rows: Sequence[_Row], taken: _Taken) -> bool:
        """Store some rows of a batch, however long the sink takes; False when stopped before.

        Those that it refuses are found by halving, and are dead then.
        """
        if not rows:
            return True
        try:
            return await self._store_batch(_batch(rows, taken.unfinished), taken.ids)
        except BatchRefused as error:
            if len(rows) == 1:
                taken.dead.append((rows[0][0], f"refused by the sink: {error}"))
                return True
        middle = len(rows) // 2
        return await self._store(rows[:middle], taken) and await self._store(rows[middle:], taken)

    async def _store_batch(self, batch: Batch, ids: Mapping[str, Sequence[str]]) -> bool:
        """Store the batch, however long the sink takes; False when stopped before.

        :raises BatchRefused: when there is something in it that can never be stored.
        """
        began = self._clock.seconds()

        def store() -> Deferred[int]:
            nonlocal began
            began = self._clock.seconds()
            return self._sink.store(batch)

        stored = await self._patiently("the sink does not store", store, ids)
        if stored is None:
            return False
        self._metrics.committed(len(batch.positions), stored[0], began, self._clock.seconds())
        return True

    async def _patiently(
        self, what: str, ask: Callable[[], Deferred[T]], ids: Mapping[str, Sequence[str]]
    ) -> tuple[T] | None:
        """What the sink answers, asked again until it does; None when stopped before.

        :param what: told while it does not.
        :param ids: stream → entries that are kept from being claimed meanwhile.
        :raises BatchRefused, SinkUnusable: when asking again would not help.
        """
        delay = FIRST_RETRY
        failed = False
        try:
            while self.running:
                if self._opened:  # to open one may take hours, where it makes its tables anew
                    self._pulse.beat()
                try:
                    return (await ask(),)
                except BatchRefused:
                    raise
                except Exception as error:
                    if isinstance(error, SinkUnusable) and not self._opened:
                        raise
                    # Whatever ails a sink that was fine once, it is asked again.
                    failed = True
                    self._metrics.sink_failures.inc()
                    self._report(f"{what}: {error}")
                await self._sleep(delay)
                delay = min(2 * delay, LAST_RETRY)
                await self._keep_claims(ids)
            return None
        finally:
            if failed and self.running:
                self._report(None)

    async def _keep_claims(self, ids: Mapping[str, Sequence[str]]) -> None:
        # It is the sink that is slow, for all consumers alike: claiming would help nobody.
        with suppress(Refused, Unavailable):
            for stream, entry_ids in ids.items():
                await keep_claim(self._commands, *self._where[:2], stream, entry_ids)

    async def _put_aside(self, entry: Delivered, reason: str) -> None:
        """Keep an entry that cannot be stored, with everything in it, where people can look."""
        tried = await attempts(self._commands, PROCESSOR_GROUP, entry.stream, entry.id)
        content = entry.content or ()
        try:
            await put_aside(self._commands, entry.stream, entry.id, content, reason, tried)
        except Refused as error:
            # It stays pending, and is claimed again after a time.
            self._tell(f"cannot be put aside now ({error}), and not be stored: {reason}", entry)
            return
        await acknowledge(self._commands, PROCESSOR_GROUP, entry.stream, [entry.id])
        self._metrics.dead.labels(entry.stream).inc()
        self._metrics.processed.labels(entry.stream).inc()
        self._tell(f"put aside: {reason}", entry)

    def _tell(self, what: str, entry: Delivered) -> None:
        suppressed = self._rejections.admit()
        if suppressed is not None:
            self._log.error(
                "{stream} {id}: {what}{more}",
                stream=entry.stream,
                id=entry.id,
                what=shown(what, MAX_LINE),
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


def _batch(rows: Sequence[_Row], unfinished: Mapping[str, str]) -> Batch:
    checkpoints = {(stream, _UNFINISHED): first for stream, first in unfinished.items()}
    for entry, _ in rows:
        key = (entry.stream, PROCESSOR_GROUP)
        if key not in checkpoints or entry_order(checkpoints[key]) < entry_order(entry.id):
            checkpoints[key] = entry.id
    return Batch([stored for _, stored in rows], checkpoints)
