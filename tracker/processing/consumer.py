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
from typing import Any, Final

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tracker.errors import Refused, Unavailable
from tracker.interfaces import IPositionSink, SinkUnusable, StoredPosition
from tracker.keys import PROCESSOR_GROUP
from tracker.log.allowance import READ_BYTES, Allowance
from tracker.log.entries import entry_order
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
        clock: Any,
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
        self._backoff = Backoff(clock, FIRST_RETRY, LAST_RETRY)
        self._loop: Deferred[None] | None = None

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
        self._waits.stop()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._loop is not None:
            await self._loop
        if self._ahead is not None:  # its entries stay pending
            self._ahead.taken.addErrback(lambda _: None).cancel()
        await self._storing.close()

    async def _run(self) -> None:
        try:
            await self._storing.open()
        except SinkUnusable as error:
            self._abort(str(error))
            return
        while self.running:
            try:
                await self._consume()
            except Stopped:
                return
            except (Refused, Unavailable) as error:
                self._condition.fails(f"cannot read the streams: {error}")
                self._pulse.beat()
                await self._waits.sleep(self._backoff.failed())

    async def _consume(self) -> None:
        """Consume until stopped, or until Redis fails."""
        self._pulse.rest()
        await self._waits.result(self._reader.when_connected())
        await self._find_streams()
        checked = self._clock.seconds()
        await self._forget_read()
        await self._finish_pending()
        while self.running:
            self._pulse.beat()
            left_out = len(self._streams) < len(self._configured)
            if left_out and self._clock.seconds() - checked >= CHECK_INTERVAL:
                return  # to look at them again
            await self._claim()
            taken = await self._next_batch()
            self._backoff.succeeded()
            if taken.count:
                await self._storing.process(taken)

    async def _find_streams(self) -> None:
        """Make the group of each stream, and report the keys that are not streams.

        Such a key is left out: Redis would refuse to read the others together with it.

        :raises Refused: if no key is a stream.
        """
        streams, refusals = [], {}
        for stream in self._configured:
            try:
                await self._make_group(stream)
            except Refused as error:
                if not is_wrong_type(error):
                    raise
                refusals[stream] = error
            else:
                streams.append(stream)
        if not streams:
            raise next(iter(refusals.values()))
        self._streams = streams
        why = f"not a stream, and not read: {listed(refusals)}. Rename or delete the key."
        if refusals:
            self._condition.fails(why)
        else:
            self._condition.met()

    async def _finish_pending(self) -> None:
        """Process entries that were delivered to this consumer before it was restarted."""
        async for entries in self._reader.unfinished(self._streams):
            self._log.info("{count} entries are pending from before", count=len(entries))
            await self._storing.process(self._taker.take(entries))
            if not self.running:
                return

    async def _make_group(self, stream: str) -> None:
        answer = await self._storing.unfinished(stream)
        if answer is None:
            return
        (unfinished,) = answer
        after = "0-0"
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

    async def _forget_read(self) -> None:
        # The entries of a read that was under way when Redis failed are pending now.
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            with suppress(Refused, Unavailable):
                await self._waits.result(ahead.taken)

    async def _next_batch(self) -> Taken:
        """Return a full batch, or what arrives within the delay; start to read the next one."""
        idle = self._ahead is None
        ahead, self._ahead = self._ahead or self._start_read(), None
        taken = await self._waits.result(ahead.taken)
        # If it was under way while the last batch was committed, that was delay enough.
        if idle and 0 < taken.count < self._pace.batch_size:
            await self._waits.sleep(self._pace.batch_delay)
        if not self.running:
            return Taken()  # they stay pending, and are read first after the next start
        if 0 < taken.count < self._pace.batch_size and ahead.allowance.open():
            more = await self._reader.read(ahead.allowance)
            self._taker.take(more, taken)
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
        if self._clock.seconds() < self._next_claim:
            return
        self._next_claim = self._clock.seconds() + self._pace.claim_after / 2
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
                if not self.running:
                    return
