"""Append entries to a stream, and report when they are durable.

All packets that arrive in one reactor turn go to Redis in one call, or in several if they are many,
so that Redis works on the first ones while the others are decoded. The answer to a call confirms
every packet in it. A call that fails confirms nothing: its packets go back to the head of the queue
and are appended again once Redis is usable, which may append some of them twice. The processor
stores them once.

Memory stays bounded without a limit of its own: a connection has at most one packet here, which is
given up when the connection ends. The gateway limits the messages that outlive their connections.
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

#: Entries in one call to Redis, which it works off in about half a millisecond. As soon as
#: there are so many, they are sent.
MAX_RECORDS: Final = 100
#: Payload bytes in one call.
MAX_BYTES: Final = 512 * 1024
#: Calls that may be under way at once.
MAX_IN_FLIGHT: Final = 16
#: Seconds until a refused call is repeated.
RETRY_DELAY: Final = 0.5
#: Seconds after which the publisher is stuck if waiting packets were not sent to Redis.
WATCHDOG_TIMEOUT: Final = 60.0
#: Seconds that a stop waits for answers of Redis.
STOP_TIMEOUT: Final = 10.0


class _Packet(Deferred[None]):
    """The entries of one packet; fires when they are confirmed, or when it was cancelled.

    It is a Deferred, rather than has one, since there is one for each packet.
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
        """Packets are sent in the order of their numbers."""
        self.since = since
        """Time of its arrival."""
        self.size = 0
        """Bytes of its payloads, in all."""
        for entry in entries:
            self.size += len(entry.payload)


class StreamPublisher(Service):
    """Appends packets to one stream.

    :param condition: met while Redis accepts appends.
    :param watchdog: is reset while something is to be appended and Redis is there.
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
        self._answered_on = writer.connections  # the connection on which the last answer came
        self._condition = condition
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        # A dict for its order and for removal anywhere in it at no cost.
        self._waiting: dict[_Packet, None] = {}
        self._numbers = count()
        self._new_records = 0  # since the last flush
        self._in_flight = 0
        self._next_flush: IDelayedCall | None = None
        self._reconnection: Deferred[None] | None = None
        self._refusal: str | None = None
        self._stopped: Deferred[None] | None = None

    def startService(self) -> None:
        """Accept packets. Whether Redis accepts appends is known at the first one."""
        super().startService()
        self._condition.met()

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        """See :meth:`tracker.interfaces.IGateway.publish`."""
        if not self.running:
            return fail(NotAppended("stopping"))
        packet = _Packet(self._forget, entries, next(self._numbers), self._clock.seconds())
        if not (self._waiting or self._in_flight or self._reconnection):
            self._watchdog.reset()
        self._waiting[packet] = None
        self._new_records += len(entries)
        if self._next_flush is None and self._reconnection is None:
            self._next_flush = self._clock.callLater(0, self._flush)
        elif self._new_records >= MAX_RECORDS and self._refusal is None:
            self._send_waiting()
        return packet

    @property
    def waiting(self) -> int:
        """Packets that were not sent to Redis."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls that are under way."""
        return self._in_flight

    def _forget(self, packet: _Packet) -> None:
        self._waiting.pop(packet, None)
        self.figures.given_up(packet.entries)

    def stopService(self) -> Deferred[None]:
        """Accept no more packets, and finish those that are here if Redis accepts them.

        If Redis is down or refuses appends, the packets that were not sent fail at once; if it
        takes too long, they fail then.
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
            "stopped before Redis answered {calls} calls; their records stay unacknowledged",
            calls=self._in_flight,
            failure=failure,
        )
        self._abandon_waiting()

    def _abandon_waiting(self) -> None:
        if self._next_flush is not None:
            self._next_flush.cancel()
            self._next_flush = None
        waiting, self._waiting = self._waiting, {}
        for packet in waiting:
            # A connection that gives up a message ends, and so cancels its records.
            if not packet.called:
                self.figures.given_up(packet.entries)
                packet.errback(NotAppended("stopping"))

    def _flush_in(self, seconds: float) -> None:
        self._next_flush = self._clock.callLater(seconds, self._flush)

    def _flush(self) -> None:
        self._next_flush = None
        if not self._waiting:
            # Nothing is left to try an append with. The next one shows whether Redis accepts it.
            self._accepted_again()
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
        # A server that has restarted does not know the script. Its first call is then sent again,
        # and those behind it would overtake it.
        proven = self._answered_on == self._writer.connections
        limit = MAX_IN_FLIGHT if proven else 1
        while self._waiting and self._in_flight < limit and self._writer.connected:
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

    def _take_batch(self) -> list[_Packet]:
        batch: list[_Packet] = []
        records = size = 0
        for packet in self._waiting:
            records += len(packet.entries)
            size += packet.size
            if batch and (records > MAX_RECORDS or size > MAX_BYTES):
                break
            batch.append(packet)
        for packet in batch:
            del self._waiting[packet]
        return batch

    def _send(self, batch: list[_Packet]) -> None:
        self._in_flight += 1
        self._watchdog.reset()
        entries = (
            batch[0].entries
            if len(batch) == 1
            else [entry for packet in batch for entry in packet.entries]
        )
        self._writer.append(entries).addCallbacks(
            self._answered,
            self._failed,
            callbackArgs=(batch, len(entries), self._clock.seconds()),
            errbackArgs=(batch,),
        ).addErrback(lambda failure: self._log.failure("an append went wrong", failure))

    def _answered(self, _: int, batch: list[_Packet], records: int, asked: float) -> None:
        self._in_flight -= 1
        self._answered_on = self._writer.connections
        if self._refusal is not None:
            self._accepted_again()
        now = self._clock.seconds()
        figures = self.figures
        figures.batches[min(records, MAX_COUNTED_RECORDS)] += 1
        figures.calls.observe(now - asked)
        codecs, wait = figures.codecs, figures.waits.observe
        for packet in batch:
            if not packet.called:
                entries = packet.entries
                counted = codecs[entries[0].codec]
                counted.frames += 1
                counted.records += len(entries)
                wait(now - packet.since)
                packet.callback(None)
        self._go_on(0)

    def _failed(self, failure: Failure, batch: list[_Packet]) -> None:
        refused = failure.trap(Refused, Unavailable) is Refused
        self.figures.refused += refused
        self.figures.unanswered += not refused
        self._in_flight -= 1
        self._put_back([packet for packet in batch if not packet.called])
        if not self.running:
            self._abandon_waiting()
        if failure.check(Unanswered):
            # Redis may answer other commands all the same, so its connection looks well.
            self._refuse("appends are not answered")
        if failure.check(Unavailable):
            self._go_on(0)
            return
        self._refuse(f"appends refused: {failure.getErrorMessage()}")
        if self.running and self._next_flush is None:
            self._flush_in(RETRY_DELAY)
        self._go_on(RETRY_DELAY)

    def _put_back(self, packets: list[_Packet]) -> None:
        """Put them at the head, as a rule: only packets of earlier calls have waited longer."""
        first = next(iter(self._waiting), None)
        in_order = not packets or first is None or packets[-1].number < first.number
        packets += self._waiting
        if not in_order:
            packets.sort(key=lambda packet: packet.number)
        self._waiting = dict.fromkeys(packets)

    def _refuse(self, reason: str) -> None:
        if reason != self._refusal:
            self._refusal = reason
            self._condition.fails(reason)

    def _accepted_again(self) -> None:
        if self._refusal is not None:
            self._refusal = None
            self._condition.met()

    def _go_on(self, delay: float) -> None:
        """Send what waits after a delay; if nothing is left to do, rest, or stop if asked to."""
        if self._waiting:
            if self._next_flush is None and self._reconnection is None:
                self._flush_in(delay)
        elif self._in_flight == 0:
            self._watchdog.suspend()
            if self._stopped is not None and not self._stopped.called:
                self._stopped.callback(None)
