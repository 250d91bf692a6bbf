"""Take frames out of the bytes that a device sends, and have their steps carried out.

No frame is handled while the connection has any :class:`~tracker.vendors.holds.Hold`. Bytes that
arrive meanwhile are buffered up to a limit; above it the transport is not read. Therefore a
connection has at most one frame that waits for its ACK.

Frames that a device never sends again are *detached*: on their way to the log they outlive the
connection. Their number under way is limited for each connection and for the port, and their memory
for the instance. The rate of messages is limited, too; the answer to a command overtakes messages
that are held for their rate.

A command is written only while no frame waits for its ACK and no frame is partly received.
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
from tracker.vendors.commandslot import CommandSlot
from tracker.vendors.dialect import AppendDetached, Dialect, ProtocolError, Step
from tracker.vendors.holds import Hold
from tracker.vendors.leftovers import Leftover, Leftovers
from tracker.vendors.rejections import rejection
from tracker.vendors.replies import Replies
from tracker.vendors.state import LOGGED_IN, TRANSITIONS, ConnectionState, Event, Stage
from tracker.vendors.steps import Steps
from tracker.vendors.throttle import Throttle, Workload
from tracker.vendors.timer import ConnectionTimer
from tracker.vendors.wire import Wire


@frozen(eq=False)
class Port:
    """The objects that the connections of one port share."""

    gateway: IGateway
    work: Workload
    leftovers: Leftovers
    build_dialect: Callable[[], Dialect[Any]]


class Exchange:
    """The frames of one connection, and the replies to them.

    :param connection: the connection, which has the device ID and is closed after errors.
    """

    __slots__ = (
        *("_replies", "_buffer", "_clock", "_dialect", "_handling", "_holds", "_port"),
        *("_connection", "_steps", "_throttle", "_command_slot", "_wire", "timer", "state"),
        "_keeps_positions",
    )

    def __init__(self, connection: IConnection, port: Port, wire: Wire) -> None:
        clock: IReactorTime = port.work.clock
        self.state = ConnectionState()
        self._connection = connection
        self._port = port
        self._clock = clock
        self._wire = wire
        self._dialect = port.build_dialect()
        self._buffer = bytearray()
        self._holds: dict[Hold, Deferred[None] | None] = {}  # → the Deferred to cancel at the end
        self._throttle = Throttle(port.work, self.release)
        self.timer = ConnectionTimer(
            clock, port.work.limits, self._holds, wire, give_up=self._disconnect
        )
        """The timer of the connection."""
        self._command_slot = CommandSlot(clock)
        self._replies = Replies(
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
            state=self.state,
            throttle=self._throttle,
            timer=self.timer,
            command_slot=self._command_slot,
            replies=self._replies,
        )
        self._handling = False
        self._keeps_positions = False  # True once a detached position was handled
        self.timer.expect_login()

    # Called by the transport.

    def received(self, data: bytes) -> None:
        """Handle bytes from the peer, as far as that is possible now."""
        if self.state.stage is Stage.CLOSED:
            return  # TLS delivers data until the peer has closed its side, too
        size = len(data)
        self._buffer += data
        self.state.bytes += size
        self._port.gateway.tally.bytes_received += size
        if self._holds:  # these bytes are not decoded yet, and may be half a frame
            self.timer.last_heard = self._clock.seconds()
            if Hold.RATE in self._holds:
                self._take_awaited()
        self._go_on()

    def hold(self, reason: Hold) -> None:
        """Handle no frame until :meth:`release`."""
        self._holds[reason] = None
        self._balance()

    def release(self, reason: Hold) -> None:
        """Handle frames again, unless another reason to hold the connection remains."""
        self._holds.pop(reason, None)
        self._go_on()

    # Commands and the end.

    def command_frame(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """See :class:`tracker.interfaces.IConnection`."""
        return self._dialect.command(device_id, content, codec)

    def serve(self, device_id: str) -> None:
        """See IConnection."""
        if self.state.stage is not Stage.CLOSED:
            self.state.serve(device_id)
            self._offer_command_slot()

    def when_free(self, silence_limit: float) -> Deferred[None]:
        """See IConnection."""
        if self.state.stage is Stage.CLOSED:
            return fail(ConnectionEnded())
        waiter = self._command_slot.wait(silence_limit, self._offer_command_slot)
        self._offer_command_slot()
        return waiter

    def write_command(self, data: bytes, shown: bytes | None = None) -> None:
        """See IConnection."""
        self._dialect.command_written(data)
        self._wire.write(data, shown)

    def retire(self) -> None:
        """See IConnection."""
        if TRANSITIONS[self.state.stage][Event.RETIRED] is Stage.CLOSED:
            self._connection.close()
        else:
            self.state.change(Event.RETIRED)
            self._go_on()

    def end(self) -> None:
        """Stop handling frames, and publish the unread detached ones, which are never repeated."""
        state = self.state.stage
        self.state.change(Event.ENDED)
        unread = self._buffer.copy()
        self._buffer.clear()
        if state in LOGGED_IN and unread:
            leftover = Leftover(
                self._connection,
                self._throttle.messages(self._device_id),
                self._dialect,
                unread,
                self._keeps_positions,
                self.state.devices,
            )
            self._port.leftovers.publish(leftover)
        elif unread and Hold.MEMORY in self._holds:  # the frames of a device that is not known yet
            self._port.gateway.lost(self._connection, self._dialect.count_detached(unread))
        self._port.gateway.kept.forget(self._memory_is_free)
        self._throttle.end()
        self._replies.end()
        self._command_slot.end()

    # Frames.

    def _go_on(self) -> None:
        """Handle all frames that can be handled now; then retire, or offer the command slot."""
        if self._handling:
            return  # the log has confirmed synchronously, and the loop below continues
        self._handling = True
        try:
            while self._buffer and not self._holds and self._handle_next():
                pass
        finally:
            self._handling = False
        if self._buffer or self._wire.paused:
            self._balance()
        if self.state.stage is Stage.RETIRING and not (self._holds or self._buffer):
            self._connection.close()
        elif self._command_slot.waiters:
            self._offer_command_slot()

    def _balance(self) -> None:
        """Pause the transport if its peer does not read, or too many bytes are unread."""
        # Pausing for each frame would cost two system calls, and a paused transport does not
        # detect that its peer has disconnected.
        if self.state.stage is not Stage.CLOSED:
            holds, limit = self._holds, self._port.work.limits.buffer_bytes
            if Hold.MEMORY in holds and self._connection.device_id is None:
                limit = 0  # its device may disconnect at once, and its frames would be lost
            full = holds and (Hold.PEER in holds or len(self._buffer) > limit)
            self._wire.pause(bool(full))

    def _handle_next(self) -> bool:
        """Handle the next frame; return False if it is incomplete or may not be handled now."""
        throttle, dialect, device_id = self._throttle, self._dialect, self._connection.device_id
        if throttle.credit <= 0 and device_id is not None and not throttle.may_work():
            self._holds[Hold.WORK] = None
            return False
        now = self._clock.seconds()
        outcome = dialect.next_frame(self._buffer)
        if not isinstance(outcome, Decoded):
            return not isinstance(outcome, Incomplete) and self._is_skipped(outcome, now)
        frame = outcome.value
        detached = dialect.is_detached(frame)
        messages = dialect.count_messages(frame) if detached else 0
        if detached and not self._may_handle(outcome, messages):
            return False
        steps = dialect.handle(frame, now)
        if device_id is not None:
            worked_until = self._clock.seconds()
            work = worked_until - now
            if 0 <= work < throttle.credit:
                throttle.credit -= work  # as worked() does in nearly all cases
            else:
                throttle.worked(work, worked_until)
        self.timer.last_heard = now
        if self._wire.observer is not None:
            self._show(steps, self._buffer[: outcome.used])
        del self._buffer[: outcome.used]
        self._steps.perform(steps)
        if detached and not messages and self.state.devices.get(self._connection.device_id or ""):
            self._note_positions(steps)
        return True

    def _is_skipped(self, outcome: Rejected | Fatal, began: float) -> bool:
        """Return True if only this frame is invalid; else end the connection.

        :param began: time at which its decoding began.
        """
        kind = rejection(outcome.field)
        if isinstance(outcome, Rejected):
            del self._buffer[: outcome.used]
            self._port.gateway.rejected(self._connection, outcome.reason, kind)
            # Invalid frames can be shorter than valid ones, and cost as much.
            now = self._clock.seconds()
            self._throttle.worked(now - began, now)
            return True
        self._steps.perform((ProtocolError(outcome.reason, kind),))
        return False

    def _may_handle(self, frame: Decoded[Any], messages: int) -> bool:
        """Return True if a detached frame may be handled now; if not, hold the connection."""
        gateway = self._port.gateway
        if gateway.kept.used_up:
            gateway.tally.paused_for_memory += 1
            gateway.kept.when_free(self._memory_is_free)
            self._holds[Hold.MEMORY] = None
            return False
        if self._throttle.too_many_under_way:
            self._holds[Hold.DETACHED] = None
            return False
        device_id = self._connection.device_id
        if not messages or device_id is None or self._dialect.is_awaited(frame.value):
            return True
        if self._throttle.may_take_messages(device_id, messages, frame.used):
            return True
        self._holds[Hold.RATE] = None
        self._take_awaited()
        return False

    def _memory_is_free(self) -> None:
        self.release(Hold.MEMORY)

    def _note_positions(self, steps: Sequence[Step]) -> None:
        self._keeps_positions = True
        self._command_slot.settled_at = 0.0
        for step in steps:
            if isinstance(step, AppendDetached):
                self.state.records += len(step.entries)

    def _take_awaited(self) -> None:
        """Handle the answer to a command that waits behind frames over the rate, if present."""
        found = self._dialect.find_awaited(self._buffer)
        if found is not None:
            start, frame = found
            end = start + frame.used
            now = self.timer.last_heard = self._clock.seconds()
            steps = self._dialect.handle(frame.value, now)
            self._show(steps, self._buffer[start:end])
            del self._buffer[start:end]
            self._steps.perform(steps)

    def _show(self, steps: Sequence[Step], frame: bytearray) -> None:
        """Show the observer a frame, unless it is only a sign of life, or invalid."""
        observer, errors = self._wire.observer, [one for one in steps if type(one) is ProtocolError]
        if observer is not None and steps and not errors:
            observer(Traffic.RECEIVED, bytes(frame))

    def _disconnect(self, reason: str, kind: Rejection) -> None:
        self._steps.disconnect(reason, kind)

    def _offer_command_slot(self) -> None:
        """Let a waiting caller write a command, if that is possible now."""
        busy = self._handling or self._holds or self._buffer
        if self.state.stage in LOGGED_IN and not busy:
            self._command_slot.offer(self.timer.last_heard)

    @property
    def _device_id(self) -> str:
        device_id = self._connection.device_id
        assert device_id is not None  # noqa: S101 - set at the login
        return device_id
