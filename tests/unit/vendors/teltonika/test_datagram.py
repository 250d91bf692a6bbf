"""The envelope of a datagram, and its ACK."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.golden import GOLDEN, LOGIN, STREAM
from tests.unit.vendors.teltonika.golden_datagrams import (
    GOLDEN_DATAGRAMS,
    OVER_8,
    OVER_8E,
    GoldenDatagram,
)
from tests.unit.vendors.teltonika.strategies import unsigned
from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.avl import Packet, decode_packet, encode_packet
from tracker.vendors.teltonika.datagram import (
    Datagram,
    decode_datagram,
    encode_ack,
    encode_datagram,
    resembles_datagram,
)
from tracker.wording import counted

each_golden = pytest.mark.parametrize("golden", GOLDEN_DATAGRAMS, ids=lambda golden: golden.name)
#: Offset, name and size of each field; the data has the rest.
FIELDS = (
    (0, "length", 2),
    (2, "packet id", 2),
    (4, "unused", 1),
    (5, "avl packet id", 1),
    (6, "length of the imei", 2),
    (8, "imei", 15),
    (23, "data", 0),
)
imeis = st.text("0123456789", min_size=15, max_size=15)


def rejection(data: bytes) -> Rejected:
    """Return the rejection of ``data``, which covers all of it."""
    outcome = decode_datagram(data)
    assert isinstance(outcome, Rejected)
    assert outcome.used == len(data)
    assert 0 <= outcome.offset <= len(data)
    assert outcome.reason
    return outcome


def resized(data: bytes) -> bytes:
    """Return ``data`` with a correct length field."""
    return (len(data) - 2).to_bytes(2, "big") + data[2:]


# Golden datagrams.


@each_golden
def test_golden_datagram_is_decoded(golden: GoldenDatagram) -> None:
    expected = Datagram(golden.packet_id, golden.avl_packet_id, golden.imei, golden.data)
    assert decode_datagram(golden.datagram) == Decoded(expected, len(golden.datagram))


@each_golden
def test_data_of_a_golden_datagram_is_decoded(golden: GoldenDatagram) -> None:
    expected = Decoded(Packet(golden.codec, (golden.record,)), len(golden.data))
    assert decode_packet(golden.data) == expected
    assert encode_packet(golden.codec, [golden.record]) == golden.data


@each_golden
def test_golden_datagram_is_encoded_byte_for_byte(golden: GoldenDatagram) -> None:
    datagram = Datagram(golden.packet_id, golden.avl_packet_id, golden.imei, golden.data)
    assert encode_datagram(datagram) == golden.datagram
    assert encode_ack(golden.packet_id, golden.avl_packet_id, 1) == golden.ack


@each_golden
def test_truncated_datagram_is_rejected_at_the_incomplete_field(golden: GoldenDatagram) -> None:
    whole = len(golden.datagram)
    for size in range(whole):
        outcome = rejection(golden.datagram[:size])
        offset, field, field_size = next(item for item in reversed(FIELDS) if item[0] <= size)
        assert (outcome.offset, outcome.field) == (offset, field)
        data_size = f"{whole - offset} bytes, according to the length"
        expected = counted(field_size, "byte") if field_size else data_size
        assert outcome.expected == expected
        assert outcome.found == f"{counted(size - offset, 'byte')} up to the end"


@each_golden
def test_bytes_after_a_datagram_are_rejected(golden: GoldenDatagram) -> None:
    size = len(golden.datagram)
    outcome = rejection(golden.datagram + b"\x00\x01")
    assert (outcome.offset, outcome.field) == (size, "datagram")
    assert (outcome.expected, outcome.found) == (
        "its end, according to the length",
        "2 bytes after the end",
    )


# Invalid datagrams.


@pytest.mark.parametrize("size", range(26))
def test_datagram_without_data_is_rejected(size: int) -> None:
    shortened = OVER_8.datagram[:size]
    outcome = rejection(resized(shortened) if size >= 2 else shortened)
    assert "is too short" in outcome.reason
    if size >= 2:
        assert (outcome.offset, outcome.field) == (0, "length")
        assert (outcome.expected, outcome.found) == ("24 or more", f"{size - 2}")


def test_shortest_datagram_is_decoded() -> None:
    outcome = decode_datagram(resized(OVER_8.datagram[:23] + b"\x08\x00\x00"))
    assert isinstance(outcome, Decoded)
    assert outcome.value.data == b"\x08\x00\x00"


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, (0, "length", "24 or more", "0")),
        (23, (0, "length", "24 or more", "23")),
        (24, (26, "datagram", "its end, according to the length", "37 bytes after the end")),
        (60, (62, "datagram", "its end, according to the length", "1 byte after the end")),
        (62, (23, "data", "41 bytes, according to the length", "40 bytes up to the end")),
        (0xFFFF, (23, "data", "65,514 bytes, according to the length", "40 bytes up to the end")),
    ],
)
def test_datagram_with_a_wrong_length_is_rejected(
    length: int, expected: tuple[int, str, str, str]
) -> None:
    outcome = rejection(length.to_bytes(2, "big") + OVER_8.datagram[2:])
    assert (outcome.offset, outcome.field, outcome.expected, outcome.found) == expected
    assert outcome.reason.startswith(f"length {length:,} ")


def test_first_of_two_errors_is_reported() -> None:
    changed = OVER_8.datagram[:7] + b"\x0eX" + OVER_8.datagram[9:30]
    assert rejection(changed).field == "length of the imei"
    assert rejection(OVER_8.datagram[:8] + b"X" + OVER_8.datagram[9:30]).field == "imei"


@pytest.mark.parametrize("length", [0, 4, 14, 16, 0x0F00, 0xFFFF])
def test_imei_of_wrong_length_is_rejected(length: int) -> None:
    changed = OVER_8E.datagram[:6] + length.to_bytes(2, "big") + OVER_8E.datagram[8:]
    outcome = rejection(changed)
    assert outcome.offset == 6
    assert outcome.reason == f"IMEI length {length} is wrong: an IMEI has 15 digits"


@pytest.mark.parametrize("offset", range(8, 23))
@pytest.mark.parametrize("character", [b"X", b" ", b"/", b":", b"\x00", b"\xb2", b"\xff", b"-"])
def test_imei_with_characters_other_than_digits_is_rejected(offset: int, character: bytes) -> None:
    outcome = rejection(OVER_8.datagram[:offset] + character + OVER_8.datagram[offset + 1 :])
    assert outcome.offset == 8
    assert outcome.field == "imei"


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x05, 0xFF])
def test_unused_byte_of_a_datagram_is_ignored(byte: int) -> None:
    changed = OVER_8.datagram[:4] + bytes((byte,)) + OVER_8.datagram[5:]
    expected = decode_datagram(OVER_8.datagram)
    assert decode_datagram(changed) == expected


# Recognition of datagrams.


@each_golden
def test_three_bytes_or_more_of_a_datagram_resemble_a_datagram(golden: GoldenDatagram) -> None:
    # The length alone may be that of a login as well.
    assert resembles_datagram(golden.datagram[:1]) is False
    assert resembles_datagram(golden.datagram[:2]) is None
    for size in range(3, len(golden.datagram) + 1):
        assert resembles_datagram(golden.datagram[:size]) is True


@each_golden
def test_datagram_with_one_wrong_byte_resembles_a_datagram(golden: GoldenDatagram) -> None:
    whole = golden.datagram
    for offset in range(2, 23):
        assert resembles_datagram(whole[:offset] + b"\xfe" + whole[offset + 1 :]) is True
    for length in (b"\x00\x00", b"\x00\x0f", b"\xff\xff"):
        assert resembles_datagram(length + whole[2:]) is False
    for length in (b"\x00\x01", b"\x00\x3c", b"\x01\x3d", b"\xfe\xff"):
        assert resembles_datagram(length + whole[2:]) is True


@pytest.mark.parametrize(
    "data",
    [
        STREAM,
        LOGIN,
        *(golden.frame for golden in GOLDEN),
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02",
    ],
)
def test_beginning_of_other_traffic_does_not_resemble_a_datagram(data: bytes) -> None:
    for size in range(len(data) + 1):
        assert resembles_datagram(data[:size]) is False


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        # A login with a wrong length: a datagram is never as short as these.
        ("000E 3131", False),
        ("0017 3131", False),
        # Only the length, and bytes that may be digits.
        ("0018", None),
        ("003D", None),
        ("003D 31", None),
        ("003D 31323334", None),
        ("003D 3132333435", False),
        ("001A" + "31" * 26, False),
        # The packet id has a byte that is not a digit.
        ("003D CA", True),
        ("003D 31CA", True),
        ("003D CAFE 0105 00", True),
        ("003D CAFE 0105 0F", None),
        ("003D CAFE 0105 0010 3131", None),
        # The first byte is not that of a login.
        ("0500", True),
        ("07FF 31", True),
        ("0800 31", False),
    ],
)
def test_few_bytes_resemble_a_datagram_or_are_undecided(
    written: str, expected: bool | None
) -> None:
    assert resembles_datagram(bytes.fromhex(written)) is expected


@given(unsigned(2), unsigned(1), imeis, st.binary(min_size=3, max_size=200), st.integers(8, 300))
def test_datagram_truncated_after_the_imei_length_resembles_a_datagram(
    packet_id: int, avl_packet_id: int, imei: str, data: bytes, size: int
) -> None:
    whole = encode_datagram(Datagram(packet_id, avl_packet_id, imei, data))
    assert resembles_datagram(whole[:size]) is True


# Encoding errors.


@pytest.mark.parametrize("imei", ["", "1" * 14, "1" * 16, "35630704244101X", "٣" * 15, "²" * 15])
def test_datagram_with_an_invalid_imei_is_not_encoded(imei: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any text
        encode_datagram(Datagram(1, 1, imei, b"\x08\x00\x00"))


@pytest.mark.parametrize(
    "change",
    [{"packet_id": -1}, {"packet_id": 65_536}, {"avl_packet_id": -1}, {"avl_packet_id": 256}],
)
def test_datagram_with_an_id_out_of_range_is_not_encoded(change: dict[str, int]) -> None:
    datagram = Datagram(1, 1, OVER_8.imei, b"\x08\x00\x00")
    with pytest.raises(ValueError, match="out of range"):
        encode_datagram(attrs.evolve(datagram, **change))  # type: ignore[arg-type]


def test_size_of_a_datagram_is_limited_by_its_length_field() -> None:
    max_data_bytes = 65_535 - 21
    whole = encode_datagram(Datagram(1, 1, OVER_8.imei, bytes(max_data_bytes)))
    assert whole[:2] == b"\xff\xff"
    assert isinstance(decode_datagram(whole), Decoded)
    with pytest.raises(ValueError, match="out of range"):
        encode_datagram(Datagram(1, 1, OVER_8.imei, bytes(max_data_bytes + 1)))


# ACKs.


@pytest.mark.parametrize(
    ("packet_id", "avl_packet_id", "accepted", "ack"),
    [
        (0xCAFE, 0x05, 1, "0005CAFE010501"),
        (0x0000, 0x00, 0, "00050000010000"),
        (0xFFFF, 0xFF, 255, "0005FFFF01FFFF"),
        (0x0102, 0x03, 4, "00050102010304"),
    ],
)
def test_ack_has_the_ids_and_the_count(
    packet_id: int, avl_packet_id: int, accepted: int, ack: str
) -> None:
    assert encode_ack(packet_id, avl_packet_id, accepted) == bytes.fromhex(ack)


# Properties.


@given(unsigned(2), unsigned(1), imeis, st.binary(min_size=3, max_size=200))
def test_encoded_datagram_decodes_to_itself(
    packet_id: int, avl_packet_id: int, imei: str, data: bytes
) -> None:
    datagram = Datagram(packet_id, avl_packet_id, imei, data)
    whole = encode_datagram(datagram)
    assert decode_datagram(whole) == Decoded(datagram, len(whole))


def check(data: bytes) -> None:
    """Assert that decoding has an outcome; a decoded datagram encodes to the same bytes."""
    outcome = decode_datagram(data)
    if isinstance(outcome, Decoded):
        assert encode_datagram(outcome.value)[5:] == data[5:]
    else:
        rejection(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_decoded_as_a_datagram_or_rejected(data: bytes) -> None:
    check(data)
    check(resized(data) if len(data) >= 2 else data)


@given(
    st.sampled_from(GOLDEN_DATAGRAMS),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated_datagram_is_decoded_or_rejected(
    golden: GoldenDatagram, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(golden.datagram)
    for offset, byte in changes:
        data[offset % len(data)] = byte
    check(bytes(data))
