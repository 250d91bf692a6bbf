"""Carry out the steps that the dialect of a vendor returns for a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from attrs import define
from twisted.internet.interfaces import IReactorTime

from tracker.interfaces import Admission, IConnection, IGateway, Rejection
from tracker.vendors.answers import Answers
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
from tracker.vendors.silence import Silence
from tracker.vendors.state import Event, State, Status
from tracker.vendors.throttle import Throttle
from tracker.vendors.turns import Turns
from tracker.vendors.wire import Wire


@define(eq=False, kw_only=True)
class Steps:
    """Carries out the steps of one connection."""

    _connection: IConnection
    """The connection, which has the device's id and is closed by errors."""
    _gateway: IGateway
    _clock: IReactorTime
    _wire: Wire
    _unread: bytearray
    """Received bytes that are not handled; errors clear them."""
    _status: Status
    _throttle: Throttle
    _silence: Silence
    _turns: Turns
    _answers: Answers

    def perform(self, steps: Sequence[Step]) -> None:
        """Carry steps out, up to the first one that closes the connection."""
        for step in steps:
            if self._status.state is State.CLOSED:
                return
            _PERFORM[type(step)](self, step)

    def _log_in(self, step: LogIn) -> None:
        connection = self._connection
        if connection.device_id is None:
            self._log_in_first(step)
        elif connection.device_id != step.device_id:
            self.perform((ProtocolError(OTHER_DEVICE, Rejection.LOGIN),))
        elif step.accept:
            self._answers.answer_soon(step.accept, lambda: self._settle(step))

    def _log_in_first(self, step: LogIn) -> None:
        # Known before the gateway is notified: a command that has waited on an older connection
        # of the device is prepared for this one at once.
        self._connection.device_id = step.device_id
        admission = self._gateway.login(self._connection, step.device_id)
        if admission is not Admission.SERVED:
            self._connection.device_id = None
            if admission is Admission.REFUSED and step.refuse:
                self._wire.write(step.refuse)
            self._connection.close()
            return
        self._status.change(Event.LOGGED_IN)
        self._status.since = now = self._clock.seconds()
        self._silence.logged_in(now)
        if step.accept:
            self._wire.write(step.accept)
        self._settle(step)

    def _settle(self, step: LogIn) -> None:
        # From when the answer is written, which may be late where the reactor is busy.
        self._turns.settled_at = self._clock.seconds() + step.settle_time

    def _append(self, step: Append) -> None:
        if step.entries:
            self._status.codec = step.entries[0].codec
            self._status.records += len(step.entries)
        self._turns.settled_at = 0.0
        self._answers.append(step.entries, step.ack)

    def _append_detached(self, step: AppendDetached) -> None:
        asked = self._clock.seconds()
        self._status.codec = step.entries[0].codec
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
        self._gateway.answered(self._connection, step.answer)

    def _notice(self, step: Notice) -> None:
        self._gateway.noticed(self._connection, step.text)

    def _protocol_error(self, step: ProtocolError) -> None:
        if step.closes:
            if step.reply:
                self._wire.write(step.reply)
            self._unread.clear()  # behind what is wrong, nothing is to be relied on
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
