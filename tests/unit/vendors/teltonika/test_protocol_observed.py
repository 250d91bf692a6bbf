"""Observation, figures and retirement of a connection."""

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
from tracker.vendors.teltonika.dialect import LOGIN_SETTLE_TIME
from tracker.vendors.throttle import MAX_MESSAGES_UNDER_WAY
from tracker.vendors.timer import CLOSE_TIMEOUT

ACK = b"\x00\x00\x00\x01"
Events = list[tuple[Traffic, bytes]]


@pytest.fixture
def online() -> Conversation:
    talk = Conversation()
    talk.clock.advance(10)
    talk.send(LOGIN)
    assert talk.received() == b"\x01"
    return talk


def watched(talk: Conversation) -> Events:
    """Observe the connection and return the growing list of events."""
    events: Events = []
    talk.protocol.observe(lambda *event: events.append(event))
    return events


def test_connection_provides_its_interface(online: Conversation) -> None:
    assert verifyObject(IConnection, online.protocol)


# Figures.


def test_figures_of_a_new_connection_include_only_the_login(online: Conversation) -> None:
    assert online.protocol.figures() == ConnectionFigures(10.0, 10.0, "", 0, len(LOGIN))


def test_figures_include_received_records_and_bytes(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    online.clock.advance(5)
    online.send(frame(1, 2))
    online.clock.advance(5)
    online.send(frame(3))
    received = len(LOGIN + frame(1, 2) + frame(3))
    assert online.protocol.figures() == ConnectionFigures(10.0, 20.0, "8", 3, received)


def test_message_is_not_counted_as_a_record(online: Conversation) -> None:
    online.clock.advance(5)
    online.send(message())
    assert online.protocol.figures() == ConnectionFigures(
        10.0, 15.0, "12", 0, len(LOGIN + message())
    )


def test_incomplete_frame_is_counted_as_bytes_only(online: Conversation) -> None:
    online.clock.advance(5)
    online.send(frame(1)[:-1])
    assert online.protocol.figures() == ConnectionFigures(
        10.0, 10.0, "", 0, len(LOGIN + frame(1)) - 1
    )


def test_ping_updates_the_time_of_the_last_frame(online: Conversation) -> None:
    online.clock.advance(5)
    online.send(b"\xff")
    assert online.protocol.figures() == ConnectionFigures(10.0, 15.0, "", 0, len(LOGIN) + 1)


# Observing.


def test_observer_receives_frames_acks_and_commands(online: Conversation) -> None:
    events = watched(online)
    online.send(frame(1))
    assert events == [(Traffic.RECEIVED, frame(1))]
    online.confirm()  # an ACK is reported when it is sent
    online.send(message())
    online.protocol.write_command(b"command")
    assert events == [
        (Traffic.RECEIVED, frame(1)),
        (Traffic.SENT, ACK),
        (Traffic.RECEIVED, message()),
        (Traffic.SENT, b"command"),
    ]


def test_observer_receives_single_frames_for_any_segments(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    events = watched(online)
    data = frame(1) + b"\xff\xff" + frame(2, 3) + message() + frame(4)
    for byte in data[:-30]:
        online.send(bytes((byte,)))
    online.send(data[-30:])
    received = [data for kind, data in events if kind is Traffic.RECEIVED]
    assert received == [frame(1), frame(2, 3), message(), frame(4)]


def test_observer_receives_a_frame_before_it_is_published(online: Conversation) -> None:
    events: list[Any] = []
    online.gateway.confirms_immediately = True
    online.protocol.observe(lambda kind, data: events.append((kind, len(online.gateway.published))))
    online.send(frame(1))
    assert events == [(Traffic.RECEIVED, 0), (Traffic.SENT, 1)]


def test_observer_added_during_the_login_receives_the_reply() -> None:
    events: Events = []

    class Watching(FakeGateway):
        def login(self, connection: IConnection, device_id: str) -> Admission:
            connection.observe(lambda *event: events.append(event))
            return super().login(connection, device_id)

    talk = Conversation(gateway=Watching())
    talk.send(LOGIN)
    assert events == [(Traffic.SENT, b"\x01")]


def test_observer_receives_a_repeated_login_and_its_reply(online: Conversation) -> None:
    events = watched(online)
    online.send(LOGIN)
    assert events == [(Traffic.RECEIVED, LOGIN), (Traffic.SENT, b"\x01")]


def test_removed_observer_receives_nothing(online: Conversation) -> None:
    events = watched(online)
    online.protocol.observe(None)
    online.send(frame(1))
    online.confirm()
    assert events == []
    assert online.received() == ACK


def test_observer_does_not_receive_an_invalid_frame(online: Conversation) -> None:
    events = watched(online)
    damaged = bytearray(frame(1))
    damaged[-1] ^= 1
    online.send(bytes(damaged))
    assert online.events_of("rejected")
    assert events == []


# Retiring.


def test_idle_connection_retires_at_once(online: Conversation) -> None:
    online.protocol.retire()
    assert online.closed
    assert online.timers == 0
    assert not online.events_of("rejected")


def test_unconfirmed_packet_is_acknowledged_before_retirement(online: Conversation) -> None:
    online.send(frame(1))
    online.protocol.retire()
    assert not online.closed
    online.confirm()
    assert online.received() == ACK
    assert online.closed
    assert online.timers == 0


def test_packets_behind_an_unconfirmed_one_are_acknowledged_before_retirement(
    online: Conversation,
) -> None:
    online.send(frame(1) + frame(2) + frame(3)[:10])
    online.protocol.retire()
    online.confirm()
    assert not online.closed
    online.confirm()
    assert not online.closed
    online.send(frame(3)[10:])
    online.confirm()
    assert online.received() == ACK * 3
    assert online.closed


def test_retirement_waits_for_an_incomplete_packet(online: Conversation) -> None:
    online.send(frame(1)[:10])
    online.protocol.retire()
    online.clock.advance(60)
    assert not online.closed
    online.send(frame(1)[10:])
    online.confirm()
    assert online.received() == ACK
    assert online.closed


def test_repeated_login_is_accepted_before_retirement(online: Conversation) -> None:
    online.protocol.dataReceived(LOGIN)  # the reply is written in the next reactor turn
    online.protocol.retire()
    assert not online.closed
    online.clock.advance(0)
    assert online.received() == b"\x01"
    assert online.closed


def test_unconfirmed_message_does_not_delay_retirement(online: Conversation) -> None:
    online.send(message())
    online.protocol.retire()
    assert online.closed
    assert not online.gateway.cancelled


def test_too_many_unconfirmed_messages_delay_retirement(online: Conversation) -> None:
    online.send(message() * MAX_MESSAGES_UNDER_WAY)
    online.protocol.retire()
    assert not online.closed
    online.confirm()
    assert online.closed


def test_packet_that_is_not_accepted_closes_a_retiring_connection(
    online: Conversation,
) -> None:
    online.send(frame(1))
    online.protocol.retire()
    online.gateway.published[-1][1].errback(NotAppended())
    assert online.closed
    assert online.received() == b""


def test_connection_without_a_login_retires() -> None:
    talk = Conversation()
    talk.protocol.retire()
    assert talk.closed
    assert talk.timers == 0


def test_frame_after_the_retirement_is_not_read(online: Conversation) -> None:
    online.protocol.retire()
    online.send(frame(1))
    assert not online.gateway.published


def test_repeated_retirement_closes_the_connection_once(online: Conversation) -> None:
    online.send(frame(1))
    online.protocol.retire()
    online.protocol.retire()
    online.confirm()
    online.protocol.retire()
    assert online.received() == ACK
    assert len(online.events_of("closed")) == 1


def test_pending_command_fails_when_the_connection_retires(online: Conversation) -> None:
    failed: list[Any] = []
    online.send(frame(1)[:10])
    online.protocol.when_free().addErrback(failed.append)
    online.protocol.retire()
    assert not failed
    online.send(frame(1)[10:])
    online.confirm()
    assert online.closed


def test_retirement_waits_until_the_device_reads() -> None:
    talk = Conversation(lingers=True)
    talk.send(LOGIN)
    talk.protocol.pauseProducing()
    talk.protocol.retire()
    assert not talk.closed
    talk.protocol.resumeProducing()
    assert talk.closed
    talk.clock.advance(CLOSE_TIMEOUT)
    assert talk.timers == 0


def test_idle_timeout_applies_to_a_retiring_connection() -> None:
    talk = Conversation(Limits(idle_timeout=60))
    talk.send(LOGIN)
    talk.send(frame(1)[:10])
    talk.protocol.retire()
    talk.clock.advance(60 + LOGIN_SETTLE_TIME)
    assert talk.closed
    assert talk.protocol.device_id == IMEI
