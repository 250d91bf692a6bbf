"""Store entries in the sink, with retries, and acknowledge them once they are committed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tracker.errors import Refused, Unavailable
from tracker.interfaces import Batch, BatchRefused, IPositionSink, SinkTimedOut, SinkUnusable
from tracker.keys import PROCESSOR_GROUP
from tracker.log.entries import Delivered, entry_order
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition, Pulse
from tracker.processing.attempts import AttemptSize
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.taking import Row, Taken
from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Waits

#: Seconds until a failed sink or stream is tried again: the first time, and at most.
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 15.0
#: Name of a second checkpoint of the group. The first one is the last entry that was committed;
#: this is the oldest entry that any consumer had not finished by then.
_UNFINISHED: Final = f"{PROCESSOR_GROUP}:unfinished"

T = TypeVar("T")
_Ids = Mapping[str, Sequence[str]]


class Storing:
    """Stores the entries of one consumer in the sink.

    :param reader: the consumer's membership in the group.
    :param size: how many positions the sink is given at once.
    :param condition: met while entries are stored.
    :param report_entry: called with what is wrong with an entry.
    :param pulse: beats at each attempt.
    """

    def __init__(
        self,
        *,
        clock: Any,
        waits: Waits,
        reader: IRecordReader,
        sink: IPositionSink,
        size: AttemptSize,
        condition: Condition,
        report_entry: Callable[[str, Delivered], None],
        metrics: ProcessMetrics,
        pulse: Pulse,
    ) -> None:
        self._clock = clock
        self._waits = waits
        self._reader = reader
        self._sink = sink
        self._size = size
        self._condition = condition
        self._report_entry = report_entry
        self._metrics = metrics
        self._pulse = pulse
        self._opened = False
        self._failing = False
        self._kept = 0.0  # when claims were kept last
        metrics.batch_limit.set(size.limit)

    async def open(self) -> None:
        """Open the sink, with retries; return early when stopped.

        :raises SinkUnusable: when it can never be opened.
        """
        await self._patiently("the sink cannot be opened", self._sink.open)
        self._opened = True

    async def unfinished(self, stream: str) -> tuple[str | None] | None:
        """Return the first entry that was not finished at the last commit; None when stopped.

        After a loss of the group, all before it are in the sink.
        """
        return await self._patiently(
            "the checkpoint of the sink cannot be read",
            lambda: self._sink.checkpoint(stream, _UNFINISHED),
        )

    async def close(self) -> None:
        """Close the sink."""
        await self._sink.close()

    async def keep(self, taken: Taken) -> None:
        """Prevent other consumers from claiming entries that will be processed soon."""
        await self._keep_claims(_ids((taken.rows, taken.dead)))

    async def process(self, taken: Taken) -> None:
        """Store rows, move dead entries to the dead letters, and acknowledge each after that."""
        self._pulse.beat()
        unfinished: dict[str, str] = {}
        for stream in taken.streams:
            first = await self._reader.oldest_unfinished(stream)
            if first is not None:
                unfinished[stream] = first
        if not await self._store(taken, unfinished):
            return  # stopped: entries that are not acknowledged are delivered again
        for stream, entry_ids in taken.deleted.items():
            await self._acknowledge(stream, entry_ids)
        # Last, because Redis may have no room for dead letters.
        for entry, reason in taken.dead:
            await self._put_aside(entry, reason)

    async def _store(self, taken: Taken, unfinished: Mapping[str, str]) -> bool:
        """Store all rows, in their order; return False if stopped before.

        Positions that the sink refuses are found by halving, and become dead. A part that it
        does not store in time is retried in smaller parts; a single position is retried until
        it is stored. Each part is acknowledged as soon as it is committed, so that a later
        failure does not undo it.
        """
        todo: deque[Sequence[Row]] = deque([taken.rows] if taken.rows else [])
        self._kept = self._clock.seconds()
        while todo:
            part = todo.popleft()
            if len(part) > self._size.limit:
                todo.appendleft(part[self._size.limit :])
                part = part[: self._size.limit]
            held = partial(_ids, (part, *todo, taken.dead))
            try:
                if not await self._store_part(part, unfinished, held):
                    return False
            except BatchRefused as error:
                if len(part) == 1:
                    taken.dead.append((part[0][0], f"refused by the sink: {error}"))
                else:
                    middle = len(part) // 2
                    todo.extendleft((part[middle:], part[:middle]))
            except SinkTimedOut:
                todo.appendleft(part)  # it is divided now
            else:
                for stream, entry_ids in _ids([part]).items():
                    await self._acknowledge(stream, entry_ids)
                if todo and self._clock.seconds() - self._kept >= LAST_RETRY:
                    await self._keep_claims(_ids((*todo, taken.dead)))
        return True

    async def _store_part(
        self, part: Sequence[Row], unfinished: Mapping[str, str], held: Callable[[], _Ids]
    ) -> bool:
        """Store some rows, with retries; return False if stopped before.

        :param held: returns the entries whose claims are renewed meanwhile.
        :raises BatchRefused: if some of the rows can never be stored.
        :raises SinkTimedOut: if there is more than one row, and they were not stored in time.
        """
        batch = _batch(part, unfinished)
        began = self._clock.seconds()

        def store() -> Deferred[int]:
            nonlocal began
            began = self._clock.seconds()
            return self._sink.store(batch).addErrback(failed)

        def failed(failure: Failure) -> Failure:
            if failure.check(SinkTimedOut):
                self._size.timed_out(len(part), self._clock.seconds() - began)
                self._metrics.sink_timeouts.inc()
                self._metrics.batch_limit.set(self._size.limit)
            return failure

        final = SinkTimedOut if len(part) > 1 else None
        stored = await self._patiently("the sink does not store", store, held, final)
        if stored is None:
            return False
        now = self._clock.seconds()
        self._size.succeeded(now - began)
        self._metrics.batch_limit.set(self._size.limit)
        self._metrics.committed(len(part), stored[0], began, now)
        return True

    async def _patiently(
        self,
        what: str,
        ask: Callable[[], Deferred[T]],
        held: Callable[[], _Ids] = dict,
        final: type[Exception] | None = None,
    ) -> tuple[T] | None:
        """Call the sink until it succeeds; return its result, or None if stopped before.

        :param what: reported while the calls fail.
        :param held: returns the entries whose claims are renewed meanwhile.
        :param final: an exception that is raised instead of being retried.
        :raises BatchRefused, SinkUnusable: if a retry would not help.
        """
        backoff = Backoff(self._clock, FIRST_RETRY, LAST_RETRY)
        while not self._waits.stopped:
            if self._opened:  # opening may take hours if tables are migrated
                self._pulse.beat()
            try:
                answer = await ask()
            except BatchRefused:
                self._recovered()
                raise
            except Exception as error:
                if isinstance(error, SinkUnusable) and not self._opened:
                    raise
                # A sink that was usable once is retried after any error.
                self._failing = True
                self._metrics.sink_failures.inc()
                self._condition.fails(f"{what}: {error}")
                await self._waits.sleep(backoff.failed())
                await self._keep_claims(held())
                if final is not None and isinstance(error, final) and not self._waits.stopped:
                    raise
            else:
                self._recovered()
                return (answer,)
        return None

    def _recovered(self) -> None:
        if self._failing and not self._waits.stopped:
            self._failing = False
            self._condition.met()

    async def _keep_claims(self, held: _Ids) -> None:
        # The sink is slow for all consumers alike, so a claim by another one would not help.
        self._kept = self._clock.seconds()
        with suppress(Refused, Unavailable):
            for stream, entry_ids in held.items():
                await self._reader.busy(stream, entry_ids)

    async def _acknowledge(self, stream: str, entry_ids: Sequence[str]) -> None:
        await self._reader.acknowledge(stream, entry_ids)
        self._metrics.processed.labels(stream).inc(len(entry_ids))

    async def _put_aside(self, entry: Delivered, reason: str) -> None:
        """Move an entry that cannot be stored to the dead letters, with all its fields."""
        try:
            await self._reader.dead_letter(entry, reason)
        except Refused as error:
            # It stays pending, and is claimed again later.
            self._report_entry(f"cannot be moved to dead letters now ({error}): {reason}", entry)
            return
        self._metrics.processed.labels(entry.stream).inc()
        self._metrics.dead.labels(entry.stream).inc()
        self._report_entry(f"moved to dead letters: {reason}", entry)


def _ids(parts: Iterable[Sequence[tuple[Delivered, Any]]]) -> _Ids:
    """Return the IDs of the entries in some parts of a batch, by stream."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for part in parts:
        for entry, _ in part:
            found[entry.stream].append(entry.id)
    return found


def _batch(rows: Sequence[Row], unfinished: Mapping[str, str]) -> Batch:
    checkpoints = {(stream, _UNFINISHED): first for stream, first in unfinished.items()}
    for entry, _ in rows:
        key = (entry.stream, PROCESSOR_GROUP)
        if key not in checkpoints or entry_order(checkpoints[key]) < entry_order(entry.id):
            checkpoints[key] = entry.id
    return Batch([stored for _, stored in rows], checkpoints)
