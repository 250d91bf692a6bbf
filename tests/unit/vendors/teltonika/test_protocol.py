"""Logins, frames and pings over a transport without a socket."""

from __future__ import annotations

import pytest
from zope.interface.verify import verifyObject

from tests.unit.vendors.teltonika.conversation import IMEI, LOGIN, Conversation, frame
from tracker.interfaces import Admission, IConnection, IGateway
from tracker.vendors.teltonika.envelope import encode_frame


@pytest.fixture
def talk() -> Conversation:
    return Conversation()


def test_gateway_double_and_protocol_provide_their_interfaces(talk: Conversation) -> None:
    verifyObject(IGateway, talk.gateway)
    verifyObject(IConnection, talk.protocol)


def test_login_is_accepted_with_one_byte(talk: Conversation) -> None:
    talk.send(LOGIN)
    assert talk.received() == b"\x01"
    assert talk.protocol.device_id == IMEI
    assert ("login", IMEI) in talk.gateway.events


def test_login_may_arrive_byte_by_byte(talk: Conversation) -> None:
    for index in range(len(LOGIN)):
        assert talk.received() == b""
        talk.send(LOGIN[index : index + 1])
    assert talk.received() == b"\x01"


def test_refused_device_gets_a_refusal_and_is_disconnected(talk: Conversation) -> None:
    talk.gateway.admissions[IMEI] = Admission.REFUSED
    talk.send(LOGIN + frame(1))
    assert talk.received() == b"\x00"
    assert talk.closed
    assert not talk.gateway.published


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        pytest.param(b"\x00\x0f35630704244101X", b"\x00", id="letter"),
        pytest.param(b"\x00\x0f3563A", b"\x00", id="letter-in-an-incomplete-login"),
        pytest.param(b"\x00\x0e35630704244101", b"\x00", id="14-digits"),
        pytest.param(b"\x00\x103563070424410133", b"\x00", id="16-digits"),
        pytest.param(frame(1), b"", id="frame-before-login"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"", id="http"),
        pytest.param(b"\x16\x03\x01\x02\x00", b"", id="tls"),
        pytest.param(b"S", b"", id="one-byte"),
    ],
)
def test_invalid_login_closes_the_connection(
    talk: Conversation, data: bytes, answer: bytes
) -> None:
    talk.send(data)
    assert talk.received() == answer
    assert talk.closed
    assert talk.reason
    assert not talk.gateway.published


def test_ack_is_sent_only_after_the_append_is_confirmed(online: Conversation) -> None:
    online.send(frame(1, 2, 3))
    assert online.received() == b""
    entries, _ = online.gateway.published[0]
    assert len(entries) == 3
    online.confirm()
    assert online.received() == b"\x00\x00\x00\x03"


def test_frame_may_arrive_byte_by_byte(online: Conversation) -> None:
    data = frame(1, 2)
    for index in range(len(data)):
        assert not online.gateway.published
        online.send(data[index : index + 1])
    online.confirm()
    assert online.received() == b"\x00\x00\x00\x02"


def test_login_and_frames_may_arrive_in_one_segment(talk: Conversation) -> None:
    talk.gateway.confirms_immediately = True
    talk.send(b"\xff" + LOGIN + b"\xff\xff" + frame(1) + frame(2, 3) + b"\xff")
    assert talk.received() == b"\x01" + b"\x00\x00\x00\x01" + b"\x00\x00\x00\x02"
    assert [len(entries) for entries, _ in talk.gateway.published] == [1, 2]


def test_pings_between_frames_get_no_reply(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    for data in (b"\xff", b"\xff\xff", frame(1), b"\xff" + frame(2)):
        online.send(data)
    assert online.received() == b"\x00\x00\x00\x01" * 2
    assert not online.closed


def test_ack_of_a_packet_without_records_has_the_count_0(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    online.send(bytes.fromhex("00000000000000030800000000C281"))
    assert online.received() == b"\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(frame(1)[:-1] + b"\x00", "CRC", id="bad-crc"),
        pytest.param(b"\x00" * 4 + b"\x00\xff\xff\xff", "exceeds the limit", id="too-long"),
        pytest.param(bytes(8), "too short", id="empty"),
        pytest.param(b"\xde\xad\xbe\xef" + frame(1), "preamble", id="garbage"),
        pytest.param(encode_frame(b"\x08\x01\x02"), "record counts differ", id="counts"),
        pytest.param(encode_frame(b"\x55\x01\x01"), "codec", id="unknown-codec"),
        pytest.param(encode_frame(b"\x08\x01\x01"), "past the end of the packet", id="truncated"),
    ],
)
def test_invalid_frame_closes_the_connection_without_an_ack(
    online: Conversation, data: bytes, reason: str
) -> None:
    online.send(data + frame(2))
    assert online.received() == b""
    assert online.closed
    assert reason in online.reason
    assert not online.gateway.published
