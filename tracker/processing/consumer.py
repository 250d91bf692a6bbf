"""Read entries from the streams, and acknowledge them once the sink has committed them.

Every turn of the loop is safe to repeat: an entry that was committed but not yet
acknowledged when the process died is delivered again, and the sink ignores positions that
it has.

Any number of processors share the group. After a restart, each first finishes the entries that
were delivered to it before. Entries that stay pending with an idle consumer are claimed by
another one. If the first consumer resumes and commits them, too, they are stored once.
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

from tracker.errors import Refused, Unavailable
from tracker.interfaces import IPositionSink, SinkUnusable, StoredPosition
from tracker.log.allowance import READ_BYTES
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition, Watchdog
from tracker.processing.attempts import AttemptSize
from tracker.processing.joining import Joining
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.reading import BatchReader
from tracker.processing.storing import FIRST_RETRY, LAST_RETRY, Storing
from tracker.processing.taking import Taker
from tracker.runtime.backoff import Backoff
from tracker.runtime.lifecycle import Abort
from tracker.runtime.waits import Stopped, Waits
from tracker.settings import setting

#: Seconds without a turn of the loop, or a retry, after which the consumer counts as stuck. A
#: sink that is down or slow reports an error long before that.
WATCHDOG_TIMEOUT: Final = 300.0


@frozen
class Pace:
    """Size and delay of batches. Each attribute is an option of the same name."""

    batch_size: int = setting(4000, 1, 100_000, "Entries of each stream in one batch, at most.")
    batch_bytes: int = setting(
        READ_BYTES,
        1 << 20,
        1 << 30,
        "Bytes of entries in one batch, of all streams together. A batch has at least one entry, "
        "however long it is.",
    )
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


class State(Enum):
    """Stage of a consumer's loop. Each has a method of the consumer, which returns the next one."""

    OPENING = "opening the sink"
    CONNECTING = "waiting for the log"
    JOINING = "joining the group"
    RECOVERING = "finishing the entries from before a restart"
    CONSUMING = "consuming"


class Consumer(Service):
    """One member of the group ``processor``.

    An error of the log takes its loop back to :attr:`State.CONNECTING`, a stop ends it.

    :param reader: this consumer's membership in the group.
    :param vendors: stream → the vendor whose positions it holds.
    :param condition: met while entries are stored.
    :param abort: called with the reason if the sink can never be opened.
    :param metrics: count entries by their result.
    :param name_attributes: adds names to a position, where they are asked for.
    :param watchdog: is reset while this consumes, however long the sink takes.
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
        pace: Pace,
        metrics: ProcessMetrics,
        name_attributes: Callable[[StoredPosition], StoredPosition] | None = None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._condition = condition
        self._abort = abort
        self._claim_after = pace.claim_after
        self._metrics = metrics
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        self._waits = Waits(clock)
        self._backoff = Backoff(clock, FIRST_RETRY, LAST_RETRY)
        self._taker = Taker(clock, vendors, metrics, name_attributes)
        self._storing = Storing(
            clock=clock,
            waits=self._waits,
            reader=reader,
            sink=sink,
            size=AttemptSize(pace.batch_size * len(vendors)),
            condition=condition,
            report_entry=self._taker.report,
            metrics=metrics,
            watchdog=self._watchdog,
        )
        self._joining = Joining(
            clock=clock,
            reader=reader,
            storing=self._storing,
            streams=vendors,
            condition=condition,
        )
        self._batches = BatchReader(
            waits=self._waits,
            reader=reader,
            taker=self._taker,
            size=pace.batch_size,
            delay=pace.batch_delay,
        )
        self._next_claim = 0.0
        self._loop: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """Open the sink, then consume."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._run()).addErrback(self._died)

    def _died(self, failure: Failure) -> None:
        self._log.failure("the consumer died", failure)
        self._abort(f"the consumer died: {failure.getErrorMessage()}")

    def stopService(self) -> Deferred[None]:
        """Finish the batch at hand, then close the sink."""
        super().stopService()
        self._watchdog.suspend()
        self._waits.stop()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._loop
        self._batches.cancel()
        await self._storing.close()

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
        await self._storing.open()
        return State.CONNECTING

    async def _connect(self) -> State:
        self._watchdog.suspend()
        await self._waits.result(self._reader.when_connected())
        return State.JOINING

    async def _join(self) -> State:
        await self._joining.join()
        return State.RECOVERING

    async def _recover(self) -> State:
        """Process entries that were delivered to this consumer and are not acknowledged."""
        # The entries of a read that was under way when the log failed are pending now.
        await self._batches.discard()
        async for entries in self._reader.unfinished(self._joining.streams):
            self._log.info("{count} entries are pending from before", count=len(entries))
            await self._storing.process(self._taker.take(entries))
        return State.CONSUMING

    async def _consume(self) -> State:
        self._watchdog.reset()
        if self._joining.is_due:
            return State.CONNECTING
        now = self._clock.seconds()
        if now >= self._next_claim:
            self._next_claim = now + self._claim_after / 2
            await self._claim()
        taken = await self._batches.next(self._joining.streams)
        if self._backoff.failures:
            self._backoff.succeeded()
        if taken.count:
            await self._storing.process(taken)
        return State.CONSUMING

    async def _claim(self) -> None:
        """Claim entries that are pending with idle consumers, and process them."""
        # The log gives a consumer its own entries, too: they would be stored twice.
        await self._storing.keep(self._batches.ahead)
        for stream in self._joining.streams:
            async for entries in self._reader.claim_idle(stream, self._claim_after):
                self._log.warn(
                    "{count} entries of {stream} claimed from idle consumers",
                    count=len(entries),
                    stream=stream,
                )
                self._metrics.claimed.labels(stream).inc(len(entries))
                await self._storing.process(self._taker.take(entries))
