"""Append entries to a stream, and report when they are appended.

All frames that arrive in one reactor turn go to Redis in one call, or in several calls if they are
many, so that Redis works on the first ones while the others are decoded. The reply to a call
confirms every frame in it. The frames of a call that fails return to the head of the queue, and are
appended again once Redis is usable. Some of them may be appended twice; the processor stores them
once.

Memory is bounded without a separate limit: a connection has at most one frame in the queue, which
is given up when the connection ends. The gateway limits the detached messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.errors import Refused, Unanswered, Unavailable
from tracker.ingestion.figures import MAX_COUNTED_RECORDS, AppendFigures
from tracker.interfaces import NotAppended
from tracker.log.interfaces import IRecordWriter
from tracker.observe.health import Condition, Watchdog
from tracker.position import Entry
from tracker.wording import counted

#: Maximum number of entries in one call, which Redis handles in about half a millisecond. When
#: so many entries wait, they are sent at once.
MAX_RECORDS: Final = 100
#: Maximum number of bytes of payloads and extra facts in one call.
MAX_BYTES: Final = 512 * 1024
#: Maximum number of calls without a reply.
MAX_IN_FLIGHT: Final = 16
#: Seconds until a refused call is repeated.
RETRY_DELAY: Final = 0.5
#: Seconds without a confirmation of an append after which the log does not count as confirming.
CONFIRM_TIMEOUT: Final = 2.0
#: Seconds after which the publisher counts as stuck if waiting frames were not sent to Redis.
WATCHDOG_TIMEOUT: Final = 60.0
#: Seconds that a stop waits for replies of Redis.
STOP_TIMEOUT: Final = 10.0


class _Frame(Deferred[None]):
    """The entries of one frame or datagram; fires when they are appended, or is cancelled.

    It subclasses Deferred because a separate object for each frame would cost too much.
    """

    def __init__(
        self,
        forget: Callable[[Any], None],
        entries: Sequence[Entry],
        number: int,
        since: float,
    ) -> None:
        super().__init__(forget)
        self.entries = entries
        self.number = number
        """Frames are sent in the order of their numbers."""
        self.since = since
        """Time of the arrival."""
        self.size = 0
        """Total number of bytes of payloads and extra facts."""
        for entry in entries:
            self.size += len(entry.payload) + len(entry.extra)


class StreamPublisher(Service):
    """Appends frames to one stream.

    :param condition: met while Redis accepts appends.
    :param watchdog: reset while frames wait and Redis is connected.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        writer: IRecordWriter,
        condition: Condition,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.stream = writer.stream
        self.figures = AppendFigures()
        self._clock = clock
        self._writer = writer
        self._replied_on = writer.connections  # the connection of the last reply
        self._condition = condition
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        # A dict for its order and for removal anywhere in it at no cost.
        self._waiting: dict[_Frame, None] = {}
        self._numbers = count()
        self._new_records = 0  # since the last flush
        self._in_flight: dict[int, float] = {}  # number of a call's first frame → its arrival
        self._next_flush: IDelayedCall | None = None
        self._reconnection: Deferred[None] | None = None
        self._refusal: str | None = None
        self._stopped: Deferred[None] | None = None

    def startService(self) -> None:
        """Accept frames. The condition counts as met until an append fails."""
        super().startService()
        self._condition.met()

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        """See :meth:`tracker.interfaces.IGateway.publish`."""
        if not self.running:
            return fail(NotAppended("stopping"))
        frame = _Frame(self._forget, entries, next(self._numbers), self._clock.seconds())
        if not (self._waiting or self._in_flight or self._reconnection):
            self._watchdog.reset()
        self._waiting[frame] = None
        self._new_records += len(entries)
        if self._next_flush is None and self._reconnection is None:
            self._next_flush = self._clock.callLater(0, self._flush)
        elif self._new_records >= MAX_RECORDS and self._refusal is None:
            self._send_waiting()
        return frame

    @property
    def waiting(self) -> int:
        """Number of frames that were not sent to Redis yet."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Number of calls without a reply."""
        return len(self._in_flight)

    @property
    def confirms(self) -> bool:
        """True while Redis confirms appends, as far as is known."""
        if not (self.running and self._writer.connected and self._refusal is None):
            return False
        horizon = self._clock.seconds() - CONFIRM_TIMEOUT
        first = next(iter(self._waiting), None)  # frames wait in the order of their arrival
        if first is not None and first.since <= horizon:
            return False
        return min(self._in_flight.values(), default=horizon + 1) > horizon

    def _forget(self, frame: _Frame) -> None:
        self._waiting.pop(frame, None)
        self.figures.given_up(frame.entries)

    def stopService(self) -> Deferred[None]:
        """Refuse new frames, and append those in the queue.

        Frames that were not sent fail at once if Redis is down or refuses appends, else after
        :data:`STOP_TIMEOUT`.
        """
        super().stopService()
        if self._reconnection is not None:
            self._reconnection.cancel()
        if self._refusal is not None or not self._writer.connected:
            self._abandon_waiting()
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        self._go_on(0)
        return stopped.addTimeout(STOP_TIMEOUT, self._clock).addErrback(self._stop_overdue)

    def _stop_overdue(self, failure: Failure) -> None:
        self._log.warn(
            "{stream}: stopped before Redis replied to {calls}; their records stay unacknowledged",
            stream=self.stream,
            calls=counted(self.in_flight, "call"),
            failure=failure,
        )
        self._abandon_waiting()

    def _abandon_waiting(self) -> None:
        if self._next_flush is not None:
            self._next_flush.cancel()
            self._next_flush = None
        waiting, self._waiting = self._waiting, {}
        for frame in waiting:
            # Giving up a message ends its connection, which cancels its other frames.
            if not frame.called:
                self.figures.given_up(frame.entries)
                frame.errback(NotAppended("stopping"))

    def _flush_in(self, seconds: float) -> None:
        self._next_flush = self._clock.callLater(seconds, self._flush)

    def _flush(self) -> None:
        self._next_flush = None
        if not self._waiting:
            # No frame is left for a retry. The next append shows whether Redis accepts it.
            self._accepted()
            self._go_on(0)
        if self._writer.connected:
            self._send_waiting()
        elif self._waiting and self.running:
            self._flush_when_connected()
        elif self._waiting:
            self._abandon_waiting()
            self._go_on(0)

    def _send_waiting(self) -> None:
        self._new_records = 0
        # A restarted server does not know the script, so that the first call is sent again. Calls
        # that were sent after it would overtake it.
        proven = self._replied_on == self._writer.connections
        limit = MAX_IN_FLIGHT if proven else 1
        while self._waiting and len(self._in_flight) < limit and self._writer.connected:
            self._send(self._take_batch())

    def _flush_when_connected(self) -> None:
        def forget(result: Any) -> Any:
            self._reconnection = None
            return result

        self._watchdog.suspend()
        self._reconnection = self._writer.when_connected().addBoth(forget)
        self._reconnection.addCallbacks(
            lambda _: self._flush(), lambda failure: failure.trap(CancelledError, Unavailable)
        )

    def _take_batch(self) -> list[_Frame]:
        batch: list[_Frame] = []
        records = size = 0
        for frame in self._waiting:
            records += len(frame.entries)
            size += frame.size
            if batch and (records > MAX_RECORDS or size > MAX_BYTES):
                break
            batch.append(frame)
        for frame in batch:
            del self._waiting[frame]
        return batch

    def _send(self, batch: list[_Frame]) -> None:
        self._in_flight[batch[0].number] = batch[0].since
        self._watchdog.reset()
        entries = (
            batch[0].entries
            if len(batch) == 1
            else [entry for frame in batch for entry in frame.entries]
        )
        self._writer.append(entries).addCallbacks(
            self._appended,
            self._failed,
            callbackArgs=(batch, len(entries), self._clock.seconds()),
            errbackArgs=(batch,),
        ).addErrback(
            lambda failure: self._log.failure(
                "{stream}: append failed", failure, stream=self.stream
            )
        )

    def _appended(self, _: int, batch: list[_Frame], records: int, sent: float) -> None:
        del self._in_flight[batch[0].number]
        self._replied_on = self._writer.connections
        if self._refusal is not None:
            self._accepted()
        now = self._clock.seconds()
        figures = self.figures
        figures.batches[min(records, MAX_COUNTED_RECORDS)] += 1
        figures.calls.observe(now - sent)
        codecs, wait = figures.codecs, figures.waits.observe
        for frame in batch:
            if not frame.called:
                entries = frame.entries
                counted = codecs[entries[0].codec]
                counted.frames += 1
                counted.records += len(entries)
                wait(now - frame.since)
                frame.callback(None)
        self._go_on(0)

    def _failed(self, failure: Failure, batch: list[_Frame]) -> None:
        refused = failure.trap(Refused, Unavailable) is Refused
        self.figures.refused += refused
        self.figures.unanswered += not refused
        del self._in_flight[batch[0].number]
        self._put_back([frame for frame in batch if not frame.called])
        if not self.running:
            self._abandon_waiting()
        if failure.check(Unanswered):
            # Redis may still reply to other commands, so its connection may count as healthy.
            self._report_refusal("Redis does not reply to appends")
        if failure.check(Unavailable):
            self._go_on(0)
            return
        self._report_refusal(f"appends refused: {failure.getErrorMessage()}")
        if self.running and self._next_flush is None:
            self._flush_in(RETRY_DELAY)
        self._go_on(RETRY_DELAY)

    def _put_back(self, frames: list[_Frame]) -> None:
        """Return frames to the queue in the order of their numbers, usually to its head."""
        first = next(iter(self._waiting), None)
        in_order = not frames or first is None or frames[-1].number < first.number
        frames += self._waiting
        if not in_order:
            frames.sort(key=lambda frame: frame.number)
        self._waiting = dict.fromkeys(frames)

    def _report_refusal(self, reason: str) -> None:
        if reason != self._refusal:
            self._refusal = reason
            self._condition.fails(reason)

    def _accepted(self) -> None:
        if self._refusal is not None:
            self._refusal = None
            self._condition.met()

    def _go_on(self, delay: float) -> None:
        """Send waiting frames after a delay; if nothing is left, suspend the watchdog, or stop."""
        if self._waiting:
            if self._next_flush is None and self._reconnection is None:
                self._flush_in(delay)
        elif not self._in_flight:
            self._watchdog.suspend()
            if self._stopped is not None and not self._stopped.called:
                self._stopped.callback(None)
