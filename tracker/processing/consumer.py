"""Consumer of the streams, which acknowledges entries once the sink has committed them.

Each pass of the loop can be repeated safely: an entry that was committed but not acknowledged
when the process died is delivered again, and the sink ignores positions that it has.

Any number of processors share the group. After a restart, each one first finishes the entries
that were delivered to it before. Entries that stay pending with an idle consumer are claimed by
another one. If the first consumer resumes and commits them as well, they are stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.errors import Refused, Unavailable
from tracker.interfaces import IPositionSink, SinkUnusable, StoredPosition
from tracker.log.allowance import READ_BYTES
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition, Watchdog
from tracker.processing.attemptsize import AttemptSize
from tracker.processing.decoding import EntryDecoder
from tracker.processing.joining import GroupJoiner
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.reading import BatchReader
from tracker.processing.storing import MAX_RETRY_DELAY, MIN_RETRY_DELAY, Storer
from tracker.runtime.backoff import Backoff
from tracker.runtime.lifecycle import Abort
from tracker.runtime.waits import Stopped, Waits
from tracker.settings import duration, setting

#: Seconds without a pass of the loop or a retry after which the consumer counts as stuck. A sink
#: that is down or slow reports an error long before that.
WATCHDOG_TIMEOUT: Final = 300.0


@frozen
class BatchOptions:
    """Size and delay of batches; each attribute is a command-line option of the same name."""

    batch_size: int = setting(
        4000, 1, 100_000, "Maximum number of entries of each stream in one batch."
    )
    batch_bytes: int = setting(
        READ_BYTES,
        1 << 20,
        1 << 30,
        "Maximum bytes of entries in one batch, of all streams together. A batch has at least "
        "one entry of any length.",
    )
    batch_delay: float = duration(
        0.02, 0, 60, "Time that a batch waits for more entries if it is not full."
    )
    claim_after: float = duration(
        60.0,
        1,
        86_400,
        "Time after which unfinished entries of another processor are claimed; must exceed "
        "the time of the slowest batch.",
    )


class State(Enum):
    """States of a consumer's loop. Each one has a method, which returns the next state."""

    OPENING = "opening the sink"
    CONNECTING = "waiting for the log"
    JOINING = "joining the group"
    RECOVERING = "finishing the entries from before a restart"
    CONSUMING = "consuming"


class Consumer(Service):
    """Service that is one member of the group ``processor``.

    After an error of the log, its loop returns to :attr:`State.CONNECTING`; a stop ends the loop.

    :param reader: this consumer's membership in the group.
    :param vendors: stream → the vendor of its positions.
    :param condition: met while entries are stored.
    :param abort: called with the reason if no retry can open the sink.
    :param metrics: the counters of entries.
    :param clocks: the rule that times of records must meet.
    :param name_attributes: adds names to the attributes of a position; None: no names are added.
    :param watchdog: reset by the loop and by each retry of the sink.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        reader: IRecordReader,
        vendors: Mapping[str, str],
        sink: IPositionSink,
        condition: Condition,
        abort: Abort,
        options: BatchOptions,
        metrics: ProcessMetrics,
        clocks: ClockRule = DEFAULT_CLOCKS,
        name_attributes: Callable[[StoredPosition], StoredPosition] | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._condition = condition
        self._abort = abort
        self._claim_after = options.claim_after
        self._metrics = metrics
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        self._waits = Waits(clock)
        self._backoff = Backoff(clock, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._decoder = EntryDecoder(clock, vendors, metrics, name_attributes, clocks=clocks)
        self._storer = Storer(
            clock=clock,
            waits=self._waits,
            reader=reader,
            sink=sink,
            size=AttemptSize(options.batch_size * len(vendors)),
            condition=condition,
            report_entry=self._decoder.report,
            metrics=metrics,
            watchdog=self._watchdog,
        )
        self._joiner = GroupJoiner(
            clock=clock,
            reader=reader,
            storer=self._storer,
            streams=vendors,
            condition=condition,
        )
        self._batches = BatchReader(
            waits=self._waits,
            reader=reader,
            decoder=self._decoder,
            size=options.batch_size,
            delay=options.batch_delay,
        )
        self._next_claim = 0.0
        self._loop: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Open the sink, then consume."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._run()).addErrback(self._died)

    def _died(self, failure: Failure) -> None:
        self._log.failure("consumer failed", failure)
        self._abort(f"consumer failed: {failure.getErrorMessage()}")

    def stopService(self) -> Deferred[None]:
        """Finish the current batch, then close the sink."""
        super().stopService()
        self._watchdog.suspend()
        self._waits.stop()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._loop
        self._batches.cancel()
        await self._storer.close()

    async def _run(self) -> None:
        steps = {
            State.OPENING: self._open,
            State.CONNECTING: self._connect,
            State.JOINING: self._join,
            State.RECOVERING: self._recover,
            State.CONSUMING: self._consume,
        }
        state = State.OPENING
        while self.running:
            try:
                state = await steps[state]()
            except Stopped:
                return
            except SinkUnusable as error:
                self._abort(str(error))
                return
            except (Refused, Unavailable) as error:
                self._condition.fails(f"cannot read the streams: {error}")
                self._watchdog.reset()
                await self._waits.sleep(self._backoff.failed())
                state = State.CONNECTING

    async def _open(self) -> State:
        await self._storer.open()
        return State.CONNECTING

    async def _connect(self) -> State:
        self._watchdog.suspend()
        await self._waits.result(self._reader.when_connected())
        return State.JOINING

    async def _join(self) -> State:
        await self._joiner.join()
        return State.RECOVERING

    async def _recover(self) -> State:
        """Process entries that were delivered to this consumer and are not acknowledged."""
        # Entries of a read that was under way when the log failed are pending now.
        await self._batches.discard()
        async for entries in self._reader.unfinished(self._joiner.streams):
            self._log.info("pending entries read again: {count}", count=len(entries))
            await self._storer.process(self._decoder.decode(entries))
        return State.CONSUMING

    async def _consume(self) -> State:
        self._watchdog.reset()
        if self._joiner.is_due:
            return State.CONNECTING
        now = self._clock.seconds()
        if now >= self._next_claim:
            self._next_claim = now + self._claim_after / 2
            await self._claim()
        decoded = await self._batches.next(self._joiner.streams)
        if self._backoff.failures:
            self._backoff.succeeded()
        if decoded.count:
            await self._storer.process(decoded)
        return State.CONSUMING

    async def _claim(self) -> None:
        """Claim entries that are pending with idle consumers, and process them."""
        # The log would also let this consumer claim its own entries, and process them twice.
        await self._storer.keep(self._batches.ahead)
        for stream in self._joiner.streams:
            async for entries in self._reader.claim_idle(stream, self._claim_after):
                self._log.warn(
                    "{stream}: entries claimed from idle consumers: {count}",
                    stream=stream,
                    count=len(entries),
                )
                self._metrics.claimed.labels(stream).inc(len(entries))
                await self._storer.process(self._decoder.decode(entries))
