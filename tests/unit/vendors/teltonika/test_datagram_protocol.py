"""Devices over UDP: what is answered, when, and what is published once only."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.internet.testing import FakeDatagramTransport

from tests.unit.fakes import FakeGateway
from tests.unit.vendors.teltonika.golden import IMEI, SMALLEST, TWO_RECORDS
from tests.unit.vendors.teltonika.golden_datagrams import GOLDEN_DATAGRAMS, GoldenDatagram
from tracker.interfaces import Admission, IPeer, NotAccepted, Rejection
from tracker.limits import Limits
from tracker.vendors import datagram as datagram_port
from tracker.vendors.datagram import WINDOW
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.datagram import Datagram, encode_datagram
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message
from tracker.vendors.teltonika.positions import REPEATED_ID
from tracker.vendors.teltonika.vendor import Teltonika

ADDRESS = ("192.0.2.7", 40_001)
ELSEWHERE = ("198.51.100.9", 7)
MESSAGE = encode_message(Message(MESSAGE_CODECS[0x0C], 0x06, b"DI1:1"))


def datagram(
    data: bytes = TWO_RECORDS.data, packet_id: int = 0xCAFE, avl_id: int = 5, imei: str = IMEI
) -> bytes:
    """What a device sends."""
    return encode_datagram(Datagram(packet_id, avl_id, imei, data))


class Port:
    """A protocol, its transport and its gateway."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.gateway = FakeGateway()
        self.clock = Clock()
        self.protocol = Teltonika().buildDatagramProtocol(
            self.gateway, limits or Limits(), self.clock
        )
        self.transport = FakeDatagramTransport()
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes, address: tuple[str, int] = ADDRESS) -> None:
        self.protocol.datagramReceived(data, address)

    def answers(self) -> list[tuple[str, tuple[str, int]]]:
        """What was sent, as hex and to whom, since the last time."""
        written, self.transport.written = self.transport.written, []
        return [(data.hex(), address) for data, address in written]

    def confirm(self, number: int = -1) -> None:
        """Redis confirms a packet."""
        self.gateway.published[number][1].callback(None)

    @property
    def published(self) -> int:
        return len(self.gateway.published)

    @property
    def reasons(self) -> list[str]:
        """Why datagrams were rejected."""
        return [event[1] for event in self.gateway.events if event[0] == "rejected"]


@pytest.fixture
def port() -> Port:
    return Port()


# Answers.


def test_an_answer_leaves_only_after_the_confirmation(port: Port) -> None:
    port.receive(datagram())
    ((entries, _),) = port.gateway.published
    assert [(entry.device_id, entry.codec) for entry in entries] == [(IMEI, "8")] * 2
    assert port.answers() == []
    port.clock.advance(5)
    assert port.answers() == []
    port.confirm()
    assert port.answers() == [("0005cafe010502", ADDRESS)]


@pytest.mark.parametrize("golden", GOLDEN_DATAGRAMS, ids=lambda golden: golden.name)
def test_a_golden_datagram_is_answered_as_documented(port: Port, golden: GoldenDatagram) -> None:
    port.receive(golden.datagram)
    assert [len(entries) for entries, _ in port.gateway.published] == [1]
    port.confirm()
    assert port.answers() == [(golden.answer.hex(), ADDRESS)]
    assert port.reasons == []


def test_answers_go_to_whom_each_datagram_came_from(port: Port) -> None:
    port.receive(datagram(avl_id=1))
    port.receive(datagram(avl_id=2, packet_id=0), ELSEWHERE)
    port.confirm(1)
    port.confirm(0)
    assert port.answers() == [("00050000010202", ELSEWHERE), ("0005cafe010102", ADDRESS)]


def test_a_packet_without_records_is_answered_with_its_count(port: Port) -> None:
    port.gateway.confirms_at_once = True
    port.receive(datagram(b"\x08\x00\x00"))
    assert port.answers() == [("0005cafe010500", ADDRESS)]


def test_255_records_are_answered_in_one_byte(port: Port) -> None:
    port.gateway.confirms_at_once = True
    record = Record(0, 0, 0, 0, 0, 0, 0, 0, 0)
    port.receive(datagram(encode_packet(CODEC_8, [record] * 255)))
    assert port.answers() == [("0005cafe0105ff", ADDRESS)]


@pytest.mark.parametrize("error", [NotAccepted("stopping"), CancelledError()])
def test_what_is_not_confirmed_is_not_answered_and_forgotten(port: Port, error: Exception) -> None:
    port.receive(datagram())
    port.gateway.published[0][1].errback(error)
    assert port.answers() == []
    port.receive(datagram())
    assert port.published == 2
    port.confirm()
    assert port.answers() == [("0005cafe010502", ADDRESS)]


def test_nothing_is_answered_once_the_port_is_closed(port: Port) -> None:
    port.receive(datagram())
    port.protocol.transport = None  # as stopListening leaves it
    port.confirm()
    assert port.answers() == []


# Repetitions.


def test_a_repetition_before_the_confirmation_is_answered_along_with_it(port: Port) -> None:
    for _ in range(3):
        port.receive(datagram())
        port.clock.advance(5)
    assert port.published == 1
    assert port.answers() == []
    port.confirm()
    assert port.answers() == [("0005cafe010502", ADDRESS)]


def test_a_repetition_after_the_confirmation_is_answered_again_and_not_published(
    port: Port,
) -> None:
    port.receive(datagram())
    port.confirm()
    port.receive(datagram(), ELSEWHERE)  # behind a new address of its carrier
    assert port.published == 1
    assert port.answers() == [("0005cafe010502", ADDRESS), ("0005cafe010502", ELSEWHERE)]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(datagram(SMALLEST.data), id="content"),
        pytest.param(datagram(packet_id=0xCAFF), id="packet id"),
        pytest.param(datagram(avl_id=6), id="AVL packet id"),
        pytest.param(datagram(imei="352093081452251"), id="device"),
    ],
)
def test_what_differs_in_anything_is_no_repetition(port: Port, other: bytes) -> None:
    port.receive(datagram())
    port.receive(other)
    assert port.published == 2


def test_a_byte_that_means_nothing_makes_no_difference(port: Port) -> None:
    port.gateway.confirms_at_once = True
    port.receive(datagram())
    changed = bytearray(datagram())
    assert changed[4] == 0x01
    changed[4] = 0x00
    port.receive(bytes(changed))
    assert port.published == 1
    assert port.answers() == [("0005cafe010502", ADDRESS)] * 2


def test_a_repetition_is_recognised_for_a_while_only(port: Port) -> None:
    port.gateway.confirms_at_once = True
    port.receive(datagram())
    port.clock.advance(WINDOW - 0.1)
    port.receive(datagram())
    assert port.published == 1
    port.clock.advance(0.1)
    port.receive(datagram())
    assert port.published == 2
    assert len(port.answers()) == 3
    assert len(port.protocol._recent) == 1


def test_what_is_out_of_the_window_takes_no_memory(port: Port) -> None:
    port.gateway.confirms_at_once = True
    for number in range(100):
        port.receive(datagram(avl_id=number))
    port.clock.advance(WINDOW)
    port.receive(datagram(avl_id=200))
    assert len(port.protocol._recent) == 1


def test_only_so_many_datagrams_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_port, "REMEMBERED", 10)
    port = Port()
    port.gateway.confirms_at_once = True
    for number in range(50):
        port.receive(datagram(avl_id=number))
        assert len(port.protocol._recent) <= 10
    port.receive(datagram(avl_id=49))
    assert port.published == 50  # the newest ones are those that are known
    port.receive(datagram(avl_id=0))
    assert port.published == 51


# Limits and rejections.


def test_only_so_many_datagrams_are_under_way() -> None:
    port = Port(Limits(datagrams_under_way=3))
    for number in range(5):
        port.receive(datagram(avl_id=number))
    assert port.published == 3
    assert len(port.protocol._recent) == 3
    port.confirm(0)
    port.receive(datagram(avl_id=3))  # the device repeats what was dropped
    port.receive(datagram(avl_id=4))
    assert port.published == 4
    port.gateway.published[1][1].errback(NotAccepted("stopping"))
    port.receive(datagram(avl_id=4))
    assert port.published == 5
    for number in (2, 3, 4):
        port.confirm(number)
    assert [answer[10:12] for answer, _ in port.answers()] == ["00", "02", "03", "04"]


@pytest.mark.parametrize("admission", [Admission.REFUSED, Admission.LATER])
def test_a_device_that_is_not_served_gets_no_answer(port: Port, admission: Admission) -> None:
    port.gateway.admissions[IMEI] = admission
    port.receive(datagram())
    assert port.published == 0
    assert port.answers() == []
    port.gateway.admissions.clear()
    port.receive(datagram())
    assert port.published == 1


def test_a_known_datagram_is_not_answered_once_its_device_is_not_served(port: Port) -> None:
    port.gateway.confirms_at_once = True
    port.receive(datagram())
    port.answers()
    port.gateway.admissions[IMEI] = Admission.REFUSED
    port.receive(datagram())
    assert port.answers() == []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "too short"),
        (b"\xff", "too short"),
        (datagram()[:25], "too short"),
        (b"\x01" + datagram()[1:], "a length of"),
        (datagram() + b"\x00", "a length of"),
        (datagram()[:6] + b"\x00\x04" + datagram()[8:], "4 instead of 15 digits"),
        (datagram()[:8] + b"X" + datagram()[9:], "other characters"),
        (datagram(b"\x55\x01\x01"), "unsupported codec 0x55"),
        (datagram(b"\x08\x01\x02"), "1 records at the start"),
        (datagram(b"\x08\x01\x01"), "past the packet's end"),
        (datagram(MESSAGE), "a message over UDP"),
        (datagram(MESSAGE[:-1]), "where"),
    ],
)
def test_what_cannot_be_is_dropped_and_told(port: Port, data: bytes, told: str) -> None:
    port.receive(data)
    assert port.published == 0
    assert port.answers() == []
    assert told in port.reasons[0]
    assert len(port.protocol._recent) == 0


def test_records_of_a_packet_are_limited() -> None:
    port = Port(Limits(records=1))
    port.receive(datagram(TWO_RECORDS.data))
    assert port.reasons == ["2 records: the limit is 1"]
    port.receive(datagram(SMALLEST.data))
    assert port.published == 1


def test_a_rejection_names_the_sender(port: Port) -> None:
    peers: list[tuple[str, str | None]] = []

    def rejected(peer: IPeer, reason: str, kind: Rejection = Rejection.CONTENT) -> None:
        peers.append((peer.peer, peer.device_id))

    port.gateway.rejected = rejected  # type: ignore[method-assign]
    port.receive(b"")
    port.receive(datagram(MESSAGE))
    assert peers == [("udp 192.0.2.7:40001", None), ("udp 192.0.2.7:40001", IMEI)]


def test_repeated_ids_are_noticed(port: Port) -> None:
    record = Record(0, 0, 0, 0, 0, 0, 0, 0, 0, ((66, 2, 1), (66, 2, 2)))
    port.receive(datagram(encode_packet(CODEC_8, [record, attrs.evolve(record, timestamp=1)])))
    assert ("noticed", REPEATED_ID) in port.gateway.events
    assert port.published == 1


# Anything at all.


def fuzzed(change: Callable[[bytearray], None]) -> bytes:
    data = bytearray(datagram())
    change(data)
    return bytes(data)


@given(st.lists(st.binary(max_size=80), max_size=10))
def test_no_datagram_raises_or_is_answered_unconfirmed(datagrams: list[bytes]) -> None:
    port = Port()
    for data in datagrams:
        port.receive(data)
    assert port.answers() == []


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60).map(lambda data: datagram(data + b"\x08\x00\x00")),
            st.tuples(
                st.sampled_from([0x07, 0x08, 0x8E, 0x10, 0x0C, 0x0D, 0x0E, 0x0F]),
                st.integers(0, 3),
                st.binary(max_size=60),
            ).map(lambda drawn: datagram(bytes(drawn[:2]) + drawn[2] + bytes((drawn[1],)))),
            st.tuples(st.integers(0, 60), st.integers(0, 255)).map(
                lambda change: fuzzed(lambda data: data.__setitem__(*change))
            ),
        ),
        max_size=10,
    )
)
def test_no_content_raises_and_as_many_are_answered_as_are_confirmed(
    datagrams: list[bytes],
) -> None:
    port = Port()
    for data in datagrams:
        port.receive(data)
    assert port.answers() == []
    for number in range(port.published):
        port.confirm(number)
    assert len(port.answers()) == port.published


@pytest.mark.parametrize(("most", "taken"), [(0, True), (-1, False)])
def test_the_data_of_a_datagram_is_limited(most: int, taken: bool) -> None:
    records = [Record(number, 0, 1, 2, 3, 4, 5, 6, 0) for number in range(4)]
    data = encode_packet(CODEC_8, records)
    port = Port(Limits(frame_bytes=len(data) + most))
    port.receive(datagram(data))
    assert port.published == taken
    told = [event[1] for event in port.gateway.events if event[0] == "rejected"]
    expected = f"data length {len(data)} is over the limit of {len(data) + most}"
    assert told == ([] if taken else [expected])


def test_a_datagram_under_way_is_not_forgotten() -> None:
    port = Port()
    port.receive(datagram())
    port.clock.advance(WINDOW + 1)
    port.receive(datagram())
    assert port.published == 1
    port.confirm()
    assert len(port.answers()) == 1
    port.clock.advance(WINDOW - 1)  # from the confirmation on
    port.receive(datagram())
    assert port.published == 1
    assert len(port.answers()) == 1
    port.clock.advance(2)
    port.receive(datagram())
    assert port.published == 2
