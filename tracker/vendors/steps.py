"""Carry out the steps that a vendor's dialect returns for a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import define
from twisted.internet.interfaces import IReactorTime

from tracker.interfaces import Admission, IConnection, IGateway, Rejection
from tracker.vendors.commandslot import CommandSlot
from tracker.vendors.dialect import (
    OTHER_DEVICE,
    Append,
    AppendDetached,
    CommandAnswer,
    LogIn,
    Notice,
    ProtocolError,
    Reply,
    Step,
)
from tracker.vendors.replies import Replies
from tracker.vendors.state import ConnectionState, Event, Stage
from tracker.vendors.throttle import Throttle
from tracker.vendors.timer import ConnectionTimer
from tracker.vendors.wire import Wire


@define(eq=False, kw_only=True)
class Steps:
    """Carries out the steps of one connection."""

    _connection: IConnection
    """The connection, which has the device ID and is closed after errors."""
    _gateway: IGateway
    _clock: IReactorTime
    _wire: Wire
    _unread: bytearray
    """Received bytes that are not handled yet; errors clear them."""
    _state: ConnectionState
    _throttle: Throttle
    _timer: ConnectionTimer
    _command_slot: CommandSlot
    _replies: Replies

    def perform(self, steps: Sequence[Step]) -> None:
        """Carry out steps, up to the first one that closes the connection."""
        for step in steps:
            if self._state.stage is Stage.CLOSED:
                return
            _PERFORM[type(step)](self, step)

    def _log_in(self, step: LogIn) -> None:
        connection = self._connection
        if connection.device_id is None:
            self._log_in_first(step)
        elif connection.device_id != step.device_id:
            self.perform((ProtocolError(OTHER_DEVICE, Rejection.LOGIN),))
        else:
            self._accept(step, repeated=True)

    def _log_in_first(self, step: LogIn) -> None:
        # Set before the gateway is notified, which prepares a command that has waited on an older
        # connection of the device for this one at once.
        self._connection.device_id = step.device_id
        admission = self._gateway.login(self._connection, step.device_id)
        if admission is not Admission.SERVED:
            self._connection.device_id = None
            if admission is Admission.REFUSED and step.refuse:
                self._wire.write(step.refuse)
            self._connection.close()
            return
        self._state.change(Event.LOGGED_IN)
        self._state.since = now = self._clock.seconds()
        self._timer.logged_in(now)
        self._accept(step)

    def _accept(self, step: LogIn, *, repeated: bool = False) -> None:
        confirms = self._gateway.when_log_confirms() if step.needs_log else None
        if confirms is not None:
            self._replies.reply_when(confirms, step.accept, lambda: self._settle(step))
        elif not repeated:
            if step.accept:
                self._wire.write(step.accept)
            self._settle(step)
        elif step.accept:
            self._replies.reply_soon(step.accept, lambda: self._settle(step))

    def _settle(self, step: LogIn) -> None:
        # Counted from the writing of the reply, which may be late if the reactor is busy.
        self._command_slot.settled_at = self._clock.seconds() + step.settle_time

    def _append(self, step: Append) -> None:
        if step.entries:
            self._state.codec = step.entries[0].codec
            self._state.records += len(step.entries)
        self._command_slot.settled_at = 0.0
        self._replies.append(step.entries, step.ack)

    def _append_detached(self, step: AppendDetached) -> None:
        began = self._clock.seconds()
        if step.entries:
            self._state.codec = step.entries[0].codec
        self._replies.append_detached(step.entries, step.ack)
        # The device does not wait for an ACK, so only the budget slows it down.
        now = self._clock.seconds()
        self._throttle.worked(now - began, now)

    def _reply(self, step: Reply) -> None:
        if step.after_durable:
            self._replies.reply_when_appended(step.data)
        else:
            self._replies.reply_soon(step.data)

    def _command_answer(self, step: CommandAnswer) -> None:
        self._gateway.command_answered(self._connection, step.answer)

    def _notice(self, step: Notice) -> None:
        self._gateway.noticed(self._connection, step.text)

    def _protocol_error(self, step: ProtocolError) -> None:
        if step.closes:
            if step.reply:
                self._wire.write(step.reply)
            self._unread.clear()  # nothing after a malformed frame can be trusted
            self.disconnect(step.reason, step.kind)
        else:
            self._gateway.rejected(self._connection, step.reason, step.kind)

    def disconnect(self, reason: str, kind: Rejection) -> None:
        """Reject the peer and close the connection."""
        self._gateway.rejected(self._connection, reason, kind)
        self._connection.close()


_PERFORM: Final[Mapping[type[Step], Callable[[Steps, Any], None]]] = {
    LogIn: Steps._log_in,
    Append: Steps._append,
    AppendDetached: Steps._append_detached,
    Reply: Steps._reply,
    CommandAnswer: Steps._command_answer,
    Notice: Steps._notice,
    ProtocolError: Steps._protocol_error,
}
