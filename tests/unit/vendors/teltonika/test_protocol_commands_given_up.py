"""Commands that are never written: the connection ends, or they are cancelled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError

from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, frame
from tests.unit.vendors.teltonika.pending import (
    ACK,
    COMMAND,
    ENDS,
    LIMITS,
    SECOND,
    PendingCommand,
    confirm_if_any,
    resume,
)
from tracker.interfaces import Admission, NotAppended
from tracker.vendors.teltonika.dialect import LOGIN_SETTLE_TIME


def busy_settling(talk: Conversation) -> None:
    talk.send(LOGIN)


def busy_before_login(talk: Conversation) -> None:
    talk.send(LOGIN[:5])


def settle(talk: Conversation) -> None:
    talk.send(LOGIN + frame(1))
    talk.confirm()


def busy_unconfirmed(talk: Conversation) -> None:
    settle(talk)
    talk.send(frame(2))


def busy_receiving(talk: Conversation) -> None:
    settle(talk)
    talk.send(frame(2)[:9])


def busy_unread(talk: Conversation) -> None:
    settle(talk)
    talk.transport.producer.pauseProducing()


def busy_silent(talk: Conversation) -> None:
    settle(talk)
    talk.clock.advance(100)


BUSY: dict[str, Callable[[Conversation], None]] = {
    "settling": busy_settling,
    "before-login": busy_before_login,
    "unconfirmed": busy_unconfirmed,
    "receiving": busy_receiving,
    "unread": busy_unread,
    "silent": busy_silent,
}
each_busy = pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY)


@each_busy
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_pending_command_fails_when_the_connection_ends(
    busy: Callable[[Conversation], None], end: Callable[[Conversation], None]
) -> None:
    talk = Conversation(LIMITS)
    busy(talk)
    talk.received()
    command = PendingCommand(talk, radio_sleeps=0.5)
    assert command.is_waiting
    end(talk)
    assert command.has_ended
    assert COMMAND not in talk.received()
    assert talk.timers == 0
    assert PendingCommand(talk).has_ended
    assert talk.timers == 0


@each_busy
def test_pending_command_fails_when_a_lingering_connection_is_closed(
    busy: Callable[[Conversation], None],
) -> None:
    talk = Conversation(LIMITS, lingers=True)
    busy(talk)
    talk.received()
    command = PendingCommand(talk, radio_sleeps=30)
    talk.protocol.close()
    assert command.has_ended
    assert talk.timers == 1  # the close timeout
    assert PendingCommand(talk).has_ended
    talk.send(frame(5) + b"\xff")
    resume(talk)
    talk.lose()
    assert PendingCommand(talk).has_ended
    assert talk.received() == b""
    assert talk.timers == 0


def test_pending_command_fails_when_a_packet_is_not_accepted(settled: Conversation) -> None:
    settled.send(frame(2))
    command = PendingCommand(settled)
    settled.gateway.published[-1][1].errback(NotAppended("stopping"))
    assert command.has_ended
    assert settled.received() == b""
    assert settled.timers == 0


@pytest.mark.parametrize("admission", [Admission.REFUSED, Admission.LATER])
def test_pending_command_fails_when_the_login_is_refused(
    talk: Conversation, admission: Admission
) -> None:
    talk.gateway.admissions[IMEI] = admission
    command = PendingCommand(talk)
    talk.send(LOGIN)
    assert command.has_ended
    assert talk.received() == (b"\x00" if admission is Admission.REFUSED else b"")
    assert talk.timers == 0


def test_connection_may_be_closed_instead_of_writing_the_command(settled: Conversation) -> None:
    settled.send(frame(2))
    wanted = settled.protocol.when_free()
    wanted.addCallback(lambda _: settled.protocol.close())
    settled.confirm()
    assert settled.closed
    assert settled.received() == ACK
    assert settled.timers == 0


@each_busy
def test_cancelled_command_is_not_written(
    busy: Callable[[Conversation], None],
) -> None:
    talk = Conversation(LIMITS)
    busy(talk)
    talk.received()
    timers = talk.timers
    command = PendingCommand(talk, radio_sleeps=30)
    assert command.is_waiting
    command.when_free.cancel()
    assert command.failure is not None
    assert command.failure.check(CancelledError)
    assert talk.timers == timers
    # It is not written later, and another command may be requested.
    second = PendingCommand(talk, SECOND, radio_sleeps=30)
    assert second.is_waiting
    resume(talk)
    rest = {BUSY["before-login"]: LOGIN[5:], BUSY["receiving"]: frame(2)[9:]}
    talk.send(rest.get(busy, b"\xff"))
    confirm_if_any(talk)
    talk.clock.advance(LOGIN_SETTLE_TIME)
    assert second.written
    assert not command.written
    written = talk.received()
    assert written.endswith(SECOND)
    assert COMMAND not in written
    assert talk.timers == 1


def test_cancelling_a_written_command_has_no_effect(settled: Conversation) -> None:
    command = PendingCommand(settled)
    command.when_free.cancel()
    settled.send(frame(2))
    second = PendingCommand(settled, SECOND)
    command.when_free.cancel()
    assert second.is_waiting
    settled.confirm()
    assert second.written


def test_cancelled_commands_leave_no_timers(online: Conversation) -> None:
    for _ in range(100):
        command = PendingCommand(online)
        assert online.timers == 2
        command.when_free.cancel()
        assert online.timers == 1
    online.clock.advance(LOGIN_SETTLE_TIME)
    assert online.received() == b""
