"""Handle what a device sends: take frames out of it, and have their steps carried out.

Nothing more is handled while there is any :class:`~tracker.vendors.holds.Hold`. What the peer
sends meanwhile is buffered up to a limit, then the transport is not read. So a connection has at
most one unacknowledged packet, and a device that waits for its ACK never sends more.

What a device never sends again outlives the connection on its way to the log. Only a few such
frames of a connection, and of all, are under way at a time, and their rate is limited. The
answer to a command overtakes those that are held.

A command is written only while no packet waits for its ACK, and none is half received.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from tracker.command import CommandFrame
from tracker.interfaces import (
    ConnectionEnded,
    IConnection,
    IGateway,
    Rejection,
    Traffic,
)
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.answers import Answers
from tracker.vendors.dialect import (
    Dialect,
    ProtocolError,
    Step,
)
from tracker.vendors.holds import Hold
from tracker.vendors.leftovers import Leftovers, Rest
from tracker.vendors.rejections import rejection
from tracker.vendors.silence import Silence
from tracker.vendors.state import LOGGED_IN, TRANSITIONS, Event, State, Status
from tracker.vendors.steps import Steps
from tracker.vendors.throttle import Throttle, Workload
from tracker.vendors.turns import Turns
from tracker.vendors.wire import Wire


@frozen(eq=False)
class Port:
    """The objects that the connections of one port share."""

    gateway: IGateway
    work: Workload
    leftovers: Leftovers
    build_dialect: Callable[[], Dialect[Any]]


class Exchange:
    """The frames and answers of one connection.

    :param connection: the connection, which has the device's id and is closed by errors.
    """

    __slots__ = (
        *("_answers", "_buffer", "_clock", "_dialect", "_handling", "_holds", "_port"),
        *("_connection", "_steps", "_throttle", "_turns", "_wire", "silence", "status"),
    )

    def __init__(self, connection: IConnection, port: Port, wire: Wire) -> None:
        clock: IReactorTime = port.work.clock
        self.status = Status()
        self._connection = connection
        self._port = port
        self._clock = clock
        self._wire = wire
        self._dialect = port.build_dialect()
        self._buffer = bytearray()
        self._holds: dict[Hold, Deferred[None] | None] = {}  # → what to cancel at the end
        self._throttle = Throttle(port.work, self.release)
        self.silence = Silence(clock, port.work.limits, self._holds, self._disconnect)
        """The timer of the connection."""
        self._turns = Turns(clock)
        self._answers = Answers(
            connection,
            port.gateway,
            wire,
            clock=clock,
            throttle=self._throttle,
            holds=self._holds,
            go_on=self._go_on,
        )
        self._steps = Steps(
            connection=connection,
            gateway=port.gateway,
            clock=clock,
            wire=wire,
            unread=self._buffer,
            status=self.status,
            throttle=self._throttle,
            silence=self.silence,
            turns=self._turns,
            answers=self._answers,
        )
        self._handling = False
        self.silence.expect_login()

    # From the transport.

    def received(self, data: bytes) -> None:
        """Handle what the peer has sent, as far as that is possible now."""
        if self.status.state is State.CLOSED:
            return  # TLS goes on delivering until the peer closes, too
        size = len(data)
        self._buffer += data
        self.status.bytes += size
        self._port.gateway.tally.bytes_received += size
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
        """See :class:`tracker.interfaces.IConnection`."""
        return self._dialect.command(text, codec)

    def when_free(self, radio_sleeps: float) -> Deferred[None]:
        """See IConnection."""
        if self.status.state is State.CLOSED:
            return fail(ConnectionEnded())
        free = self._turns.wait(radio_sleeps, self._offer_turn)
        self._offer_turn()
        return free

    def write_command(self, data: bytes) -> None:
        """See IConnection."""
        self._dialect.command_written(data)
        self._wire.write(data)

    def retire(self) -> None:
        """See IConnection."""
        if TRANSITIONS[self.status.state][Event.RETIRED] is State.CLOSED:
            self._connection.close()
        else:
            self.status.change(Event.RETIRED)
            self._go_on()

    def end(self) -> None:
        """Handle nothing more; keep the unread messages, which are never repeated."""
        state, device_id = self.status.state, self._connection.device_id
        self.status.change(Event.ENDED)
        unread = self._buffer.copy()
        self._buffer.clear()
        if state in LOGGED_IN and unread:
            budget = self._throttle.messages(self._device_id)
            self._port.leftovers.publish(Rest(self._connection, budget, self._dialect, unread))
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
        if self.status.state is State.RETIRING and not (self._holds or self._buffer):
            self._connection.close()
        elif self._turns.free is not None:
            self._offer_turn()

    def _balance(self) -> None:
        """Read the transport, unless its peer does not, or too much is unread."""
        # Not paused at each packet: this costs two system calls, and a paused transport does
        # not see its peer leave.
        if self.status.state is not State.CLOSED:
            holds, limit = self._holds, self._port.work.limits.buffer_bytes
            full = holds and (Hold.PEER in holds or len(self._buffer) > limit)
            self._wire.pause(bool(full))

    def _handle_next(self) -> bool:
        """Handle the next frame; return whether it was there and could be handled."""
        throttle, dialect, device_id = self._throttle, self._dialect, self._connection.device_id
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
        self._steps.perform(steps)
        return True

    def _is_skipped(self, outcome: Rejected | Fatal) -> bool:
        """Return whether only this frame is wrong; else end the connection."""
        kind = rejection(outcome.field)
        if isinstance(outcome, Rejected):
            del self._buffer[: outcome.used]
            self._port.gateway.rejected(self._connection, outcome.reason, kind)
            return True
        self._steps.perform((ProtocolError(outcome.reason, kind),))
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
            self._steps.perform(steps)

    def _show(self, steps: Sequence[Step], frame: bytearray) -> None:
        """Show the observer a frame, unless it is a mere sign of life, or wrong."""
        observer, wrong = self._wire.observer, [one for one in steps if type(one) is ProtocolError]
        if observer is not None and steps and not wrong:
            observer(Traffic.RECEIVED, bytes(frame))

    def _disconnect(self, reason: str, kind: Rejection) -> None:
        self._steps.disconnect(reason, kind)

    def _offer_turn(self) -> None:
        """Let a command be written, if a caller waits for that and it is possible now."""
        busy = self._handling or self._holds or self._buffer
        if self.status.state in LOGGED_IN and not busy:
            self._turns.offer(self.silence.heard_at)

    @property
    def _device_id(self) -> str:
        device_id = self._connection.device_id
        assert device_id is not None  # noqa: S101 - the login comes first
        return device_id
