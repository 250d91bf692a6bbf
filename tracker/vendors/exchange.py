"""What a device sends and what follows from it: frames in, steps carried out.

An exchange is in one of four states:

======== ======================================= ==================================
state    what may come                           what follows
======== ======================================= ==================================
login    signs of life, then a login             served → serving; else → closed
serving  whatever the dialect reads              its steps
retiring the same                                closed when nothing is under way
closed   whatever the peer still sent            nothing
======== ======================================= ==================================

Nothing more is handled while there is any :class:`~tracker.vendors.holds.Hold`. What the peer
sends meanwhile is buffered up to a limit, then the transport is not read. So a connection has
one unacknowledged packet at most, all that a device which waits for its ACK ever sends.

What a device never sends again outlives the connection on its way to the log. Only a few such
frames of a connection, and of all, are under way at a time, and their rate is limited. The
answer to a command overtakes those that are held.

A command is written where it can come between nothing: no packet waits for its ACK, and none is
half received.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from attrs import define, frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from tracker.command import CommandFrame
from tracker.interfaces import (
    Admission,
    IGateway,
    ISession,
    Rejection,
    SessionEnded,
    SessionFacts,
    Traffic,
)
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.answers import Answers
from tracker.vendors.dialect import (
    OTHER_DEVICE,
    Append,
    AppendDetached,
    CommandAnswer,
    Dialect,
    LogIn,
    Notice,
    ProtocolError,
    Reply,
    Step,
)
from tracker.vendors.holds import Hold
from tracker.vendors.leftovers import Leftovers, Rest
from tracker.vendors.rejections import rejection
from tracker.vendors.silence import Silence
from tracker.vendors.throttle import Throttle, Workload
from tracker.vendors.turns import Turns
from tracker.vendors.wire import Wire


class State(Enum):
    """What a connection is there for at the moment."""

    LOGIN = "login"
    SERVING = "serving"
    RETIRING = "retiring"
    CLOSED = "closed"


class Event(Enum):
    """What changes the state of a connection."""

    LOGGED_IN = "logged in"
    RETIRED = "retired"
    ENDED = "ended"


#: State → event → next state. An event that is missing cannot happen.
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.LOGIN: {
        Event.LOGGED_IN: State.SERVING,
        Event.RETIRED: State.CLOSED,
        Event.ENDED: State.CLOSED,
    },
    State.SERVING: {Event.RETIRED: State.RETIRING, Event.ENDED: State.CLOSED},
    State.RETIRING: {Event.RETIRED: State.RETIRING, Event.ENDED: State.CLOSED},
    State.CLOSED: {Event.RETIRED: State.CLOSED, Event.ENDED: State.CLOSED},
}
#: States in which there is a device.
LOGGED_IN: Final = frozenset({State.SERVING, State.RETIRING})


@frozen(eq=False)
class Port:
    """What the connections of one port share."""

    gateway: IGateway
    work: Workload
    leftovers: Leftovers
    build_dialect: Callable[[], Dialect[Any]]


@define(eq=False)
class Figures:
    """The figures of one connection. See :class:`tracker.interfaces.SessionFacts`."""

    since: float = 0.0
    codec: str = ""
    records: int = 0
    bytes: int = 0


class Exchange:
    """The frames and answers of one connection.

    :param session: the connection, which has the device's id and is closed by errors.
    """

    __slots__ = (
        *("_answers", "_buffer", "_clock", "_dialect", "_figures", "_gateway", "_handling"),
        *("_holds", "_port", "_session", "_throttle", "_turns", "_wire", "silence", "state"),
    )

    def __init__(self, session: ISession, port: Port, wire: Wire) -> None:
        clock: IReactorTime = port.work.clock
        self.state = State.LOGIN
        self._session = session
        self._port = port
        self._gateway = port.gateway
        self._clock = clock
        self._wire = wire
        self._dialect = port.build_dialect()
        self._buffer = bytearray()
        self._holds: dict[Hold, Deferred[None] | None] = {}  # → what to cancel at the end
        self._throttle = Throttle(port.work, self.release)
        self.silence = Silence(clock, port.work.limits, self._holds, self._disconnect)
        """The timer of the connection."""
        self._turns = Turns(clock)
        self._figures = Figures()
        self._answers = Answers(
            session,
            port.gateway,
            wire,
            clock=clock,
            throttle=self._throttle,
            holds=self._holds,
            go_on=self._go_on,
        )
        self._handling = False
        self.silence.expect_login()

    def facts(self) -> SessionFacts:
        """Return the figures of the connection, once a device has logged in."""
        figures, heard_at = self._figures, self.silence.heard_at
        return SessionFacts(figures.since, heard_at, figures.codec, figures.records, figures.bytes)

    # From the transport.

    def received(self, data: bytes) -> None:
        """Handle what the peer has sent, as far as that is possible now."""
        if self.state is State.CLOSED:
            return  # TLS goes on delivering until the peer closes, too
        size = len(data)
        self._buffer += data
        self._figures.bytes += size
        self._gateway.tally.bytes_received += size
        if self._holds:  # whether what came is whole shows later
            self.silence.heard_at = self._clock.seconds()
            if Hold.RATE in self._holds:
                self._take_awaited()
        self._go_on()

    def hold(self, reason: Hold) -> None:
        """Handle nothing until :meth:`release`."""
        self._holds[reason] = None
        self._balance()

    def release(self, reason: Hold) -> None:
        """Continue, unless there is another reason not to."""
        self._holds.pop(reason, None)
        self._go_on()

    # Commands and the end.

    def command_frame(self, text: str, codec: str) -> CommandFrame:
        """See :class:`tracker.interfaces.ISession`."""
        return self._dialect.command(text, codec)

    def when_free(self, radio_sleeps: float) -> Deferred[None]:
        """See ISession."""
        if self.state is State.CLOSED:
            return fail(SessionEnded())
        free = self._turns.wait(radio_sleeps, self._offer_turn)
        self._offer_turn()
        return free

    def write_command(self, data: bytes) -> None:
        """See ISession."""
        self._dialect.command_written(data)
        self._wire.write(data)

    def retire(self) -> None:
        """See ISession."""
        if TRANSITIONS[self.state][Event.RETIRED] is State.CLOSED:
            self._session.close()
        else:
            self._change(Event.RETIRED)
            self._go_on()

    def end(self) -> None:
        """Handle nothing more; of what is unread or not confirmed, keep what is never repeated."""
        state, device_id = self.state, self._session.device_id
        self._change(Event.ENDED)
        unread, self._buffer = self._buffer, bytearray()
        if state in LOGGED_IN and unread:
            budget = self._throttle.messages(self._device_id)
            self._port.leftovers.publish(Rest(self._session, budget, self._dialect, unread))
        self._throttle.end(device_id)
        self._answers.end()
        self._turns.end()

    # Frames.

    def _go_on(self) -> None:
        """Handle what can be handled now, and then do what waits for that."""
        if self._handling:
            return  # the log has confirmed at once: the loop below goes on by itself
        self._handling = True
        try:
            while self._buffer and not self._holds and self._handle_next():
                pass
        finally:
            self._handling = False
        if self._buffer or self._wire.paused:
            self._balance()
        if self._turns.free is not None:
            self._offer_turn()
        if self.state is State.RETIRING and not (self._holds or self._buffer):
            self._session.close()

    def _balance(self) -> None:
        """Read the transport, unless its peer does not, or too much is unread."""
        # Not paused at each packet: this costs two system calls, and a paused transport does
        # not see its peer leave.
        if self.state is not State.CLOSED:
            holds, limit = self._holds, self._port.work.limits.buffer_bytes
            full = holds and (Hold.PEER in holds or len(self._buffer) > limit)
            self._wire.pause(bool(full))

    def _handle_next(self) -> bool:
        """Handle the next frame; return whether it was there and could be handled."""
        throttle, dialect, device_id = self._throttle, self._dialect, self._session.device_id
        if throttle.credit <= 0 and device_id is not None and not throttle.may_work():
            self._holds[Hold.WORK] = None
            return False
        now = self._clock.seconds()
        outcome = dialect.next_frame(self._buffer)
        if not isinstance(outcome, Decoded):
            return not isinstance(outcome, Incomplete) and self._is_skipped(outcome)
        frame = outcome.value
        if device_id is not None and dialect.is_detached(frame) and not self._may_pass(outcome):
            return False
        steps = dialect.handle(frame, now)
        if device_id is not None:
            worked_until = self._clock.seconds()
            work = worked_until - now
            if 0 <= work < throttle.credit:
                throttle.credit -= work  # as worked() does in nearly all cases
            else:
                throttle.worked(work, worked_until)
        self.silence.heard_at = now
        if self._wire.observer is not None:
            self._show(steps, self._buffer[: outcome.used])
        del self._buffer[: outcome.used]
        self._perform(steps)
        return True

    def _is_skipped(self, outcome: Rejected | Fatal) -> bool:
        """Return whether only this frame is wrong; else end the connection."""
        kind = rejection(outcome.field)
        if isinstance(outcome, Rejected):
            del self._buffer[: outcome.used]
            self._gateway.rejected(self._session, outcome.reason, kind)
            return True
        self._perform((ProtocolError(outcome.reason, kind),))
        return False

    def _may_pass(self, frame: Decoded[Any]) -> bool:
        """Return whether a detached frame may be handled now; if not, hold the connection."""
        device_id = self._device_id
        if self._throttle.too_many_under_way:
            self._holds[Hold.CROWD] = None
            return False
        if self._dialect.is_awaited(frame.value):
            return True
        if self._throttle.may_take_message(device_id, frame.used):
            return True
        self._holds[Hold.RATE] = None
        self._take_awaited()
        return False

    def _take_awaited(self) -> None:
        """Take the answer to a command out from behind frames that are over the rate."""
        found = self._dialect.find_awaited(self._buffer)
        if found is not None:
            start, frame = found
            end = start + frame.used
            now = self.silence.heard_at = self._clock.seconds()
            steps = self._dialect.handle(frame.value, now)
            self._show(steps, self._buffer[start:end])
            del self._buffer[start:end]
            self._perform(steps)

    def _show(self, steps: Sequence[Step], frame: bytearray) -> None:
        """Show the observer a frame, unless it is a mere sign of life, or wrong."""
        observer, wrong = self._wire.observer, [one for one in steps if type(one) is ProtocolError]
        if observer is not None and steps and not wrong:
            observer(Traffic.RECEIVED, bytes(frame))

    # Steps.

    def _perform(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if self.state is State.CLOSED:
                return
            _PERFORM[type(step)](self, step)

    def _log_in(self, step: LogIn) -> None:
        session = self._session
        if session.device_id is None:
            self._log_in_first(step)
        elif session.device_id != step.device_id:
            self._perform((ProtocolError(OTHER_DEVICE, Rejection.LOGIN),))
        elif step.accept:
            self._answers.answer_soon(step.accept, lambda: self._settle(step))

    def _log_in_first(self, step: LogIn) -> None:
        # Known before the gateway is notified: a command that has waited on an older connection
        # of the device is prepared for this one at once.
        self._session.device_id = step.device_id
        admission = self._gateway.login(self._session, step.device_id)
        if admission is not Admission.SERVED:
            self._session.device_id = None
            if admission is Admission.REFUSED:
                self._wire.write(step.refuse)
            self._session.close()
            return
        self._change(Event.LOGGED_IN)
        self._figures.since = now = self._clock.seconds()
        self.silence.logged_in(now)
        self._wire.write(step.accept)
        self._settle(step)

    def _settle(self, step: LogIn) -> None:
        # From when the answer is written, which may be late where the reactor is busy.
        self._turns.settled_at = self._clock.seconds() + step.settle_time

    def _append(self, step: Append) -> None:
        if step.entries:
            self._figures.codec = step.entries[0].codec
            self._figures.records += len(step.entries)
        self._turns.settled_at = 0.0
        self._answers.append(step.entries, step.ack)

    def _append_detached(self, step: AppendDetached) -> None:
        asked = self._clock.seconds()
        self._figures.codec = step.entries[0].codec
        self._answers.append_detached(step.entries, step.ack)
        # As nobody waits for an ACK, nothing but the budget slows it down.
        now = self._clock.seconds()
        self._throttle.worked(now - asked, now)

    def _reply(self, step: Reply) -> None:
        if step.after_durable:
            self._answers.answer_all(step.data)
        else:
            self._answers.answer_soon(step.data)

    def _command_answer(self, step: CommandAnswer) -> None:
        self._gateway.answered(self._session, step.answer)

    def _notice(self, step: Notice) -> None:
        self._gateway.noticed(self._session, step.text)

    def _protocol_error(self, step: ProtocolError) -> None:
        if step.closes:
            if step.reply:
                self._wire.write(step.reply)
            self._buffer.clear()  # behind what is wrong, nothing is to be relied on
            self._disconnect(step.reason, step.kind)
        else:
            self._gateway.rejected(self._session, step.reason, step.kind)

    def _disconnect(self, reason: str, kind: Rejection) -> None:
        self._gateway.rejected(self._session, reason, kind)
        self._session.close()

    def _offer_turn(self) -> None:
        """Let a command be written, if a caller waits for that and it is possible now."""
        busy = self._handling or self._holds or self._buffer
        if self.state in LOGGED_IN and not busy:
            self._turns.offer(self.silence.heard_at)

    def _change(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    @property
    def _device_id(self) -> str:
        device_id = self._session.device_id
        assert device_id is not None  # noqa: S101 - the login comes first
        return device_id


_PERFORM: Final[Mapping[type[Step], Callable[[Exchange, Any], None]]] = {
    LogIn: Exchange._log_in,
    Append: Exchange._append,
    AppendDetached: Exchange._append_detached,
    Reply: Exchange._reply,
    CommandAnswer: Exchange._command_answer,
    Notice: Exchange._notice,
    ProtocolError: Exchange._protocol_error,
}
