"""A connection that is looked at from outside: its traffic, its facts, and its retirement."""

from __future__ import annotations

from typing import Any

import pytest
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.teltonika.conversation import (
    IMEI,
    LOGIN,
    Conversation,
    frame,
    message,
)
from tracker.interfaces import Admission, ConnectionFigures, IConnection, NotAppended, Traffic
from tracker.limits import Limits
from tracker.vendors.teltonika.dialect import LOGIN_SETTLES
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY
from tracker.vendors.timer import CLOSE_TIMEOUT

ONE = b"\x00\x00\x00\x01"
Told = list[tuple[Traffic, bytes]]


@pytest.fixture
def online() -> Conversation:
    talk = Conversation()
    talk.clock.advance(10)
    talk.send(LOGIN)
    assert talk.answer() == b"\x01"
    return talk


def watched(talk: Conversation) -> Told:
    """What an observer is told from now on."""
    told: Told = []
    talk.protocol.observe(lambda *what: told.append(what))
    return told


def test_it_keeps_to_the_interface(online: Conversation) -> None:
    assert verifyObject(IConnection, online.protocol)


# Facts.


def test_the_facts_begin_with_the_login(online: Conversation) -> None:
    assert online.protocol.figures() == ConnectionFigures(10.0, 10.0, "", 0, len(LOGIN))


def test_the_facts_tell_what_was_received(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    online.clock.advance(5)
    online.send(frame(1, 2))
    online.clock.advance(5)
    online.send(frame(3))
    received = len(LOGIN + frame(1, 2) + frame(3))
    assert online.protocol.figures() == ConnectionFigures(10.0, 20.0, "8", 3, received)


def test_a_message_is_no_record(online: Conversation) -> None:
    online.clock.advance(5)
    online.send(message())
    assert online.protocol.figures() == ConnectionFigures(
        10.0, 15.0, "12", 0, len(LOGIN + message())
    )


def test_what_is_not_whole_counts_as_bytes_only(online: Conversation) -> None:
    online.clock.advance(5)
    online.send(frame(1)[:-1])
    assert online.protocol.figures() == ConnectionFigures(
        10.0, 10.0, "", 0, len(LOGIN + frame(1)) - 1
    )


def test_a_ping_is_heard(online: Conversation) -> None:
    online.clock.advance(5)
    online.send(b"\xff")
    assert online.protocol.figures() == ConnectionFigures(10.0, 15.0, "", 0, len(LOGIN) + 1)


# Observing.


def test_an_observer_is_told_what_is_received_and_sent(online: Conversation) -> None:
    told = watched(online)
    online.send(frame(1))
    assert told == [(Traffic.RECEIVED, frame(1))]
    online.confirm()  # an acknowledgement is told when it is sent, and not before
    online.send(message())
    online.protocol.write_command(b"command")
    assert told == [
        (Traffic.RECEIVED, frame(1)),
        (Traffic.SENT, ONE),
        (Traffic.RECEIVED, message()),
        (Traffic.SENT, b"command"),
    ]


def test_frames_are_told_one_by_one_however_they_come(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    told = watched(online)
    data = frame(1) + b"\xff\xff" + frame(2, 3) + message() + frame(4)
    for byte in data[:-30]:
        online.send(bytes((byte,)))
    online.send(data[-30:])
    received = [data for kind, data in told if kind is Traffic.RECEIVED]
    assert received == [frame(1), frame(2, 3), message(), frame(4)]


def test_a_frame_is_told_before_what_follows_from_it(online: Conversation) -> None:
    told: list[Any] = []
    online.gateway.confirms_immediately = True
    online.protocol.observe(lambda kind, data: told.append((kind, len(online.gateway.published))))
    online.send(frame(1))
    assert told == [(Traffic.RECEIVED, 0), (Traffic.SENT, 1)]


def test_the_answer_to_a_login_is_told_to_who_watches_by_then() -> None:
    told: Told = []

    class Watching(FakeGateway):
        def login(self, connection: IConnection, device_id: str) -> Admission:
            connection.observe(lambda *what: told.append(what))
            return super().login(connection, device_id)

    talk = Conversation(gateway=Watching())
    talk.send(LOGIN)
    assert told == [(Traffic.SENT, b"\x01")]


def test_a_login_that_is_repeated_is_told_with_its_answer(online: Conversation) -> None:
    told = watched(online)
    online.send(LOGIN)
    assert told == [(Traffic.RECEIVED, LOGIN), (Traffic.SENT, b"\x01")]


def test_who_observes_no_more_is_told_no_more(online: Conversation) -> None:
    told = watched(online)
    online.protocol.observe(None)
    online.send(frame(1))
    online.confirm()
    assert told == []
    assert online.answer() == ONE


def test_what_is_no_frame_is_not_told_as_one(online: Conversation) -> None:
    told = watched(online)
    damaged = bytearray(frame(1))
    damaged[-1] ^= 1
    online.send(bytes(damaged))
    assert online.told("rejected")
    assert told == []


# Retiring.


def test_who_is_idle_retires_at_once(online: Conversation) -> None:
    online.protocol.retire()
    assert online.closed
    assert online.timers == 0
    assert not online.told("rejected")


def test_a_packet_under_way_is_acknowledged_first(online: Conversation) -> None:
    online.send(frame(1))
    online.protocol.retire()
    assert not online.closed
    online.confirm()
    assert online.answer() == ONE
    assert online.closed
    assert online.timers == 0


def test_so_are_those_that_wait_behind_it(online: Conversation) -> None:
    online.send(frame(1) + frame(2) + frame(3)[:10])
    online.protocol.retire()
    online.confirm()
    assert not online.closed
    online.confirm()
    assert not online.closed
    online.send(frame(3)[10:])
    online.confirm()
    assert online.answer() == ONE * 3
    assert online.closed


def test_half_a_packet_is_waited_for(online: Conversation) -> None:
    online.send(frame(1)[:10])
    online.protocol.retire()
    online.clock.advance(60)
    assert not online.closed
    online.send(frame(1)[10:])
    online.confirm()
    assert online.answer() == ONE
    assert online.closed


def test_a_login_that_is_repeated_is_answered_first(online: Conversation) -> None:
    online.protocol.dataReceived(LOGIN)  # the answer comes in the next turn
    online.protocol.retire()
    assert not online.closed
    online.clock.advance(0)
    assert online.answer() == b"\x01"
    assert online.closed


def test_messages_under_way_hold_up_nobody(online: Conversation) -> None:
    """They outlive their connection."""
    online.send(message())
    online.protocol.retire()
    assert online.closed
    assert not online.gateway.cancelled


def test_but_too_many_are_waited_for(online: Conversation) -> None:
    online.send(message() * MAX_MESSAGES_UNDER_WAY)
    online.protocol.retire()
    assert not online.closed
    online.confirm()
    assert online.closed


def test_a_packet_that_is_not_taken_ends_it_without_an_acknowledgement(
    online: Conversation,
) -> None:
    online.send(frame(1))
    online.protocol.retire()
    online.gateway.published[-1][1].errback(NotAppended())
    assert online.closed
    assert online.answer() == b""


def test_who_has_not_logged_in_retires_too() -> None:
    talk = Conversation()
    talk.protocol.retire()
    assert talk.closed
    assert talk.timers == 0


def test_what_comes_after_the_retirement_is_not_read(online: Conversation) -> None:
    online.protocol.retire()
    online.send(frame(1))
    assert not online.gateway.published


def test_to_retire_twice_is_to_retire_once(online: Conversation) -> None:
    online.send(frame(1))
    online.protocol.retire()
    online.protocol.retire()
    online.confirm()
    online.protocol.retire()
    assert online.answer() == ONE
    assert len(online.told("closed")) == 1


def test_whoever_waits_to_write_is_told_that_it_has_ended(online: Conversation) -> None:
    failed: list[Any] = []
    online.send(frame(1)[:10])
    online.protocol.when_free().addErrback(failed.append)
    online.protocol.retire()
    assert not failed
    online.send(frame(1)[10:])
    online.confirm()
    assert online.closed


def test_a_device_that_does_not_read_is_waited_for_until_it_has() -> None:
    talk = Conversation(lingers=True)
    talk.send(LOGIN)
    talk.protocol.pauseProducing()
    talk.protocol.retire()
    assert not talk.closed
    talk.protocol.resumeProducing()
    assert talk.closed
    talk.clock.advance(CLOSE_TIMEOUT)
    assert talk.timers == 0


def test_a_device_that_retires_may_be_silent_for_no_longer_than_others() -> None:
    talk = Conversation(Limits(idle_timeout=60))
    talk.send(LOGIN)
    talk.send(frame(1)[:10])
    talk.protocol.retire()
    talk.clock.advance(60 + LOGIN_SETTLES)
    assert talk.closed
    assert talk.protocol.device_id == IMEI
