"""The conversation with a Teltonika device over a stream transport.

A connection is in one of three states, each a method that reads one thing:

======== ============================ ===============================================
state    what may come                what follows
======== ============================ ===============================================
login    pings, then the login        ``01`` → frames; ``00`` → closed
frames   pings                        nothing
         the same login again         ``01``
         records                      published → acknowledged → frames
         a message                    published; it is never acknowledged. It may also
                                      answer a command
closed   whatever the peer still sent nothing
======== ============================ ===============================================

Anything else, and silence for too long, is answered by closing the connection: the
device reconnects and sends again what was not acknowledged.

While Redis has not confirmed a packet nothing more is decoded, and what the peer sends
meanwhile is buffered up to a limit: a connection holds one unacknowledged packet at most,
all that a stop-and-wait device ever sends. The same holds while a peer does not read its ACKs,
is over its budget of work, or is over its rate of messages (see ``tracker.vendors.throttle``).
The answer to a command overtakes messages that are held.

A message is not acknowledged, so its device never sends it again: it outlives its
connection on the way to Redis, and those that wait in the buffer when the connection
ends are published then. Only a few of a connection, and of all, are under way at a time.

A command is written where it can come between nothing: no packet waits for its
acknowledgement, and none is half received. Nor does it follow the login's answer at once,
since a device reads that byte alone, and what comes with it as a part of the next answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.command import CommandFrame
from tracker.interfaces import (
    Admission,
    IGateway,
    ISession,
    NotAccepted,
    Observer,
    Rejection,
    SessionEnded,
    SessionFacts,
    Traffic,
)
from tracker.net.endpoints import keep_alive, readable
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.position import Entry
from tracker.vendors.teltonika.commands import AwaitedAnswer, command_frame, maybe_answer
from tracker.vendors.teltonika.frame import PING, decode_frame, frame_size, swallow_pings
from tracker.vendors.teltonika.layouts import Layouts
from tracker.vendors.teltonika.leftovers import Leftovers, Rest
from tracker.vendors.teltonika.login import ACCEPT, IMEI_DIGITS, REFUSE, decode_login
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message
from tracker.vendors.teltonika.positions import REPEATED_ID
from tracker.vendors.teltonika.reader import EntryReader, Reading
from tracker.vendors.teltonika.rejections import rejection
from tracker.vendors.throttle import Throttle, Workload
from tracker.vendors.turns import Turn
from tracker.vendors.writer import Writer

#: Seconds for a peer to take what was written before its connection was closed.
CLOSE_GRACE: Final = 5.0
#: Seconds of work for an answer in a turn of its own; measured.
ANSWER_WORK: Final = 0.00003

#: Seconds after the login in which no command is written, unless a packet comes before.
LOGIN_SETTLES: Final = 1.0

#: How a login begins; a frame begins with two zeros.
_LOGIN_START: Final = IMEI_DIGITS.to_bytes(2, "big")


@implementer(ISession, IPushProducer)
class TeltonikaProtocol(Protocol):
    """One connection of a device."""

    # Twisted types it as optional; it is set before any method below is called.
    transport: ITCPTransport
    _writer: Writer

    def __init__(
        self, gateway: IGateway, workload: Workload, layouts: Layouts, leftovers: Leftovers
    ) -> None:
        limits = workload.limits
        self.device_id: str | None = None
        self.peer = ""
        self.host = ""
        self._gateway = gateway
        self._leftovers = leftovers
        self._limits = limits
        self._clock = workload.clock
        truncated = gateway.tally.count_truncated
        self._reader = EntryReader(layouts, limits.records, limits.message_bytes, truncated)
        self._throttle = Throttle(workload, self._go_on)
        self._timeout: IDelayedCall | None = None
        self._last_heard = 0.0
        self._since = 0.0
        self._codec = ""
        self._records = 0
        self._bytes = 0
        self._observer: Observer | None = None
        self._retiring = False
        self._told_of_repeated_ids = False
        self._buffer = bytearray()
        self._read_next: Callable[[], bool] = self._read_login
        self._unconfirmed: Deferred[None] | None = None
        self._settled_at = 0.0  # from then on the login's answer has been read alone
        self._turn: Turn | None = None  # somebody wants to write a command
        self._awaited = AwaitedAnswer()
        self._advancing = False
        self._unread = False  # the peer does not read what is written to it
        self._paused = False  # and so, or for another reason, it is not read either

    def connectionMade(self) -> None:
        """Tell the gateway, and have the kernel notice a peer that vanishes."""
        address = self.transport.getPeer()
        self.peer = readable(address)
        self.host = getattr(address, "host", "")
        self._gateway.opened(self)
        keep_alive(self.transport)
        self._writer = Writer(self.transport)
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]
        self._timeout = self._clock.callLater(self._limits.login_timeout, self._login_overdue)

    def dataReceived(self, data: bytes) -> None:
        """Buffer what the peer sent and go as far as it allows."""
        if self._closed:
            return  # TLS goes on delivering until the peer closes too
        self._buffer += data
        size = len(data)
        self._bytes += size
        self._gateway.tally.bytes_received += size
        if not self._waits:
            self._advance()
        else:  # for Redis, or for its peer: whether what came is whole shows later
            self._last_heard = self._clock.seconds()
            if self._throttle.over_rate:
                self._take_answer()
        if self._turn is not None:
            self._give_turn()
        if self._full:
            # Not before: pausing at every packet costs two system calls, and a paused
            # transport does not see its peer leave.
            self._pause()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up what was not confirmed: the device will send it again."""
        self._end()
        self._forget_timeout()
        self._gateway.closed(self)

    def close(self) -> None:
        """See :class:`tracker.interfaces.ISession`."""
        if self._closed:
            return
        self._end()
        self._forget_timeout()
        self._timeout = self._clock.callLater(CLOSE_GRACE, self.transport.abortConnection)
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self.transport.loseConnection()

    def retire(self) -> None:
        """See ISession."""
        self._retiring = True
        self._go_on()

    def facts(self) -> SessionFacts:
        """See ISession."""
        return SessionFacts(self._since, self._last_heard, self._codec, self._records, self._bytes)

    def observe(self, observer: Observer | None) -> None:
        """See ISession."""
        self._observer = observer

    def command_frame(self, text: str, codec: str) -> CommandFrame:
        """See ISession."""
        assert self.device_id is not None  # noqa: S101 - the login comes first
        return command_frame(self.device_id, text, codec)

    def when_free(self, radio_sleeps: float = 0) -> Deferred[None]:
        """See ISession."""
        if self._closed:
            return fail(SessionEnded())
        turn = self._turn = Turn(self._clock, radio_sleeps, self._give_turn, self._forget_turn)
        self._give_turn()
        return turn.free

    def write_command(self, data: bytes) -> None:
        """See ISession."""
        self._awaited.expect(data)
        self._write(data)

    # The transport asks for these when what is written is not taken by the peer.

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self._unread = True
        self._pause()

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._unread = False
        self._go_on()

    def stopProducing(self) -> None:
        """See IPushProducer."""

    @property
    def _waits(self) -> bool:
        return (
            self._unconfirmed is not None
            or self._throttle.held
            or self._unread
            or self._throttle.too_many_under_way
        )

    @property
    def _full(self) -> bool:
        return self._waits and len(self._buffer) > self._limits.buffer_bytes

    @property
    def _closed(self) -> bool:
        return self._read_next == self._read_nothing

    def _pause(self) -> None:
        if not (self._paused or self._closed):
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def _go_on(self) -> None:
        if not self._waits:
            self._advance()
        if self._paused and not self._closed and not self._full:
            self._paused = False
            self.transport.resumeProducing()  # type: ignore[attr-defined]
        if self._turn is not None:
            self._give_turn()
        if self._retiring and not (self._waits or self._buffer):
            self.close()

    def _end(self) -> None:
        """Read nothing more; of what is not confirmed and not yet read, keep the messages."""
        logged_in = self._read_next == self._read_frame
        self._read_next = self._read_nothing
        unread, self._buffer = self._buffer, bytearray()
        if logged_in and unread and self.device_id is not None:
            budget = self._throttle.messages(self.device_id)
            self._leftovers.publish(Rest(self, budget, self._read, unread))
        self._throttle.end(self.device_id)
        if self._unconfirmed is not None:
            self._unconfirmed.cancel()
        if self._turn is not None:
            self._turn.lose()

    def _give_turn(self) -> None:
        """Let a command be written, if one is to be, and may be now."""
        if self._advancing or self._waits or self._buffer or self._read_next != self._read_frame:
            return  # what comes next is followed by another look
        if self._turn is not None:
            self._turn.maybe_give(self._settled_at, self._last_heard)

    def _forget_turn(self) -> None:
        self._turn = None

    def _forget_timeout(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()

    def _login_overdue(self) -> None:
        self._disconnect(f"no login within {self._limits.login_timeout:g} s", Rejection.NO_LOGIN)

    def _check_idle(self) -> None:
        # One timer for each connection, not one for each frame.
        if self._throttle.held:
            self._last_heard = self._clock.seconds()  # it is held because it has sent too much
        left = self._last_heard + self._limits.idle_timeout - self._clock.seconds()
        if left <= 0:
            self._disconnect(f"nothing whole for {self._limits.idle_timeout:g} s", Rejection.IDLE)
        else:
            self._timeout = self._clock.callLater(left, self._check_idle)

    def _advance(self) -> None:
        if self._advancing:
            return  # a packet confirmed at once: the loop below goes on by itself
        self._advancing = True
        try:
            while self._buffer and not self._waits and self._read_next():
                pass
        finally:
            self._advancing = False

    # The states. Each returns whether it is worth looking at the buffer again.

    def _read_login(self) -> bool:
        swallow_pings(self._buffer)
        outcome = decode_login(self._buffer)
        if isinstance(outcome, Incomplete):
            return False
        if isinstance(outcome, Fatal):
            return self._reject(outcome.reason, Rejection.LOGIN)
        if isinstance(outcome, Rejected):
            self._write(REFUSE)
            return self._reject(outcome.reason, Rejection.LOGIN)
        del self._buffer[: outcome.used]
        # Known before the gateway is told: what has waited on an older connection of the
        # device is prepared for this one at once.
        self.device_id = outcome.value
        admission = self._gateway.login(self, outcome.value)
        if admission is not Admission.SERVED:
            self.device_id = None
            if admission is Admission.REFUSED:
                self._write(REFUSE)
            self.close()
            return False
        self._read_next = self._read_frame
        self._forget_timeout()
        self._since = self._last_heard = self._clock.seconds()
        self._timeout = self._clock.callLater(self._limits.idle_timeout, self._check_idle)
        self._write(ACCEPT)
        self._login_settles()
        return True

    def _read_frame(self) -> bool:
        if self._buffer[0] == PING:
            swallow_pings(self._buffer)
            self._last_heard = self._clock.seconds()
            return True
        throttle = self._throttle
        if throttle.credit <= 0 and not throttle.may_work():
            return False
        if self._buffer[:2] == _LOGIN_START:
            return self._read_repeated_login()
        now = self._clock.seconds()
        limits = self._limits
        frame = decode_frame(self._buffer, limits.frame_bytes, limits.command_frame_bytes)
        if isinstance(frame, Incomplete):
            return False
        if isinstance(frame, Fatal):
            return self._reject(frame.reason, rejection(frame.field))
        data = frame.value
        if data[0] in MESSAGE_CODECS and not self._may_pass(data):
            return False
        reading = self._read(data, now)
        worked_until = self._clock.seconds()
        if isinstance(reading, Rejected):
            return self._reject(reading.reason, rejection(reading.field))
        work = worked_until - now
        # A frame that is answered without a call to Redis costs more than its decoding.
        throttle.worked(work if reading.entries else work + ANSWER_WORK, worked_until)
        self._take_in(frame.used, now)
        if reading.entries:
            self._codec = reading.entries[0].codec
        if reading.message is None:
            self._settled_at = 0.0
            self._records += len(reading.entries)
            count = len(reading.entries).to_bytes(4, "big")
            self._answer_when(self._gateway.publish(reading.entries), count)
            return True
        self._publish_message(reading.entries, reading.message)
        # As this is not acknowledged, nothing but the budget slows it down.
        published = self._clock.seconds()
        throttle.worked(published - worked_until, published)
        return True

    def _may_pass(self, data: bytes) -> bool:
        """Return whether the first message in the buffer is within the rate, or an answer."""
        assert self.device_id is not None  # noqa: S101 - the login comes first
        if self._awaited.is_in(self.device_id, data):
            return True
        if self._throttle.may_take_message(self.device_id, len(data)):
            return True
        self._awaited.look_anew()
        self._take_answer()
        return False

    def _take_answer(self) -> None:
        """Take the answer to a command out from behind messages that are over the rate."""
        assert self.device_id is not None  # noqa: S101 - the login comes first
        start, data = self._awaited.find(self.device_id, self._buffer)
        now = self._clock.seconds()
        reading = None if data is None else self._read(data, now)
        if data is not None and isinstance(reading, Reading) and reading.message is not None:
            self._take_in(frame_size(data), now, start)
            self._publish_message(reading.entries, reading.message)

    def _publish_message(self, entries: list[Entry], message: Message) -> None:
        if not self._keep(entries):
            self._answer_when(self._gateway.publish(entries), b"")
        self._tell_answer(message)

    def _tell_answer(self, message: Message) -> None:
        assert self.device_id is not None  # noqa: S101 - the login comes first
        answer = maybe_answer(self.device_id, message)
        if answer is not None and not self._closed:  # by what became of the message
            self._gateway.answered(self, answer)

    def _read_repeated_login(self) -> bool:
        # A device repeats its login when it has missed the answer. Another identity on
        # the same connection is no device.
        outcome = decode_login(self._buffer)
        if isinstance(outcome, Incomplete):
            return False
        if not isinstance(outcome, Decoded):
            return self._reject(f"a second login: {outcome.reason}", Rejection.LOGIN)
        if outcome.value != self.device_id:
            return self._reject("a second login, of another device", Rejection.LOGIN)
        now = self._clock.seconds()
        self._throttle.worked(ANSWER_WORK, now)
        self._take_in(outcome.used, now)
        # Nothing to confirm, and so in a turn of its own: others have to have theirs.
        self._answer_when(deferLater(self._clock, 0, self._login_settles), ACCEPT)
        return True

    def _login_settles(self) -> None:
        # From when the answer is written, which may be late where the reactor is busy.
        self._settled_at = self._clock.seconds() + LOGIN_SETTLES

    def _take_in(self, used: int, now: float, start: int = 0) -> None:
        """Remove ``used`` bytes, which were a valid frame or login, from the buffer."""
        end = start + used
        if self._observer is not None:
            self._observer(Traffic.RECEIVED, bytes(self._buffer[start:end]))
        del self._buffer[start:end]
        self._last_heard = now

    def _read_nothing(self) -> bool:
        self._buffer.clear()
        return False

    def _read(self, data: bytes, now: float) -> Reading | Rejected:
        assert self.device_id is not None  # noqa: S101 - the login comes first
        return self._reader.read(self.device_id, data, now, self._notice_repeated_id)

    def _reject(self, reason: str, kind: Rejection) -> bool:
        self._buffer.clear()  # behind what is wrong, nothing is to be relied on
        self._disconnect(reason, kind)
        return False

    def _disconnect(self, reason: str, kind: Rejection) -> None:
        self._gateway.rejected(self, reason, kind)
        self.close()

    def _keep(self, message: list[Entry]) -> bool:
        """Publish a message that may outlive this connection; return whether there was room."""
        kept = self._gateway.keep(message)
        if kept is None:
            return False
        self._throttle.message_left()
        kept.addCallback(self._kept)
        return True

    def _kept(self, _: None) -> None:
        self._throttle.message_arrived()
        self._go_on()

    def _answer_when(self, published: Deferred[None], answer: bytes) -> None:
        self._unconfirmed = published
        published.addCallbacks(
            self._confirmed, self._not_confirmed, callbackArgs=(answer,), errbackArgs=(answer,)
        )

    def _notice_repeated_id(self) -> None:
        if not self._told_of_repeated_ids:
            self._told_of_repeated_ids = True
            self._gateway.noticed(self, REPEATED_ID)

    def _confirmed(self, _: None, answer: bytes) -> None:
        self._unconfirmed = None
        self._write(answer)
        self._go_on()

    def _write(self, answer: bytes) -> None:
        if self._observer is not None and answer:
            self._observer(Traffic.SENT, answer)
        self._gateway.tally.bytes_sent += len(answer)
        self._writer.write(answer)

    def _not_confirmed(self, failure: Failure, answer: bytes) -> None:
        self._unconfirmed = None
        self.close()
        # Cancelled by connectionLost, or refused because the process is stopping.
        failure.trap(CancelledError, NotAccepted)
        if not answer:  # a message for which there was no room among those that are kept
            self._gateway.lost(self, 1)
