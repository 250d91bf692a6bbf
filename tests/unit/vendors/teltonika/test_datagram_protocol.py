"""Teltonika's datagrams at a UDP port, and their ACKs."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors import posts
from tests.unit.vendors.posts import ADDRESS
from tests.unit.vendors.teltonika.golden import IMEI, SMALLEST, TWO_RECORDS
from tests.unit.vendors.teltonika.golden_datagrams import (
    GOLDEN_DATAGRAMS,
    MESSAGE_12,
    MESSAGE_15,
    GoldenDatagram,
)
from tests.unit.vendors.teltonika.golden_messages import TWO_PARTS_12
from tracker.limits import Limits
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.datagram import Datagram, encode_datagram
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, encode_message
from tracker.vendors.teltonika.positions import REPEATED_ID
from tracker.vendors.teltonika.vendor import Teltonika

MESSAGE = encode_message(Message(MESSAGE_CODECS[0x0C], 0x06, b"DI1:1"))


def datagram(
    data: bytes = TWO_RECORDS.data, packet_id: int = 0xCAFE, avl_id: int = 5, imei: str = IMEI
) -> bytes:
    """Return a datagram of a device."""
    return encode_datagram(Datagram(packet_id, avl_id, imei, data))


class Port(posts.Port):
    """A UDP port for Teltonika devices, with its transport and gateway."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits, Teltonika().buildDatagramProtocol)


@pytest.fixture
def port() -> Port:
    return Port()


# ACKs.


@pytest.mark.parametrize("golden", GOLDEN_DATAGRAMS, ids=lambda golden: golden.name)
def test_golden_datagram_gets_the_documented_ack(port: Port, golden: GoldenDatagram) -> None:
    port.receive(golden.datagram)
    assert [len(entries) for entries, _ in port.gateway.published] == [1]
    port.confirm()
    assert port.acks() == [(golden.ack, ADDRESS)]
    assert port.reasons == []


def test_ack_of_a_datagram_without_records_has_the_count_0(port: Port) -> None:
    port.gateway.confirms_immediately = True
    port.receive(datagram(b"\x08\x00\x00"))
    assert port.acks() == [(bytes.fromhex("0005cafe010500"), ADDRESS)]


def test_ack_of_255_records_has_one_byte_for_the_count(port: Port) -> None:
    port.gateway.confirms_immediately = True
    record = Record(0, 0, 0, 0, 0, 0, 0, 0, 0)
    port.receive(datagram(encode_packet(CODEC_8, [record] * 255)))
    assert port.acks() == [(bytes.fromhex("0005cafe0105ff"), ADDRESS)]


@pytest.mark.parametrize(
    ("sent", "codec", "texts"),
    [
        (MESSAGE_12, "12", ["hi"]),
        (MESSAGE_15, "15", ["Hello!\n"]),
        (datagram(TWO_PARTS_12.data, imei="350000000000007"), "12", ["part1", "part2"]),
    ],
)
def test_message_in_a_datagram_is_published_and_acknowledged(
    port: Port, sent: bytes, codec: str, texts: list[str]
) -> None:
    port.receive(sent)
    ((entries, _),) = port.gateway.published
    assert [(entry.device_id, entry.codec) for entry in entries] == [
        ("350000000000007", codec)
    ] * len(texts)
    assert [json.loads(entry.payload)["attributes"]["message"] for entry in entries] == texts
    assert port.acks() == []
    port.confirm()
    assert port.acks() == [(bytes.fromhex(f"0005 CAFE 01 05 {len(texts):02x}"), ADDRESS)]
    assert [event[0] for event in port.gateway.events] == []  # it is not the answer to a command


def test_truncated_message_in_a_datagram_is_counted() -> None:
    port = Port(Limits(message_bytes=64))
    port.receive(datagram(encode_message(Message(MESSAGE_CODECS[0x0C], 0x06, b"x" * 65))))
    assert port.gateway.tally.truncated == 1


# Repetitions.


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(datagram(SMALLEST.data), id="content"),
        pytest.param(datagram(packet_id=0xCAFF), id="packet id"),
        pytest.param(datagram(avl_id=6), id="AVL packet id"),
        pytest.param(datagram(imei="352093081452251"), id="device"),
    ],
)
def test_datagram_that_differs_in_any_field_is_not_a_repetition(port: Port, other: bytes) -> None:
    port.receive(datagram())
    port.receive(other)
    assert port.published == 2


def test_datagram_that_differs_in_the_unused_byte_is_a_repetition(port: Port) -> None:
    port.gateway.confirms_immediately = True
    port.receive(datagram())
    changed = bytearray(datagram())
    assert changed[4] == 0x01
    changed[4] = 0x00
    port.receive(bytes(changed))
    assert port.published == 1
    assert port.acks() == [(bytes.fromhex("0005cafe010502"), ADDRESS)] * 2


# Limits and rejections.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short"),
        (b"\xff", "too short"),
        (datagram()[:25], "too short"),
        (b"\x01" + datagram()[1:], "does not match"),
        (datagram() + b"\x00", "does not match"),
        (datagram()[:6] + b"\x00\x04" + datagram()[8:], "IMEI length 4 is wrong"),
        (datagram()[:8] + b"X" + datagram()[9:], "IMEI has invalid characters"),
        (datagram(b"\x55\x01\x01"), "unsupported codec 0x55"),
        (datagram(b"\x08\x01\x02"), "record counts differ"),
        (datagram(b"\x08\x01\x01"), "past the end of the packet"),
        (datagram(MESSAGE[:-1]), "does not match"),
    ],
)
def test_invalid_datagram_is_dropped_and_reported(port: Port, data: bytes, reason: str) -> None:
    port.receive(data)
    assert port.published == 0
    assert port.acks() == []
    assert reason in port.reasons[0]
    assert port.remembered == 0


def test_datagram_with_more_records_than_the_limit_gets_no_ack() -> None:
    port = Port(Limits(records=1))
    port.receive(datagram(TWO_RECORDS.data))
    assert port.reasons == ["2 records exceed the limit of 1"]
    port.receive(datagram(SMALLEST.data))
    assert port.published == 1


def test_repeated_id_is_reported_as_a_notice(port: Port) -> None:
    record = Record(0, 0, 0, 0, 0, 0, 0, 0, 0, ((66, 2, 1), (66, 2, 2)))
    port.receive(datagram(encode_packet(CODEC_8, [record, attrs.evolve(record, timestamp=1)])))
    assert ("noticed", REPEATED_ID) in port.gateway.events
    assert port.published == 1


# Arbitrary bytes.


def fuzzed(change: Callable[[bytearray], None]) -> bytes:
    data = bytearray(datagram())
    change(data)
    return bytes(data)


@given(st.lists(st.binary(max_size=80), max_size=10))
def test_random_datagrams_do_not_raise_and_get_no_ack(datagrams: list[bytes]) -> None:
    port = Port()
    for data in datagrams:
        port.receive(data)
    assert port.acks() == []


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
def test_only_confirmed_datagrams_get_an_ack_for_any_content(
    datagrams: list[bytes],
) -> None:
    port = Port()
    for data in datagrams:
        port.receive(data)
    assert port.acks() == []
    for number in range(port.published):
        port.confirm(number)
    assert len(port.acks()) == port.published
