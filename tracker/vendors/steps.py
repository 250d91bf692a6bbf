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
from tracker.vendors.state import ConnectionState, Stage
from tracker.vendors.throttle import Throttle
from tracker.vendors.timer import ConnectionTimer
from tracker.vendors.wire import Wire

#: Maximum number of devices that share a connection.
MAX_DEVICES: Final = 1000


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
        state = self._state
        is_served = state.devices.get(step.device_id)
        if is_served is not None:
            self._connection.device_id = step.device_id
            if is_served or step.may_stay:
                self._accept(step, repeated=True)
        elif state.devices and not (step.shared and state.shared):
            self.perform((ProtocolError(OTHER_DEVICE, Rejection.LOGIN),))
        elif len(state.devices) >= MAX_DEVICES:
            reason = f"more than {MAX_DEVICES} devices on one connection"
            self.perform((ProtocolError(reason, Rejection.LOGIN),))
        else:
            self._log_in_new(step)

    def _log_in_new(self, step: LogIn) -> None:
        state, device_id = self._state, step.device_id
        began = self._clock.seconds()
        # Set before the gateway is notified, which prepares a command that has waited on an older
        # connection of the device for this one at once.
        self._connection.device_id = device_id
        state.devices[device_id] = False
        state.may_stay, state.shared = step.may_stay or step.shared, step.shared
        admission = self._gateway.login(self._connection, device_id)
        if admission is Admission.SERVED:
            state.serve(device_id)
        elif admission is Admission.WAITING:
            state.wait(device_id)
        else:
            del state.devices[device_id]
            if not state.devices:
                self._connection.device_id = None
                if admission is Admission.REFUSED and step.refuse:
                    self._wire.write(step.refuse)
                self._connection.close()
            return  # the entries of another device than the first are discarded
        now = self._clock.seconds()
        if len(state.devices) == 1:
            state.since = now
            self._timer.logged_in(now)
        else:
            self._throttle.worked(now - began, now)
        if admission is Admission.SERVED or step.may_stay:
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

    def _discards(self) -> bool:
        """Count a frame with entries if its device is not served; return True for such a frame."""
        if self._state.devices.get(self._connection.device_id or ""):
            return False
        self._gateway.tally.not_served += 1
        return True

    def _append(self, step: Append) -> None:
        if self._discards():
            return
        if step.entries:
            self._state.codec = step.entries[0].codec
            self._state.records += len(step.entries)
        self._command_slot.settled_at = 0.0
        self._replies.append(step.entries, step.ack)

    def _append_detached(self, step: AppendDetached) -> None:
        if self._discards():
            return
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
