"""AVL packets of Codec 8 and Codec 8 Extended: decoded, encoded and rejected."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.golden import (
    BEACON_DATA,
    EXTENDED,
    FIVE_ELEMENTS,
    GOLDEN,
    NEWEST_FIRST,
    PANIC,
    SMALLEST,
    TWO_RECORDS,
    Golden,
)
from tests.unit.vendors.teltonika.strategies import codecs, packets, records
from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.avl import (
    CODEC_8,
    CODEC_8E,
    CODECS,
    Codec,
    Packet,
    Record,
    decode_packet,
    encode_packet,
)
from tracker.vendors.teltonika.envelope import decode_frame
from tracker.wording import counted

each_golden = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
each_codec = pytest.mark.parametrize("codec", [CODEC_8, CODEC_8E], ids=lambda codec: codec.name)

RECORD = Record(1_710_504_600_000, 0, -583_816_000, -346_037_000, 25, 270, 11, 64, 0)


def rejection(data: bytes) -> Rejected:
    """Return the rejection of ``data``, which covers all of it."""
    outcome = decode_packet(data)
    assert isinstance(outcome, Rejected)
    assert outcome.used == len(data)
    assert 0 <= outcome.offset <= len(data)
    assert outcome.reason
    return outcome


def data_of(frame: bytes) -> bytes:
    """Return the data of a frame with a correct envelope."""
    outcome = decode_frame(frame, 8192)
    assert isinstance(outcome, Decoded)
    return outcome.value


# Golden packets.


@each_golden
def test_golden_packet_is_decoded(golden: Golden) -> None:
    expected = Decoded(Packet(golden.codec, golden.records), len(golden.data))
    assert decode_packet(golden.data) == expected


@each_golden
def test_golden_records_are_encoded_byte_for_byte(golden: Golden) -> None:
    assert encode_packet(golden.codec, golden.records) == golden.data


@each_golden
def test_packet_truncated_anywhere_is_rejected(golden: Golden) -> None:
    for size in range(3, len(golden.data)):
        # With the second count, as in a frame with a consistent length …
        rejection(golden.data[: size - 1] + golden.data[-1:])
        # … and without it: another byte is taken for the count.
        rejection(golden.data[:size])


@each_golden
@pytest.mark.parametrize("stray", [b"\x00" * 2, b"\xff", b"\x00" * 30])
def test_stray_bytes_before_the_second_count_are_rejected(golden: Golden, stray: bytes) -> None:
    outcome = rejection(golden.data[:-1] + stray + golden.data[-1:])
    assert outcome.offset == len(golden.data) - 1
    assert outcome.reason.startswith("unexpected data after the last record")
    assert outcome.found == f"{counted(len(stray), 'byte')} before it"


@each_golden
def test_packet_with_fewer_records_than_its_count_is_rejected(golden: Golden) -> None:
    count = bytes((len(golden.records) + 1,))
    outcome = rejection(golden.data[:1] + count + golden.data[2:-1] + count)
    assert outcome.offset == len(golden.data) - 1
    assert f"record {count[0]} of {count[0]}" in outcome.reason


@pytest.mark.parametrize("golden", [TWO_RECORDS, NEWEST_FIRST, BEACON_DATA], ids=lambda g: g.name)
def test_packet_with_more_records_than_its_count_is_rejected(golden: Golden) -> None:
    count = bytes((len(golden.records) - 1,))
    outcome = rejection(golden.data[:1] + count + golden.data[2:-1] + count)
    assert "after the last record" in outcome.reason


@each_golden
def test_packet_with_the_id_of_the_other_codec_is_rejected(golden: Golden) -> None:
    other = CODEC_8E if golden.codec is CODEC_8 else CODEC_8
    rejection(bytes((other.codec_id,)) + golden.data[1:])


# Malformed packets in frames with a correct checksum.


@pytest.mark.parametrize(
    ("frame", "offset", "reason"),
    [
        (
            malformed.COUNTS_DIFFER,
            39,
            "record counts differ: 1 before the records, 2 after them",
        ),
        (malformed.UNKNOWN_CODEC, 0, "unsupported codec 0x55"),
        (malformed.RECORD_MISSING, 39, "record 2 of 2: extends past the end of the packet"),
        (
            malformed.TOTAL_DIFFERS,
            27,
            "record 1 of 1: element counts differ: 4 in total, 3 in groups",
        ),
        (malformed.STRAY_BYTE, 39, "unexpected data after the last record: 1 byte"),
    ],
    ids=["counts differ", "unknown codec", "record missing", "total differs", "stray byte"],
)
def test_malformed_packet_is_rejected_with_its_reason(
    frame: bytes, offset: int, reason: str
) -> None:
    outcome = rejection(data_of(frame))
    assert outcome.offset == offset
    assert outcome.reason == reason


def test_packet_without_records_is_decoded() -> None:
    assert decode_packet(data_of(malformed.NO_RECORDS)) == Decoded(Packet(CODEC_8, ()), 3)
    assert encode_packet(CODEC_8, ()) == data_of(malformed.NO_RECORDS)


def test_unknown_codec_id_is_rejected() -> None:
    for codec_id in set(range(256)) - {0x08, 0x8E, 0x10}:
        outcome = rejection(bytes((codec_id,)) + SMALLEST.data[1:])
        assert outcome.offset == 0
        assert f"{codec_id:#04x}" in outcome.reason


def test_record_codecs_have_their_ids_and_names() -> None:
    names = {codec_id: codec.name for codec_id, codec in CODECS.items()}
    assert names == {0x08: "8", 0x8E: "8E", 0x10: "16"}


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x8e", b"\x55", b"\x08\x00", b"\x8e\x01"])
def test_data_shorter_than_three_bytes_is_rejected(data: bytes) -> None:
    rejection(data)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@each_codec
def test_group_of_elements_that_extends_past_the_end_is_rejected(codec: Codec, width: int) -> None:
    whole = encode_packet(codec, [attrs.evolve(RECORD, elements=((5, width, 1),) * 2)])
    outcome = rejection(whole[: -1 - width] + whole[-1:])
    assert outcome.offset >= 2 + 24
    assert outcome.field.startswith("records[0] ")
    assert "record 1 of 1" in outcome.reason


@pytest.mark.parametrize("claimed", [7, 8, 0x7FFF, 0xFFFF])
def test_variable_element_that_extends_past_the_end_is_rejected(claimed: int) -> None:
    whole = encode_packet(CODEC_8E, [attrs.evolve(RECORD, variable=((264, b"ABC123"),))])
    assert whole.endswith(b"\x00\x06ABC123\x01")
    outcome = rejection(whole[:-9] + claimed.to_bytes(2, "big") + whole[-7:])
    assert "element 264" in outcome.reason
    assert outcome.expected == f"{claimed:,} bytes"
    assert "past the end of the packet" in outcome.reason


def test_value_that_extends_into_the_second_count_is_rejected() -> None:
    # The length is one byte too long: the second count would be part of the value.
    whole = encode_packet(CODEC_8E, [attrs.evolve(RECORD, variable=((264, b"ABC"),))])
    rejection(whole[:-5] + b"\x04ABC\x01")


@pytest.mark.parametrize("total", [0, 1, 13, 15, 255, 0xFFFF])
def test_total_of_elements_that_differs_from_their_groups_is_rejected(total: int) -> None:
    assert PANIC.data[28:30] == b"\x00\x0e"
    outcome = rejection(PANIC.data[:28] + total.to_bytes(2, "big") + PANIC.data[30:])
    assert f"{total} in total, 14 in groups" in outcome.reason


def test_rejection_has_the_offset_of_the_wrong_field() -> None:
    first_record = 30 + 2  # 30 bytes without elements, 2 for the only element
    total_of_second = 2 + first_record + 25
    data = bytearray(TWO_RECORDS.data)
    assert data[total_of_second] == 1
    data[total_of_second] = 2
    outcome = rejection(bytes(data))
    assert outcome.offset == total_of_second
    assert "record 2 of 2" in outcome.reason
    assert (outcome.expected, outcome.found) == ("1", "2")


# Limits of the fields.


def record_with(name: str, value: int) -> Record:
    """Return ``RECORD`` with one value changed."""
    changes: dict[str, Any] = {name: value}
    return attrs.evolve(RECORD, **changes)


EXTREMES = {
    "timestamp": (0, 2**64 - 1),
    "priority": (0, 255),
    "longitude": (-(2**31), 2**31 - 1),
    "latitude": (-(2**31), 2**31 - 1),
    "altitude": (-(2**15), 2**15 - 1),
    "angle": (0, 2**16 - 1),
    "satellites": (0, 255),
    "speed": (0, 2**16 - 1),
}


@each_codec
@pytest.mark.parametrize(("name", "value"), [(n, v) for n, both in EXTREMES.items() for v in both])
def test_field_at_its_limit_is_encoded_and_decoded(codec: Codec, name: str, value: int) -> None:
    record = record_with(name, value)
    data = encode_packet(codec, [record])
    assert decode_packet(data) == Decoded(Packet(codec, (record,)), len(data))


@each_codec
@pytest.mark.parametrize(
    ("name", "value"),
    [(name, low - 1) for name, (low, _) in EXTREMES.items()]
    + [(name, high + 1) for name, (_, high) in EXTREMES.items()],
)
def test_field_past_its_limit_is_not_encoded(codec: Codec, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"codec {codec.name} cannot encode"):
        encode_packet(codec, [record_with(name, value)])


@pytest.mark.parametrize(("codec", "highest"), [(CODEC_8, 255), (CODEC_8E, 65_535)])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_element_ids_and_values_are_encoded_up_to_their_limits(
    codec: Codec, highest: int, width: int
) -> None:
    highest_value = 256**width - 1
    elements = (
        (0, width, 0),
        (0, width, highest_value),
        (highest, width, 0),
        (highest, width, highest_value),
    )
    record = attrs.evolve(RECORD, event=highest, elements=elements)
    data = encode_packet(codec, [record])
    assert decode_packet(data) == Decoded(Packet(codec, (record,)), len(data))
    for wrong in (
        (highest + 1, width, 0),
        (0, width, highest_value + 1),
        (-1, width, 0),
        (0, width, -1),
    ):
        with pytest.raises(ValueError, match="cannot encode"):
            encode_packet(codec, [attrs.evolve(RECORD, elements=(wrong,))])
    for event in (-1, highest + 1):
        with pytest.raises(ValueError, match="cannot encode"):
            encode_packet(codec, [attrs.evolve(RECORD, event=event)])


@pytest.mark.parametrize("width", [0, 3, 5, 16])
@each_codec
def test_element_of_an_invalid_width_is_not_encoded(codec: Codec, width: int) -> None:
    with pytest.raises(ValueError, match=r"width|bytes"):
        encode_packet(codec, [attrs.evolve(RECORD, elements=((5, width, 0),))])


def test_record_of_codec_8_has_at_most_255_elements() -> None:
    record = attrs.evolve(RECORD, elements=tuple((number, 8, number) for number in range(255)))
    data = encode_packet(CODEC_8, [record])
    assert decode_packet(data) == Decoded(Packet(CODEC_8, (record,)), len(data))
    spread = ((1, 1, 1),) * 128 + ((1, 2, 1),) * 128  # each group is short enough, the total is not
    with pytest.raises(ValueError, match="cannot encode"):
        encode_packet(CODEC_8, [attrs.evolve(RECORD, elements=spread)])


def test_record_of_codec_8e_may_have_more_than_255_elements() -> None:
    record = attrs.evolve(RECORD, elements=tuple((number, 1, 1) for number in range(300)))
    data = encode_packet(CODEC_8E, [record])
    assert decode_packet(data) == Decoded(Packet(CODEC_8E, (record,)), len(data))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_535])
def test_variable_element_of_codec_8e_has_up_to_65535_bytes(size: int) -> None:
    record = attrs.evolve(RECORD, variable=((65_535, b"\xa5" * size), (0, b"")))
    data = encode_packet(CODEC_8E, [record])
    assert decode_packet(data) == Decoded(Packet(CODEC_8E, (record,)), len(data))


def test_variable_element_of_more_than_65535_bytes_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="cannot encode"):
        encode_packet(CODEC_8E, [attrs.evolve(RECORD, variable=((1, bytes(65_536)),))])


def test_variable_elements_are_not_encoded_in_codec_8() -> None:
    with pytest.raises(ValueError, match="codec 8 has no variable-length elements"):
        encode_packet(CODEC_8, [attrs.evolve(RECORD, variable=((1, b""),))])


@each_codec
def test_packet_has_at_most_255_records(codec: Codec) -> None:
    most_records = tuple(attrs.evolve(RECORD, timestamp=number) for number in range(255))
    data = encode_packet(codec, most_records)
    assert (data[1], data[-1]) == (255, 255)
    assert decode_packet(data) == Decoded(Packet(codec, most_records), len(data))
    with pytest.raises(ValueError, match="256 records"):
        encode_packet(codec, (*most_records, RECORD))


def test_elements_are_encoded_in_the_order_of_their_width() -> None:
    wide_first = ((78, 8, 0), (241, 4, 24_602), (66, 2, 24_079), (21, 1, 3), (1, 1, 1))
    (record,) = FIVE_ELEMENTS.records
    data = encode_packet(CODEC_8, [attrs.evolve(record, elements=wide_first)])
    assert data == FIVE_ELEMENTS.data


def test_undocumented_priority_is_decoded() -> None:
    data = bytearray(EXTENDED.data)
    data[10] = 7
    outcome = decode_packet(bytes(data))
    assert isinstance(outcome, Decoded)
    assert outcome.value.records[0].priority == 7


# Properties.


@given(packets())
def test_encoded_packet_decodes_to_the_same_records(packet: Packet) -> None:
    data = encode_packet(packet.codec, packet.records)
    assert decode_packet(data) == Decoded(packet, len(data))


@given(codecs.flatmap(lambda codec: st.tuples(st.just(codec), records(codec))))
def test_record_truncated_anywhere_is_rejected(drawn: tuple[Codec, Record]) -> None:
    codec, record = drawn
    data = encode_packet(codec, [record])
    for size in range(2, len(data) - 1):
        rejection(data[:size] + data[-1:])


def check(data: bytes) -> None:
    """Assert that decoding has an outcome; a decoded packet encodes to the same bytes."""
    outcome = decode_packet(data)
    if isinstance(outcome, Decoded):
        assert outcome.used == len(data)
        assert encode_packet(outcome.value.codec, outcome.value.records) == data
    else:
        assert isinstance(outcome, Rejected)
        assert outcome.used == len(data)
        assert 0 <= outcome.offset < len(data)
        assert outcome.reason


@given(st.binary(min_size=3, max_size=200))
def test_any_bytes_are_decoded_as_a_packet_or_rejected(data: bytes) -> None:
    check(data)


@given(codecs, st.integers(0, 3), st.binary(max_size=150))
def test_any_bytes_between_equal_counts_are_decoded_or_rejected(
    codec: Codec, count: int, body: bytes
) -> None:
    check(bytes((codec.codec_id, count)) + body + bytes((count,)))


@given(
    st.sampled_from(GOLDEN),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated_packet_is_decoded_or_rejected(
    golden: Golden, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(golden.data)
    for offset, byte in changes:
        data[offset % len(data)] = byte
    check(bytes(data))
