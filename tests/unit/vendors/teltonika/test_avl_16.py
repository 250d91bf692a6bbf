"""AVL packets of Codec 16: two-byte ids, one-byte counts, and generation types."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.golden import Golden
from tests.unit.vendors.teltonika.golden_16 import GOLDEN_16, ON_CHANGE, WIDE_IDS
from tests.unit.vendors.teltonika.golden_datagrams import OVER_16
from tests.unit.vendors.teltonika.strategies import records
from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.avl import (
    CODEC_8,
    CODEC_8E,
    CODEC_16,
    Codec,
    Packet,
    Record,
    decode_packet,
    encode_packet,
)
from tracker.vendors.teltonika.envelope import decode_frame, encode_frame
from tracker.wording import counted

each_golden = pytest.mark.parametrize("golden", GOLDEN_16, ids=lambda golden: golden.name)
#: Offset of the first generation type: after codec id, count, 24 bytes of head, and event.
GENERATION = 2 + 24 + 2

RECORD = Record(1_710_504_600_000, 0, -583_816_000, -346_037_000, 25, 270, 11, 64, 0, generation=0)


def rejection(data: bytes) -> Rejected:
    """Return the rejection of ``data``, which covers all of it."""
    outcome = decode_packet(data)
    assert isinstance(outcome, Rejected)
    assert outcome.used == len(data)
    assert 0 <= outcome.offset <= len(data)
    assert outcome.reason
    return outcome


@each_golden
def test_golden_frame_of_codec_16_is_decoded(golden: Golden) -> None:
    assert decode_frame(golden.frame, 8192) == Decoded(golden.data, len(golden.frame))
    expected = Decoded(Packet(CODEC_16, golden.records), len(golden.data))
    assert decode_packet(golden.data) == expected


@each_golden
def test_golden_records_of_codec_16_are_encoded_byte_for_byte(golden: Golden) -> None:
    assert encode_packet(CODEC_16, golden.records) == golden.data
    assert encode_frame(golden.data) == golden.frame


@each_golden
def test_packet_of_codec_16_truncated_anywhere_is_rejected(golden: Golden) -> None:
    for size in range(3, len(golden.data)):
        rejection(golden.data[: size - 1] + golden.data[-1:])
        rejection(golden.data[:size])


@each_golden
@pytest.mark.parametrize("stray", [b"\x00", b"\x00" * 32])
def test_stray_bytes_in_a_packet_of_codec_16_are_rejected(golden: Golden, stray: bytes) -> None:
    outcome = rejection(golden.data[:-1] + stray + golden.data[-1:])
    assert outcome.found == f"{counted(len(stray), 'byte')} before it"


@each_golden
@pytest.mark.parametrize("other", [CODEC_8, CODEC_8E], ids=lambda codec: codec.name)
def test_packet_with_the_id_of_another_codec_is_rejected(golden: Golden, other: Codec) -> None:
    rejection(bytes((other.codec_id,)) + golden.data[1:])


@pytest.mark.parametrize("total", [0, 3, 5, 255])
def test_wrong_total_of_elements_in_codec_16_is_rejected(total: int) -> None:
    data = bytearray(ON_CHANGE.data)
    assert data[GENERATION + 1] == 4
    data[GENERATION + 1] = total
    assert f"{total} in total, 4 in groups" in rejection(bytes(data)).reason


@pytest.mark.parametrize("generation", range(256))
def test_any_generation_type_is_decoded(generation: int) -> None:
    data = bytearray(WIDE_IDS.data)
    assert data[GENERATION] == 7
    data[GENERATION] = generation
    record = attrs.evolve(WIDE_IDS.records[0], generation=generation)
    assert decode_packet(bytes(data)) == Decoded(Packet(CODEC_16, (record,)), len(data))
    assert encode_packet(CODEC_16, [record]) == data


def test_record_of_codec_16_without_elements_has_32_bytes() -> None:
    data = encode_packet(CODEC_16, [RECORD])
    assert len(data) == 1 + 1 + 32 + 1
    assert decode_packet(data) == Decoded(Packet(CODEC_16, (RECORD,)), len(data))


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_element_ids_and_values_of_codec_16_are_encoded_up_to_their_limits(width: int) -> None:
    highest_value = 256**width - 1
    elements = ((0, width, highest_value), (65_535, width, 0))
    record = attrs.evolve(RECORD, event=65_535, elements=elements)
    data = encode_packet(CODEC_16, [record])
    assert decode_packet(data) == Decoded(Packet(CODEC_16, (record,)), len(data))
    for wrong in ((65_536, width, 0), (0, width, highest_value + 1), (-1, width, 0)):
        with pytest.raises(ValueError, match="codec 16 cannot encode"):
            encode_packet(CODEC_16, [attrs.evolve(RECORD, elements=(wrong,))])
    with pytest.raises(ValueError, match="codec 16 cannot encode"):
        encode_packet(CODEC_16, [attrs.evolve(RECORD, event=65_536)])


def test_record_of_codec_16_has_at_most_255_elements() -> None:
    record = attrs.evolve(RECORD, elements=tuple((number, 2, number) for number in range(255)))
    data = encode_packet(CODEC_16, [record])
    assert decode_packet(data) == Decoded(Packet(CODEC_16, (record,)), len(data))
    spread = ((300, 1, 1),) * 128 + ((300, 2, 1),) * 128
    with pytest.raises(ValueError, match="cannot encode"):
        encode_packet(CODEC_16, [attrs.evolve(RECORD, elements=spread)])


@pytest.mark.parametrize("codec", [CODEC_8, CODEC_8E], ids=lambda codec: codec.name)
def test_codecs_8_and_8e_have_no_generation_type(codec: Codec) -> None:
    with pytest.raises(ValueError, match=f"codec {codec.name}: a generation type"):
        encode_packet(codec, [RECORD])
    data = encode_packet(codec, [attrs.evolve(RECORD, generation=None)])
    outcome = decode_packet(data)
    assert isinstance(outcome, Decoded)
    assert outcome.value.records[0].generation is None


def test_codec_16_requires_a_generation_type() -> None:
    with pytest.raises(ValueError, match="codec 16: a generation type"):
        encode_packet(CODEC_16, [RECORD, attrs.evolve(RECORD, generation=None)])


@pytest.mark.parametrize("generation", [-1, 256])
def test_generation_type_out_of_range_is_not_encoded(generation: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any text
        encode_packet(CODEC_16, [attrs.evolve(RECORD, generation=generation)])


def test_variable_elements_are_not_encoded_in_codec_16() -> None:
    with pytest.raises(ValueError, match="codec 16 has no variable-length elements"):
        encode_packet(CODEC_16, [attrs.evolve(RECORD, variable=((1, b""),))])


def test_record_of_a_golden_datagram_is_decoded() -> None:
    expected = Decoded(Packet(CODEC_16, (OVER_16.record,)), len(OVER_16.data))
    assert decode_packet(OVER_16.data) == expected


@given(st.lists(records(CODEC_16), max_size=4).map(tuple))
def test_encoded_packet_of_codec_16_decodes_to_the_same_records(drawn: tuple[Record, ...]) -> None:
    data = encode_packet(CODEC_16, drawn)
    assert decode_packet(data) == Decoded(Packet(CODEC_16, drawn), len(data))


@given(records(CODEC_16))
def test_record_of_codec_16_truncated_anywhere_is_rejected(record: Record) -> None:
    data = encode_packet(CODEC_16, [record])
    for size in range(2, len(data) - 1):
        rejection(data[:size] + data[-1:])


@given(st.integers(0, 3), st.binary(max_size=150))
def test_any_bytes_of_codec_16_between_equal_counts_are_decoded_or_rejected(
    count: int, body: bytes
) -> None:
    data = bytes((CODEC_16.codec_id, count)) + body + bytes((count,))
    outcome = decode_packet(data)
    if isinstance(outcome, Decoded):
        assert encode_packet(CODEC_16, outcome.value.records) == data
    else:
        rejection(data)
