"""The envelope of a datagram, and the answer to it."""

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
    encode_answer,
    encode_datagram,
    resembles_datagram,
)

each_golden = pytest.mark.parametrize("golden", GOLDEN_DATAGRAMS, ids=lambda golden: golden.name)
#: Offset, name and size of each field; the data is what is left.
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
    """How ``data`` is rejected; whole, as always."""
    outcome = decode_datagram(data)
    assert isinstance(outcome, Rejected)
    assert outcome.used == len(data)
    assert 0 <= outcome.offset <= len(data)
    assert outcome.reason
    return outcome


def resized(data: bytes) -> bytes:
    """The same with a right length."""
    return (len(data) - 2).to_bytes(2, "big") + data[2:]


# Golden datagrams.


@each_golden
def test_a_golden_datagram_gives_its_parts(golden: GoldenDatagram) -> None:
    expected = Datagram(golden.packet_id, golden.avl_packet_id, golden.imei, golden.data)
    assert decode_datagram(golden.datagram) == Decoded(expected, len(golden.datagram))


@each_golden
def test_the_data_of_a_golden_datagram_gives_its_record(golden: GoldenDatagram) -> None:
    expected = Decoded(Packet(golden.codec, (golden.record,)), len(golden.data))
    assert decode_packet(golden.data) == expected
    assert encode_packet(golden.codec, [golden.record]) == golden.data


@each_golden
def test_encoding_gives_the_golden_bytes(golden: GoldenDatagram) -> None:
    datagram = Datagram(golden.packet_id, golden.avl_packet_id, golden.imei, golden.data)
    assert encode_datagram(datagram) == golden.datagram
    assert encode_answer(golden.packet_id, golden.avl_packet_id, 1) == golden.answer


@each_golden
def test_every_truncated_datagram_is_rejected(golden: GoldenDatagram) -> None:
    whole = len(golden.datagram)
    for size in range(whole):
        outcome = rejection(golden.datagram[:size])
        offset, field, due = next(item for item in reversed(FIELDS) if item[0] <= size)
        assert (outcome.offset, outcome.field) == (offset, field)
        expected = f"{due} bytes" if due else f"{whole - offset} bytes, as the length says"
        assert outcome.expected == expected
        assert outcome.found == f"{size - offset} bytes up to the end"


@each_golden
def test_bytes_after_a_datagram_are_no_part_of_it(golden: GoldenDatagram) -> None:
    size = len(golden.datagram)
    outcome = rejection(golden.datagram + b"\x00\x01")
    assert (outcome.offset, outcome.field) == (size, "datagram")
    assert (outcome.expected, outcome.found) == ("its end, as the length says", "2 bytes more")


# What is no datagram.


@pytest.mark.parametrize("size", range(26))
def test_what_has_no_room_for_data_is_rejected(size: int) -> None:
    shortened = OVER_8.datagram[:size]
    outcome = rejection(resized(shortened) if size >= 2 else shortened)
    assert outcome.reason.endswith("too short for a datagram")
    if size >= 2:
        assert (outcome.offset, outcome.field) == (0, "length")
        assert (outcome.expected, outcome.found) == ("24 or more", f"{size - 2}")


def test_the_shortest_datagram_is_taken() -> None:
    outcome = decode_datagram(resized(OVER_8.datagram[:23] + b"\x08\x00\x00"))
    assert isinstance(outcome, Decoded)
    assert outcome.value.data == b"\x08\x00\x00"


@pytest.mark.parametrize(
    ("length", "told"),
    [
        (0, (0, "length", "24 or more", "0")),
        (23, (0, "length", "24 or more", "23")),
        (24, (26, "datagram", "its end, as the length says", "37 bytes more")),
        (60, (62, "datagram", "its end, as the length says", "1 bytes more")),
        (62, (23, "data", "41 bytes, as the length says", "40 bytes up to the end")),
        (0xFFFF, (23, "data", "65514 bytes, as the length says", "40 bytes up to the end")),
    ],
)
def test_a_wrong_length_is_rejected(length: int, told: tuple[int, str, str, str]) -> None:
    outcome = rejection(length.to_bytes(2, "big") + OVER_8.datagram[2:])
    assert (outcome.offset, outcome.field, outcome.expected, outcome.found) == told
    assert outcome.reason.startswith(f"a length of {length}")


def test_of_two_faults_the_first_is_told() -> None:
    changed = OVER_8.datagram[:7] + b"\x0eX" + OVER_8.datagram[9:30]
    assert rejection(changed).field == "length of the imei"
    assert rejection(OVER_8.datagram[:8] + b"X" + OVER_8.datagram[9:30]).field == "imei"


@pytest.mark.parametrize("length", [0, 4, 14, 16, 0x0F00, 0xFFFF])
def test_an_imei_of_another_length_is_rejected(length: int) -> None:
    changed = OVER_8E.datagram[:6] + length.to_bytes(2, "big") + OVER_8E.datagram[8:]
    outcome = rejection(changed)
    assert outcome.offset == 6
    assert outcome.reason == f"an IMEI of {length} instead of 15 digits"


@pytest.mark.parametrize("place", range(8, 23))
@pytest.mark.parametrize("character", [b"X", b" ", b"/", b":", b"\x00", b"\xb2", b"\xff", b"-"])
def test_an_imei_of_other_characters_is_rejected(place: int, character: bytes) -> None:
    outcome = rejection(OVER_8.datagram[:place] + character + OVER_8.datagram[place + 1 :])
    assert outcome.offset == 8
    assert "other characters than digits" in outcome.reason


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x05, 0xFF])
def test_the_byte_that_is_not_used_means_nothing(byte: int) -> None:
    changed = OVER_8.datagram[:4] + bytes((byte,)) + OVER_8.datagram[5:]
    expected = decode_datagram(OVER_8.datagram)
    assert decode_datagram(changed) == expected


# What may be one.


@each_golden
def test_the_beginning_of_a_datagram_resembles_one(golden: GoldenDatagram) -> None:
    # Two bytes are a length only, which may be a login's as well.
    assert resembles_datagram(golden.datagram[:1]) is False
    assert resembles_datagram(golden.datagram[:2]) is None
    for size in range(3, len(golden.datagram) + 1):
        assert resembles_datagram(golden.datagram[:size]) is True


@each_golden
def test_a_datagram_with_one_fault_resembles_one(golden: GoldenDatagram) -> None:
    whole = golden.datagram
    for place in range(2, 23):
        assert resembles_datagram(whole[:place] + b"\xfe" + whole[place + 1 :]) is True
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
def test_the_beginning_of_something_else_resembles_none(data: bytes) -> None:
    for size in range(len(data) + 1):
        assert resembles_datagram(data[:size]) is False


@pytest.mark.parametrize(
    ("written", "told"),
    [
        # A login of the wrong length: no datagram is as short as these.
        ("000E 3131", False),
        ("0017 3131", False),
        # Nothing but the length and what may be digits.
        ("0018", None),
        ("003D", None),
        ("003D 31", None),
        ("003D 31323334", None),
        ("003D 3132333435", False),
        ("001A" + "31" * 26, False),
        # The packet id is anything, a digit is not.
        ("003D CA", True),
        ("003D 31CA", True),
        ("003D CAFE 0105 00", True),
        ("003D CAFE 0105 0F", None),
        ("003D CAFE 0105 0010 3131", None),
        # The first byte is no login's.
        ("0500", True),
        ("07FF 31", True),
        ("0800 31", False),
    ],
)
def test_a_few_bytes_tell_as_much_as_they_can(written: str, told: bool | None) -> None:
    assert resembles_datagram(bytes.fromhex(written)) is told


@given(unsigned(2), unsigned(1), imeis, st.binary(min_size=3, max_size=200), st.integers(8, 300))
def test_any_datagram_cut_off_after_the_length_of_the_imei_resembles_one(
    packet_id: int, avl_packet_id: int, imei: str, data: bytes, size: int
) -> None:
    whole = encode_datagram(Datagram(packet_id, avl_packet_id, imei, data))
    assert resembles_datagram(whole[:size]) is True


# What cannot be written.


@pytest.mark.parametrize("imei", ["", "1" * 14, "1" * 16, "35630704244101X", "٣" * 15, "²" * 15])
def test_what_is_no_imei_is_not_encoded(imei: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any words will do
        encode_datagram(Datagram(1, 1, imei, b"\x08\x00\x00"))


@pytest.mark.parametrize(
    "change",
    [{"packet_id": -1}, {"packet_id": 65_536}, {"avl_packet_id": -1}, {"avl_packet_id": 256}],
)
def test_an_id_that_does_not_fit_is_not_encoded(change: dict[str, int]) -> None:
    datagram = Datagram(1, 1, OVER_8.imei, b"\x08\x00\x00")
    with pytest.raises(ValueError, match="cannot carry"):
        encode_datagram(attrs.evolve(datagram, **change))  # type: ignore[arg-type]


def test_a_datagram_is_as_long_as_its_length_can_say_and_no_longer() -> None:
    most = 65_535 - 21
    whole = encode_datagram(Datagram(1, 1, OVER_8.imei, bytes(most)))
    assert whole[:2] == b"\xff\xff"
    assert isinstance(decode_datagram(whole), Decoded)
    with pytest.raises(ValueError, match="cannot carry"):
        encode_datagram(Datagram(1, 1, OVER_8.imei, bytes(most + 1)))


# Replies.


@pytest.mark.parametrize(
    ("packet_id", "avl_packet_id", "accepted", "answer"),
    [
        (0xCAFE, 0x05, 1, "0005CAFE010501"),
        (0x0000, 0x00, 0, "00050000010000"),
        (0xFFFF, 0xFF, 255, "0005FFFF01FFFF"),
        (0x0102, 0x03, 4, "00050102010304"),
    ],
)
def test_an_answer_echoes_the_ids_and_counts(
    packet_id: int, avl_packet_id: int, accepted: int, answer: str
) -> None:
    assert encode_answer(packet_id, avl_packet_id, accepted) == bytes.fromhex(answer)


# Properties.


@given(unsigned(2), unsigned(1), imeis, st.binary(min_size=3, max_size=200))
def test_encoding_and_decoding_are_inverse(
    packet_id: int, avl_packet_id: int, imei: str, data: bytes
) -> None:
    datagram = Datagram(packet_id, avl_packet_id, imei, data)
    whole = encode_datagram(datagram)
    assert decode_datagram(whole) == Decoded(datagram, len(whole))


def check(data: bytes) -> None:
    """Whatever the bytes: an outcome, and what is taken is what was sent."""
    outcome = decode_datagram(data)
    if isinstance(outcome, Decoded):
        assert encode_datagram(outcome.value)[5:] == data[5:]
    else:
        rejection(data)


@given(st.binary(max_size=100))
def test_any_bytes_have_an_outcome(data: bytes) -> None:
    check(data)
    check(resized(data) if len(data) >= 2 else data)


@given(
    st.sampled_from(GOLDEN_DATAGRAMS),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_mutated_datagram_has_an_outcome(
    golden: GoldenDatagram, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(golden.datagram)
    for place, byte in changes:
        data[place % len(data)] = byte
    check(bytes(data))
