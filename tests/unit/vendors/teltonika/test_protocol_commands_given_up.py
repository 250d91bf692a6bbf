"""CommandSlot that never come: the connection ends before, or nobody wants them any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError

from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, frame
from tests.unit.vendors.teltonika.turns import (
    ACK,
    COMMAND,
    ENDS,
    LIMITS,
    SECOND,
    Turn,
    confirm_if_any,
    resume,
)
from tracker.interfaces import Admission, NotAppended
from tracker.vendors.teltonika.dialect import LOGIN_SETTLES


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
    "given_up": busy_unconfirmed,
    "receiving": busy_receiving,
    "unread": busy_unread,
    "silent": busy_silent,
}
each_busy = pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY)


@each_busy
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_end_of_the_connection_is_the_end_of_the_turn(
    busy: Callable[[Conversation], None], end: Callable[[Conversation], None]
) -> None:
    talk = Conversation(LIMITS)
    busy(talk)
    talk.answer()
    turn = Turn(talk, radio_sleeps=0.5)
    assert turn.waits
    end(talk)
    assert turn.ended
    assert COMMAND not in talk.answer()
    assert talk.timers == 0
    assert Turn(talk).ended
    assert talk.timers == 0


@each_busy
def test_a_turn_of_a_connection_that_lingers_ends_when_it_is_closed(
    busy: Callable[[Conversation], None],
) -> None:
    talk = Conversation(LIMITS, lingers=True)
    busy(talk)
    talk.answer()
    turn = Turn(talk, radio_sleeps=30)
    talk.protocol.close()
    assert turn.ended
    assert talk.timers == 1  # the grace
    assert Turn(talk).ended
    talk.send(frame(5) + b"\xff")
    resume(talk)
    talk.lose()
    assert Turn(talk).ended
    assert talk.answer() == b""
    assert talk.timers == 0


def test_a_packet_that_is_not_accepted_ends_the_turn(settled: Conversation) -> None:
    settled.send(frame(2))
    turn = Turn(settled)
    settled.gateway.published[-1][1].errback(NotAppended("stopping"))
    assert turn.ended
    assert settled.answer() == b""
    assert settled.timers == 0


@pytest.mark.parametrize("admission", [Admission.REFUSED, Admission.LATER])
def test_a_device_that_is_not_served_is_told_nothing(
    talk: Conversation, admission: Admission
) -> None:
    talk.gateway.admissions[IMEI] = admission
    turn = Turn(talk)
    talk.send(LOGIN)
    assert turn.ended
    assert talk.answer() == (b"\x00" if admission is Admission.REFUSED else b"")
    assert talk.timers == 0


def test_a_turn_in_which_the_session_is_closed(settled: Conversation) -> None:
    settled.send(frame(2))
    wanted = settled.protocol.when_free()
    wanted.addCallback(lambda _: settled.protocol.close())
    settled.confirm()
    assert settled.closed
    assert settled.answer() == ACK
    assert settled.timers == 0


@each_busy
def test_a_turn_that_is_not_wanted_any_more_leaves_nothing(
    busy: Callable[[Conversation], None],
) -> None:
    talk = Conversation(LIMITS)
    busy(talk)
    talk.answer()
    timers = talk.timers
    turn = Turn(talk, radio_sleeps=30)
    assert turn.waits
    turn.wanted.cancel()
    assert turn.failure is not None
    assert turn.failure.check(CancelledError)
    assert talk.timers == timers
    # Nothing comes of it later, and another one may be asked for.
    second = Turn(talk, SECOND, radio_sleeps=30)
    assert second.waits
    resume(talk)
    rest = {BUSY["before-login"]: LOGIN[5:], BUSY["receiving"]: frame(2)[9:]}
    talk.send(rest.get(busy, b"\xff"))
    confirm_if_any(talk)
    talk.clock.advance(LOGIN_SETTLES)
    assert second.came
    assert not turn.came
    written = talk.answer()
    assert written.endswith(SECOND)
    assert COMMAND not in written
    assert talk.timers == 1


def test_a_turn_that_has_come_cannot_be_given_back(settled: Conversation) -> None:
    turn = Turn(settled)
    turn.wanted.cancel()
    settled.send(frame(2))
    second = Turn(settled, SECOND)
    turn.wanted.cancel()
    assert second.waits
    settled.confirm()
    assert second.came


def test_turns_that_are_asked_for_and_given_back_leave_no_timers(online: Conversation) -> None:
    for _ in range(100):
        turn = Turn(online)
        assert online.timers == 2
        turn.wanted.cancel()
        assert online.timers == 1
    online.clock.advance(LOGIN_SETTLES)
    assert online.answer() == b""
