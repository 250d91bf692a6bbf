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
from contextlib import suppress
from enum import Enum
from math import inf
from typing import Final

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.errors import Refused, Unavailable
from tracker.interfaces import IPositionSink, SinkUnusable, StoredPosition
from tracker.keys import PROCESSOR_GROUP
from tracker.log.allowance import READ_BYTES, Allowance
from tracker.log.entries import BEGINNING, entry_order
from tracker.log.interfaces import IRecordReader
from tracker.observe.health import Condition, Pulse
from tracker.processing.attempts import AttemptSize
from tracker.processing.metrics import ProcessMetrics
from tracker.processing.storing import FIRST_RETRY, LAST_RETRY, Storing
from tracker.processing.taking import Taken, Taker
from tracker.redis.protocol import is_wrong_type
from tracker.runtime.backoff import Backoff
from tracker.runtime.lifecycle import Abort
from tracker.runtime.waits import Stopped, Waits
from tracker.settings import setting
from tracker.untrusted import listed

#: Seconds that a read waits for an entry.
READ_WAIT: Final = 5.0
#: Seconds between two looks at keys that are left out.
CHECK_INTERVAL: Final = 10.0
#: Seconds without a turn of the loop, or a retry, after which the consumer counts as stuck. A
#: sink that is down or slow reports an error long before that.
STUCK: Final = 300.0


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


@frozen
class _Read:
    """A batch that is being read."""

    allowance: Allowance
    came: Taken
    """What has come so far, of which nothing is stored."""
    taken: Deferred[Taken]
    """Fires with that when the read is complete."""


class Consumer(Service):
    """One member of the group ``processor``.

    An error of the log takes its loop back to :attr:`State.CONNECTING`, a stop ends it.

    :param reader: this consumer's membership in the group.
    :param vendors: stream → the vendor whose positions it holds.
    :param condition: met while entries are stored.
    :param abort: called with the reason if the sink can never be opened.
    :param metrics: count entries by their result.
    :param name_attributes: adds names to a position, where they are asked for.
    :param pulse: beats while this consumes, however long the sink takes.
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
        pulse: Pulse | None = None,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._configured = sorted(vendors)
        self._streams = self._configured
        self._condition = condition
        self._abort = abort
        self._pace = pace
        self._metrics = metrics
        self._pulse = pulse or Pulse(STUCK)
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
            pulse=self._pulse,
        )
        self._ahead: _Read | None = None
        self._next_claim = 0.0
        self._next_join = inf  # earlier if keys are left out
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
        self._pulse.rest()
        self._waits.stop()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._loop
        if self._ahead is not None:  # its entries stay pending
            self._ahead.taken.addErrback(lambda _: None).cancel()
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
                self._pulse.beat()
                await self._waits.sleep(self._backoff.failed())
                state = State.CONNECTING

    async def _open(self) -> State:
        await self._storing.open()
        return State.CONNECTING

    async def _connect(self) -> State:
        self._pulse.rest()
        await self._waits.result(self._reader.when_connected())
        return State.JOINING

    async def _join(self) -> State:
        """Join the group of each stream, and report the keys that are not streams.

        Such a key is left out: Redis would refuse to read the others together with it.

        :raises Refused: if no key is a stream.
        """
        streams, refusals = [], {}
        for stream in self._configured:
            try:
                await self._join_group(stream)
            except Refused as error:
                if not is_wrong_type(error):
                    raise
                refusals[stream] = error
            else:
                streams.append(stream)
        if not streams:
            raise next(iter(refusals.values()))
        self._streams = streams
        self._next_join = inf
        if refusals:
            self._next_join = self._clock.seconds() + CHECK_INTERVAL
            left_out = listed(refusals)
            self._condition.fails(
                f"not a stream, and not read: {left_out}. Rename or delete the key."
            )
        else:
            self._condition.met()
        return State.RECOVERING

    async def _join_group(self, stream: str) -> None:
        unfinished = await self._storing.unfinished(stream)
        after = BEGINNING
        if unfinished is not None:
            # The group has existed and is lost, with the pending entries of all consumers. What is
            # read again is stored once.
            after = f"{max(0, entry_order(unfinished)[0] - 1)}-0"
        if await self._reader.join(stream, after):
            self._log.warn(
                "group {group} created on {stream}, after {after}",
                group=PROCESSOR_GROUP,
                stream=stream,
                after=after,
            )

    async def _recover(self) -> State:
        """Process entries that were delivered to this consumer and are not acknowledged."""
        if self._ahead is not None:
            # The entries of a read that was under way when Redis failed are pending now.
            ahead, self._ahead = self._ahead, None
            with suppress(Refused, Unavailable):
                await self._waits.result(ahead.taken)
        async for entries in self._reader.unfinished(self._streams):
            self._log.info("{count} entries are pending from before", count=len(entries))
            await self._storing.process(self._taker.take(entries))
        return State.CONSUMING

    async def _consume(self) -> State:
        self._pulse.beat()
        now = self._clock.seconds()
        if now >= self._next_join:
            return State.CONNECTING
        if now >= self._next_claim:
            self._next_claim = now + self._pace.claim_after / 2
            await self._claim()
        taken = await self._next_batch()
        self._backoff.succeeded()
        if taken.count:
            await self._storing.process(taken)
        return State.CONSUMING

    async def _next_batch(self) -> Taken:
        """Return a full batch, or what arrives within the delay; start to read the next one."""
        idle = self._ahead is None
        ahead, self._ahead = self._ahead or self._start_read(), None
        taken = await self._waits.result(ahead.taken)
        if 0 < taken.count < self._pace.batch_size:
            # If it was under way while the last batch was committed, that was delay enough.
            if idle:
                await self._waits.sleep(self._pace.batch_delay)
            if self._waits.stopped:
                raise Stopped  # the entries stay pending, and are read first after the next start
            if ahead.allowance.open():
                self._taker.take(await self._reader.read(ahead.allowance), taken)
        if taken.count:
            self._ahead = self._start_read()
        return taken

    def _start_read(self) -> _Read:
        allowance = self._reader.allowance(self._streams)
        read = Deferred.fromCoroutine(self._reader.read(allowance, READ_WAIT))
        came = Taken()
        return _Read(allowance, came, read.addCallback(self._taker.take, came))

    async def _claim(self) -> None:
        """Claim entries that are pending with idle consumers, and process them."""
        if self._ahead is not None:
            # Redis gives a consumer its own entries, too: they would be stored twice.
            await self._storing.keep(self._ahead.came)
        for stream in self._streams:
            async for entries in self._reader.overdue(stream, self._pace.claim_after):
                self._log.warn(
                    "{count} entries of {stream} claimed from idle consumers",
                    count=len(entries),
                    stream=stream,
                )
                self._metrics.claimed.labels(stream).inc(len(entries))
                await self._storing.process(self._taker.take(entries))
