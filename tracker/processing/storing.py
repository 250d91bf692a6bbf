"""Store entries in the sink, with retries, and acknowledge them once they are committed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from tracker.errors import Refused, Unavailable
from tracker.interfaces import Batch, BatchRefused, IPositionSink, SinkTimedOut, SinkUnusable
from tracker.keys import PROCESSOR_GROUP
from tracker.log.entries import Delivered
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition, Watchdog
from tracker.processing.attempts import AttemptSize
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.taking import Row, Taken
from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Stopped, Waits

#: Seconds until a failed sink or stream is tried again: the first time, and at most.
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 15.0
#: Name of a second checkpoint of the group. The first one is the last entry that was committed;
#: this is the oldest entry that any consumer had not finished by then.
_UNFINISHED: Final = f"{PROCESSOR_GROUP}:unfinished"

_Ids = Mapping[str, Sequence[str]]
#: (stream, name of the checkpoint) → ID.
_Checkpoints = Mapping[tuple[str, str], str]


class Storing:
    """Stores the entries of one consumer in the sink.

    Its methods raise :class:`Stopped` if they are stopped before they have done everything.

    :param reader: the consumer's membership in the group.
    :param size: how many positions the sink is given at once.
    :param condition: met while entries are stored.
    :param report_entry: called with what is wrong with an entry.
    :param watchdog: is reset at each attempt.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        waits: Waits,
        reader: IRecordReader,
        sink: IPositionSink,
        size: AttemptSize,
        condition: Condition,
        report_entry: Callable[[str, Delivered], None],
        metrics: ProcessMetrics,
        watchdog: Watchdog,
    ) -> None:
        self._clock = clock
        self._waits = waits
        self._reader = reader
        self._sink = sink
        self._size = size
        self._condition = condition
        self._report_entry = report_entry
        self._metrics = metrics
        self._watchdog = watchdog
        self._backoff = Backoff(clock, FIRST_RETRY, LAST_RETRY)
        self._kept = 0.0  # when claims were kept last
        metrics.batch_limit.set(size.limit)

    async def open(self) -> None:
        """Open the sink, with retries. It may take hours if tables are migrated.

        :raises SinkUnusable: if it can never be opened.
        """
        while True:
            try:
                await self._sink.open()
            except SinkUnusable:
                raise
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                await self._failed("the sink cannot be opened", error)
            else:
                self._succeeded()
                return

    async def unfinished(self, stream: str) -> str | None:
        """Return the first entry that was not finished at the last commit, as the sink knows it.

        After a loss of the group, all before it are in the sink.
        """
        while True:
            self._watchdog.reset()
            try:
                entry_id = await self._sink.checkpoint(stream, _UNFINISHED)
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                await self._failed("the checkpoint of the sink cannot be read", error)
            else:
                self._succeeded()
                return entry_id

    async def close(self) -> None:
        """Close the sink."""
        await self._sink.close()

    async def keep(self, taken: Taken) -> None:
        """Prevent other consumers from claiming entries that will be processed soon."""
        await self._keep_claims(_ids((taken.rows, taken.dead)))

    async def process(self, taken: Taken) -> None:
        """Store rows, move dead entries to the dead letters, and acknowledge each after that.

        If stopped before, the entries that are left are delivered again after the next start.
        """
        if self._waits.stopped:
            raise Stopped
        self._watchdog.reset()
        unfinished: dict[tuple[str, str], str] = {}
        for stream in taken.streams:
            oldest = await self._reader.oldest_unfinished(stream)
            if oldest is not None:
                unfinished[stream, _UNFINISHED] = oldest
        await self._store(taken, unfinished)
        for stream, entry_ids in taken.deleted.items():
            await self._acknowledge(stream, entry_ids)
        # Last, because Redis may have no room for dead letters.
        for entry, reason in taken.dead:
            await self._dead_letter(entry, reason)

    async def _store(self, taken: Taken, unfinished: _Checkpoints) -> None:
        """Store all rows, in their order.

        Positions that the sink refuses are found by halving, and become dead. A part that it
        does not store in time is retried in smaller parts; a single position is retried until
        it is stored. Each part is acknowledged as soon as it is committed, so that a later
        failure does not undo it.
        """
        todo: deque[Sequence[Row]] = deque([taken.rows] if taken.rows else [])
        self._kept = self._clock.seconds()
        while todo:
            if self._waits.stopped:
                raise Stopped
            self._watchdog.reset()
            part = todo.popleft()
            if len(part) > self._size.limit:
                todo.appendleft(part[self._size.limit :])
                part = part[: self._size.limit]
            entry_ids = _ids([part])
            began = self._clock.seconds()
            try:
                new = await self._sink.store(_batch(part, entry_ids, unfinished))
            except BatchRefused as error:
                self._succeeded()
                if len(part) == 1:
                    taken.dead.append((part[0][0], f"refused by the sink: {error}"))
                else:
                    middle = len(part) // 2
                    todo.extendleft((part[middle:], part[:middle]))
            except Exception as error:  # noqa: BLE001 - reported, and tried again
                todo.appendleft(part)
                longest = LAST_RETRY
                if isinstance(error, SinkTimedOut):
                    self._timed_out(len(part), self._clock.seconds() - began)
                    if len(part) > 1:
                        longest = FIRST_RETRY  # as it is divided now
                held = _ids((*todo, taken.dead))
                await self._failed("the sink does not store", error, held, longest)
            else:
                self._succeeded()
                now = self._clock.seconds()
                self._size.succeeded(now - began)
                self._metrics.batch_limit.set(self._size.limit)
                self._metrics.committed(len(part), new, began, now)
                for stream, done in entry_ids.items():
                    await self._acknowledge(stream, done)
                if todo and self._clock.seconds() - self._kept >= LAST_RETRY:
                    await self._keep_claims(_ids((*todo, taken.dead)))

    def _timed_out(self, count: int, seconds: float) -> None:
        self._size.timed_out(count, seconds)
        self._metrics.sink_timeouts.inc()
        self._metrics.batch_limit.set(self._size.limit)

    async def _failed(
        self,
        what: str,
        error: Exception,
        held: _Ids | None = None,
        longest: float = LAST_RETRY,
    ) -> None:
        """Report an error of the sink, and wait until the next attempt.

        A sink that was usable once is retried after any error.

        :param held: the entries whose claims are kept.
        :param longest: seconds to wait, at most.
        """
        self._metrics.sink_failures.inc()
        self._condition.fails(f"{what}: {error}")
        await self._waits.sleep(min(longest, self._backoff.failed()))
        await self._keep_claims(held or {})
        if self._waits.stopped:
            raise Stopped

    def _succeeded(self) -> None:
        if self._backoff.failures == 0:
            return
        self._backoff.succeeded()
        if not self._waits.stopped:
            self._condition.met()

    async def _keep_claims(self, held: _Ids) -> None:
        # The sink is slow for all consumers alike, so a claim by another one would not help.
        self._kept = self._clock.seconds()
        with suppress(Refused, Unavailable):
            for stream, entry_ids in held.items():
                await self._reader.keep(stream, entry_ids)

    async def _acknowledge(self, stream: str, entry_ids: Sequence[str]) -> None:
        await self._reader.acknowledge(stream, entry_ids)
        self._metrics.processed.labels(stream).inc(len(entry_ids))

    async def _dead_letter(self, entry: Delivered, reason: str) -> None:
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


def _batch(rows: Sequence[Row], entry_ids: _Ids, unfinished: _Checkpoints) -> Batch:
    """Return rows with their checkpoints.

    :param entry_ids: of these rows.
    """
    # The entries of each stream are in the order of their IDs.
    last = {(stream, PROCESSOR_GROUP): ids[-1] for stream, ids in entry_ids.items()}
    return Batch([stored for _, stored in rows], {**unfinished, **last})
