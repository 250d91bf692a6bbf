"""Connections from login to end: timeouts, identity, messages, limits and closing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import attrs
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.conversation import (
    IMEI,
    LOGIN,
    Conversation,
    frame,
    is_message,
    message,
    repeating,
)
from tracker.interfaces import Admission, Rejection
from tracker.limits import Limits
from tracker.position import Entry
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.login import encode_login
from tracker.vendors.teltonika.positions import REPEATED_ID
from tracker.vendors.teltonika.vendor import Teltonika

OTHER = "352093081452251"
LIMITS = Limits(login_timeout=30, idle_timeout=600)
#: Traffic that shows that a device is alive.
SIGNS_OF_LIFE = [pytest.param(frame(1), id="frame"), pytest.param(b"\xff", id="ping")]


class SlowGateway(FakeGateway):
    """Gateway that may confirm packets after they were cancelled, like Redis."""

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        confirmation: Deferred[None] = Deferred()  # may be called after its cancellation
        self.published.append((entries, confirmation))
        return confirmation


@pytest.fixture
def talk() -> Conversation:
    return Conversation(LIMITS)


# Timeouts.


@pytest.mark.parametrize("sent", [b"", LOGIN[:1], LOGIN[:-1]])
def test_connection_without_a_login_is_closed_after_the_login_timeout(
    talk: Conversation, sent: bytes
) -> None:
    talk.send(sent)
    talk.clock.advance(29.9)
    assert not talk.closed
    talk.clock.advance(0.1)
    assert talk.closed
    assert talk.reason == "no login within 30s"
    assert talk.received() == b""
    assert talk.timers == 0


def test_pings_do_not_extend_the_login_timeout(talk: Conversation) -> None:
    for _ in range(30):
        assert not talk.closed
        talk.send(b"\xff")
        talk.clock.advance(1)
    assert talk.closed
    assert talk.received() == b""


def test_slow_login_does_not_extend_the_login_timeout(talk: Conversation) -> None:
    for byte in LOGIN[:-1]:
        talk.send(bytes((byte,)))
        talk.clock.advance(30 / (len(LOGIN) - 1))
    assert talk.closed


def test_login_just_before_the_timeout_is_accepted(talk: Conversation) -> None:
    talk.clock.advance(29.9)
    talk.send(LOGIN)
    talk.clock.advance(599.9)
    assert not talk.closed
    assert talk.received() == b"\x01"


@pytest.mark.parametrize("sign", [*SIGNS_OF_LIFE, pytest.param(LOGIN, id="same login")])
def test_sign_of_life_restarts_the_idle_timeout(online: Conversation, sign: bytes) -> None:
    online.gateway.confirms_immediately = True
    for _ in range(5):
        online.clock.advance(400)
        online.send(sign)
    online.clock.advance(599.9)
    assert not online.closed
    online.clock.advance(0.1)
    assert online.closed


@pytest.mark.parametrize("sign", SIGNS_OF_LIFE)
def test_many_signs_of_life_use_one_timer(online: Conversation, sign: bytes) -> None:
    online.gateway.confirms_immediately = True
    for _ in range(100):
        online.send(sign)
        online.clock.advance(1)
        assert online.timers == 1


def test_incomplete_frame_is_not_a_sign_of_life(online: Conversation) -> None:
    online.clock.advance(300)
    online.send(b"\xff" + frame(1)[:10])
    online.clock.advance(599)
    online.send(frame(1)[10:20])
    online.clock.advance(1)
    assert online.closed


@pytest.mark.parametrize("sent", [b"", LOGIN, LOGIN + frame(1), LOGIN + frame(1) * 3])
def test_lost_connection_leaves_no_timer(talk: Conversation, sent: bytes) -> None:
    talk.send(sent)
    assert talk.timers == 1
    talk.lose()
    assert talk.timers == 0


def test_paused_connection_resumes_when_its_buffer_is_below_the_limit() -> None:
    limits = attrs.evolve(LIMITS, buffer_bytes=256)
    talk = Conversation(limits)
    talk.send(LOGIN + frame(0))
    talk.send(b"".join(frame(number) for number in range(1, 50)))
    assert talk.transport.producerState == "paused"
    while talk.transport.producerState == "paused":
        before = talk.unread
        assert before > limits.buffer_bytes
        talk.confirm()
    assert talk.unread <= limits.buffer_bytes


# Identity.


def test_repeated_login_is_accepted_again(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    online.send(LOGIN + frame(1) + LOGIN)
    assert online.received() == b"\x01" + b"\x00\x00\x00\x01" + b"\x01"
    assert online.events_of("login") == [("login", IMEI)]
    assert not online.closed


def test_repeated_login_may_arrive_byte_by_byte(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    for byte in b"\xff" + LOGIN:
        assert online.received() == b""
        online.send(bytes((byte,)))
    assert online.received() == b"\x01"
    assert not online.closed


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        (encode_login(OTHER), "second login, with another device ID"),
        (
            b"\x00\x0f35630704244101X",
            "invalid second login: IMEI has invalid characters: an IMEI has 15 digits",
        ),
        (b"\x00\x0fX", "invalid second login: IMEI has invalid characters: an IMEI has 15 digits"),
        (b"\x01\x0f" + IMEI.encode(), "invalid preamble: four zero bytes must come first"),
    ],
)
def test_login_of_another_device_closes_the_connection_without_a_reply(
    online: Conversation, again: bytes, reason: str
) -> None:
    online.send(again + frame(1))
    assert online.received() == b""
    assert online.closed
    assert online.reason == reason
    assert online.events_of("login") == [("login", IMEI)]
    assert online.protocol.device_id == IMEI
    assert not online.gateway.published


def test_login_of_another_device_is_handled_after_the_packet_is_confirmed(
    online: Conversation,
) -> None:
    online.send(frame(1) + encode_login(OTHER))
    assert not online.closed
    online.confirm()
    assert online.received() == b"\x00\x00\x00\x01"
    assert online.closed


def test_undecided_admission_closes_the_connection_without_a_reply(talk: Conversation) -> None:
    talk.gateway.admissions[IMEI] = Admission.LATER
    talk.send(LOGIN + frame(1))
    assert talk.received() == b""
    assert talk.closed
    assert talk.protocol.device_id is None
    assert not talk.gateway.published
    assert talk.timers == 0


def test_connection_that_is_not_admitted_gets_no_protocol() -> None:
    gateway = FakeGateway()
    gateway.admits_connections = False
    assert Teltonika().buildFactory(gateway, LIMITS, Clock()).buildProtocol(None) is None
    assert gateway.events == []


# Messages.


@pytest.mark.parametrize(
    ("sent", "codec"),
    [
        (message(), "12"),
        (message(codec_id=0x0D, time=1_680_554_705), "13"),
        (message(codec_id=0x0E, imei=IMEI), "14"),
        (message(codec_id=0x0F, time=1_680_554_705, imei=IMEI), "15"),
    ],
)
def test_message_is_published_without_an_ack(online: Conversation, sent: bytes, codec: str) -> None:
    online.send(sent)
    ((entries, _),) = online.gateway.published
    assert [entry.codec for entry in entries] == [codec]
    online.confirm()
    assert online.received() == b""
    assert not online.closed


def test_message_without_a_time_is_published_with_the_time_of_arrival(online: Conversation) -> None:
    online.clock.advance(61.25)
    online.send(message())
    assert online.gateway.published[0][0][0].ts == "1970-01-01T00:01:01.250Z"


END = {"lost": Conversation.lose, "superseded": lambda talk: talk.protocol.close()}


@pytest.mark.parametrize("end", END.values(), ids=END)
@pytest.mark.parametrize("keeps", [True, False])
def test_messages_outlive_their_connection(
    online: Conversation, end: Callable[[Conversation], None], keeps: bool
) -> None:
    online.gateway.accepts_detached = keeps
    online.send(frame(1) + message(b"a") + b"\xff" + frame(2) + message(b"b") + frame(3)[:20])
    end(online)
    texts = ["a", "b"] if keeps else []
    published = [json.loads(entry.payload) for (entry,), _ in online.gateway.published[1:]]
    assert [payload["attributes"]["message"] for payload in published] == texts
    assert online.gateway.cancelled == 1  # only the packet that the device sends again
    for _, kept in online.gateway.published[1:]:
        kept.callback(None)
    assert online.received() == b""
    assert online.timers == 0


@pytest.mark.parametrize("sent", [frame(1) + message() * 5, message() * 50])
def test_messages_outlive_the_idle_timeout(online: Conversation, sent: bytes) -> None:
    online.send(sent)
    online.clock.advance(600)
    assert online.closed
    messages = [entries for entries, _ in online.gateway.published if is_message(entries)]
    assert len(messages) == sent.count(message())


def test_messages_that_cannot_be_detached_are_counted_as_lost(online: Conversation) -> None:
    online.gateway.accepts_detached = False
    online.send(message() * 5 + frame(1))
    online.lose()
    assert online.events_of("lost") == [("lost", 4), ("lost", 1)]


@pytest.mark.parametrize("end", END.values(), ids=END)
def test_messages_beyond_the_pending_limit_outlive_their_connection(
    online: Conversation, end: Callable[[Conversation], None]
) -> None:
    online.send(message() * 40)
    end(online)
    online.clock.advance(0)
    assert len(online.gateway.published) == 40
    assert online.gateway.cancelled == 0


@pytest.mark.parametrize("invalid", [frame(1)[:-1] + b"X", b"GET /"])
def test_messages_after_an_invalid_frame_are_dropped(online: Conversation, invalid: bytes) -> None:
    online.send(message(b"a") + invalid + message(b"b"))
    assert online.closed
    assert len(online.gateway.published) == 1


def test_message_of_a_refused_device_is_not_published(talk: Conversation) -> None:
    talk.gateway.admissions[IMEI] = Admission.REFUSED
    talk.send(LOGIN + message())
    assert not talk.gateway.published


@pytest.mark.parametrize(
    "data", [b"\x0c\x01\x06\x01", b"\x0c\x01\x06" + b"\x00\x00\x00\x09" + b"12345678\x01"]
)
def test_malformed_message_is_skipped_and_reported(online: Conversation, data: bytes) -> None:
    online.send(encode_frame(data) + frame(1))
    assert not online.closed
    assert online.gateway.kinds == [Rejection.CONTENT]
    assert [entries[0].codec for entries, _ in online.gateway.published] == ["8"]


def test_frame_without_messages_is_ignored(online: Conversation) -> None:
    online.send(encode_frame(b"\x0c\x00\x00") + frame(1))
    assert not online.closed
    assert online.gateway.kinds == []
    assert [entries[0].codec for entries, _ in online.gateway.published] == ["8"]


@pytest.mark.parametrize("published", malformed.PUBLISHED_WITH_BAD_CRC)
def test_message_with_a_wrong_checksum_closes_the_connection(
    online: Conversation, published: str
) -> None:
    online.send(bytes.fromhex(published))
    assert online.closed
    assert "CRC" in online.reason
    assert online.received() == b""


# Limits.


@pytest.mark.parametrize(("records", "is_accepted"), [(1, True), (5, True), (6, False)])
def test_packet_with_more_records_than_the_limit_closes_the_connection(
    records: int, is_accepted: bool
) -> None:
    talk = Conversation(Limits(records=5))
    talk.gateway.confirms_immediately = True
    talk.send(LOGIN + frame(*range(records)))
    assert talk.closed is not is_accepted
    acknowledged = records.to_bytes(4, "big") if is_accepted else b""
    assert talk.received() == b"\x01" + acknowledged
    if not is_accepted:
        assert talk.reason == "6 records exceed the limit of 5"


def test_connection_accepts_messages_longer_than_the_limit_of_records() -> None:
    talk = Conversation(Limits(frame_bytes=64, command_frame_bytes=200))
    talk.gateway.confirms_immediately = True
    talk.send(LOGIN + message(bytes(200 - 8)))
    assert len(talk.gateway.published) == 1
    assert not talk.closed
    talk.send(frame(*range(3)))
    assert talk.closed
    assert "exceeds the limit of 64" in talk.reason


def test_message_past_its_limit_closes_the_connection_after_its_header() -> None:
    talk = Conversation(Limits(frame_bytes=64, command_frame_bytes=200))
    talk.send(LOGIN + message(bytes(201 - 8))[:8])
    assert talk.closed
    assert "201 exceeds the limit" in talk.reason


# The end of a connection with an unconfirmed packet.


@pytest.mark.parametrize("lingers", [False, True])
@pytest.mark.parametrize("sent", [frame(1), frame(1) + frame(2), message()])
def test_connection_closed_before_the_confirmation_sends_no_ack(sent: bytes, lingers: bool) -> None:
    gateway = SlowGateway()
    talk = Conversation(LIMITS, gateway, lingers)
    talk.send(LOGIN + sent)
    talk.received()
    talk.protocol.close()
    talk.confirm()
    talk.send(frame(3))
    assert talk.received() == b""
    assert len(gateway.published) == 1
    assert talk.timers == (1 if lingers else 0)


def test_pings_restart_the_idle_timeout_while_a_packet_is_unconfirmed(online: Conversation) -> None:
    online.send(frame(1))
    for _ in range(20):
        online.clock.advance(100)
        online.send(b"\xff")
    assert not online.closed
    online.confirm()
    assert online.received() == b"\x00\x00\x00\x01"


def test_idle_timeout_cancels_an_unconfirmed_packet(
    online: Conversation,
) -> None:
    online.send(frame(1))
    online.clock.advance(600)
    assert online.closed
    assert online.gateway.cancelled == 1
    assert online.received() == b""


# Repeated ids.


def test_repeated_ids_are_reported_once_per_connection(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    for _ in range(3):
        online.send(repeating(1, 2))
    assert online.events_of("noticed") == [("noticed", REPEATED_ID)]
    assert not online.closed


def test_io_ids_that_occur_once_are_not_reported(online: Conversation) -> None:
    online.gateway.confirms_immediately = True
    online.send(frame(1, 2))
    assert not online.events_of("noticed")
