"""Storage of entries in the sink, with retries, and their acknowledgement after the commit."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from tracker.errors import Refused, Unavailable
from tracker.interfaces import Batch, BatchRefused, IPositionSink, SinkTimedOut, SinkUnusable
from tracker.keys import PROCESSOR_GROUP
from tracker.log.entries import StreamEntry
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition, Watchdog
from tracker.processing.attemptsize import AttemptSize
from tracker.processing.decoding import DecodedEntries, Row
from tracker.processing.metrics import ProcessMetrics
from tracker.runtime.backoff import Backoff
from tracker.runtime.waits import Stopped, Waits

#: Seconds until a failed call of the sink or the log is retried: the first and the longest delay.
MIN_RETRY_DELAY: Final = 0.5
MAX_RETRY_DELAY: Final = 15.0
#: Name of a second checkpoint of the group. The first one is the last committed entry; this one
#: is the oldest entry that the group had not finished at that time.
_UNFINISHED: Final = f"{PROCESSOR_GROUP}:unfinished"

_Ids = Mapping[str, Sequence[str]]
#: (stream, name of the checkpoint) → ID.
_Checkpoints = Mapping[tuple[str, str], str]


class Storer:
    """Stores the entries of one consumer in the sink.

    Its methods raise :class:`Stopped` if a stop interrupts them.

    :param reader: the consumer's membership in the group.
    :param size: the maximum number of positions in one attempt.
    :param condition: met while entries are stored.
    :param report_entry: logs an event of an entry; see
        :meth:`tracker.processing.decoding.EntryDecoder.report`.
    :param watchdog: reset at each attempt.
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
        report_entry: Callable[[str, StreamEntry], None],
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
        self._backoff = Backoff(clock, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._last_keep = 0.0  # time at which idle times were last reset
        metrics.batch_limit.set(size.limit)

    async def open(self) -> None:
        """Open the sink, with retries. A migration of its tables may take hours.

        :raises SinkUnusable: if no retry can open it.
        """
        while True:
            try:
                await self._sink.open()
            except SinkUnusable:
                raise
            except Exception as error:  # noqa: BLE001 - reported and retried
                await self._failed("cannot open the sink", error)
            else:
                self._succeeded()
                return

    async def unfinished(self, stream: str) -> str | None:
        """Return the sink's checkpoint of the oldest entry not finished at the last commit.

        All earlier entries are in the sink, even if the group is lost.
        """
        while True:
            self._watchdog.reset()
            try:
                entry_id = await self._sink.checkpoint(stream, _UNFINISHED)
            except Exception as error:  # noqa: BLE001 - reported and retried
                await self._failed("cannot read the sink's checkpoint", error)
            else:
                self._succeeded()
                return entry_id

    async def close(self) -> None:
        """Close the sink."""
        await self._sink.close()

    async def keep(self, decoded: DecodedEntries) -> None:
        """Prevent other consumers from claiming entries that will be processed soon."""
        await self._keep_entries(_ids((decoded.rows, decoded.dead)))

    async def process(self, decoded: DecodedEntries) -> None:
        """Store rows, move invalid entries to the dead letters, then acknowledge them.

        If a stop interrupts this, the other entries are delivered again after the next start.
        """
        if self._waits.stopped:
            raise Stopped
        self._watchdog.reset()
        unfinished: dict[tuple[str, str], str] = {}
        for stream in decoded.streams:
            oldest = await self._reader.oldest_unfinished(stream)
            if oldest is not None:
                unfinished[stream, _UNFINISHED] = oldest
        await self._store(decoded, unfinished)
        for stream, entry_ids in decoded.deleted.items():
            await self._acknowledge(stream, entry_ids)
        # Dead letters are last, because Redis may have no memory for them.
        for entry, reason in decoded.dead:
            await self._dead_letter(entry, reason)

    async def _store(self, decoded: DecodedEntries, unfinished: _Checkpoints) -> None:
        """Store all rows, in their order.

        Positions that the sink refuses are found by bisection, and become dead letters. A part
        that the sink does not store in time is retried in smaller parts; a single position is
        retried until it is stored. Each part is acknowledged as soon as it is committed, and is
        therefore not affected by a later failure.
        """
        todo: deque[Sequence[Row]] = deque([decoded.rows] if decoded.rows else [])
        self._last_keep = self._clock.seconds()
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
                    decoded.dead.append((part[0][0], f"refused by the sink: {error}"))
                else:
                    middle = len(part) // 2
                    todo.extendleft((part[middle:], part[:middle]))
            except Exception as error:  # noqa: BLE001 - reported and retried
                todo.appendleft(part)
                max_delay = MAX_RETRY_DELAY
                if isinstance(error, SinkTimedOut):
                    self._timed_out(len(part), self._clock.seconds() - began)
                    if len(part) > 1:
                        max_delay = MIN_RETRY_DELAY  # the next attempt is smaller
                held = _ids((*todo, decoded.dead))
                await self._failed("cannot store positions", error, held, max_delay)
            else:
                self._succeeded()
                now = self._clock.seconds()
                self._size.succeeded(now - began)
                self._metrics.batch_limit.set(self._size.limit)
                self._metrics.committed(len(part), new, began, now)
                for stream, done in entry_ids.items():
                    await self._acknowledge(stream, done)
                if todo and self._clock.seconds() - self._last_keep >= MAX_RETRY_DELAY:
                    await self._keep_entries(_ids((*todo, decoded.dead)))

    def _timed_out(self, count: int, seconds: float) -> None:
        self._size.timed_out(count, seconds)
        self._metrics.sink_timeouts.inc()
        self._metrics.batch_limit.set(self._size.limit)

    async def _failed(
        self,
        what: str,
        error: Exception,
        held: _Ids | None = None,
        max_delay: float = MAX_RETRY_DELAY,
    ) -> None:
        """Report an error of the sink, and wait until the next attempt.

        A sink that was opened once is retried after any error.

        :param held: the entries that other consumers must not claim.
        :param max_delay: maximum seconds to wait.
        """
        self._metrics.sink_failures.inc()
        self._condition.fails(f"{what}: {error}")
        await self._waits.sleep(min(max_delay, self._backoff.failed()))
        await self._keep_entries(held or {})
        if self._waits.stopped:
            raise Stopped

    def _succeeded(self) -> None:
        if self._backoff.failures == 0:
            return
        self._backoff.succeeded()
        if not self._waits.stopped:
            self._condition.met()

    async def _keep_entries(self, held: _Ids) -> None:
        # The sink is slow for all consumers, and a claim by another one would not help.
        self._last_keep = self._clock.seconds()
        with suppress(Refused, Unavailable):
            for stream, entry_ids in held.items():
                await self._reader.keep(stream, entry_ids)

    async def _acknowledge(self, stream: str, entry_ids: Sequence[str]) -> None:
        await self._reader.acknowledge(stream, entry_ids)
        self._metrics.processed.labels(stream).inc(len(entry_ids))

    async def _dead_letter(self, entry: StreamEntry, reason: str) -> None:
        """Move an entry to the dead letters, with all its fields."""
        try:
            await self._reader.dead_letter(entry, reason)
        except Refused as error:
            # The entry stays pending, and is claimed again later.
            self._report_entry(
                f"cannot be moved to dead letters ({error}), retrying later: {reason}", entry
            )
            return
        self._metrics.processed.labels(entry.stream).inc()
        self._metrics.dead.labels(entry.stream).inc()
        self._report_entry(f"was moved to dead letters: {reason}", entry)


def _ids(parts: Iterable[Sequence[tuple[StreamEntry, Any]]]) -> _Ids:
    """Return stream → the IDs of its entries in some parts of a batch."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for part in parts:
        for entry, _ in part:
            found[entry.stream].append(entry.id)
    return found


def _batch(rows: Sequence[Row], entry_ids: _Ids, unfinished: _Checkpoints) -> Batch:
    """Return rows with their checkpoints.

    :param entry_ids: stream → the IDs of these rows' entries.
    """
    # The entries of each stream are in the order of their IDs.
    last = {(stream, PROCESSOR_GROUP): ids[-1] for stream, ids in entry_ids.items()}
    return Batch([stored for _, stored in rows], {**unfinished, **last})
