"""Decoding of the data of a frame by its codec id."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import golden_7, malformed
from tests.unit.vendors.teltonika.golden import GOLDEN, Golden
from tests.unit.vendors.teltonika.golden_16 import GOLDEN_16
from tests.unit.vendors.teltonika.golden_messages import GOLDEN_MESSAGES, GoldenMessage
from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.avl import (
    CODEC_8,
    CODEC_8E,
    CODEC_16,
    Codec,
    Packet,
    Record,
    encode_packet,
)
from tracker.vendors.teltonika.codec7 import Codec7Packet
from tracker.vendors.teltonika.content import decode_data

KNOWN = (0x07, 0x08, 0x0C, 0x0D, 0x0E, 0x0F, 0x10, 0x8E)
RECORD = Record(1_710_504_600_000, 0, 1, 2, 3, 4, 5, 6, 7)


def packet(codec: Codec, records: int) -> bytes:
    """Return data with a number of records."""
    record = attrs.evolve(RECORD, generation=1 if codec is CODEC_16 else None)
    return encode_packet(codec, [record] * records)


def codec_7_packet(records: int) -> bytes:
    """Return data of Codec 7 with a number of records that have only a time."""
    return bytes((0x07, records)) + bytes(5) * records + bytes((records,))


@pytest.mark.parametrize("golden", [*GOLDEN, *GOLDEN_16], ids=lambda golden: golden.name)
def test_golden_records_are_decoded(golden: Golden) -> None:
    expected = Decoded(Packet(golden.codec, golden.records), len(golden.data))
    assert decode_data(golden.data) == expected


def test_records_of_codec_7_are_decoded() -> None:
    expected = Decoded(Codec7Packet(golden_7.RECORDS), len(golden_7.DATA))
    assert decode_data(golden_7.DATA) == expected


@pytest.mark.parametrize("golden", GOLDEN_MESSAGES, ids=lambda golden: golden.name)
def test_golden_messages_are_decoded(golden: GoldenMessage) -> None:
    assert decode_data(golden.data) == Decoded(golden.messages, len(golden.data))


@pytest.mark.parametrize("codec_id", sorted(set(range(256)) - set(KNOWN)))
def test_unknown_codec_is_rejected(codec_id: int) -> None:
    outcome = decode_data(bytes((codec_id, 1, 1)))
    assert outcome == Rejected(3, 0, f"unsupported codec {codec_id:#04x}")


def test_unknown_codec_in_a_correct_frame_is_rejected() -> None:
    data = malformed.UNKNOWN_CODEC[8:-4]
    assert decode_data(data) == Rejected(len(data), 0, "unsupported codec 0x55")


@pytest.mark.parametrize("limit", [1, 2, 100, 254, 255])
@pytest.mark.parametrize("codec", [CODEC_8, CODEC_8E, CODEC_16], ids=lambda codec: codec.name)
def test_packet_with_more_records_than_the_limit_is_rejected(codec: Codec, limit: int) -> None:
    at_limit = decode_data(packet(codec, limit), limit)
    assert isinstance(at_limit, Decoded)
    assert isinstance(at_limit.value, Packet)
    assert len(at_limit.value.records) == limit
    if limit < 255:
        data = packet(codec, limit + 1)
        reason = f"{limit + 1} records exceed the limit of {limit}"
        assert decode_data(data, limit) == Rejected(len(data), 1, reason)


@pytest.mark.parametrize("limit", [1, 254])
def test_packet_of_codec_7_with_more_records_than_the_limit_is_rejected(limit: int) -> None:
    assert isinstance(decode_data(codec_7_packet(limit), limit), Decoded)
    data = codec_7_packet(limit + 1)
    reason = f"{limit + 1} records exceed the limit of {limit}"
    assert decode_data(data, limit) == Rejected(len(data), 1, reason)


def test_limit_is_checked_before_records_are_decoded() -> None:
    outcome = decode_data(b"\x08\xff\xff", 10)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "255 records exceed the limit of 10"


@pytest.mark.parametrize("codec_id", [0x0C, 0x0D, 0x0E, 0x0F])
def test_quantity_of_a_message_does_not_count_as_records(codec_id: int) -> None:
    (golden, *_) = [golden for golden in GOLDEN_MESSAGES if golden.data[0] == codec_id]
    data = golden.data[:1] + b"\xff" + golden.data[2:]
    assert decode_data(data, 1) == Decoded(golden.messages, len(data))


def test_packet_without_records_is_within_any_limit() -> None:
    assert decode_data(b"\x08\x00\x00", 1) == Decoded(Packet(CODEC_8, ()), 3)


@given(st.sampled_from([*KNOWN, 0x00, 0x55]), st.binary(min_size=2, max_size=150))
def test_any_bytes_are_decoded_as_frame_data_or_rejected(codec_id: int, rest: bytes) -> None:
    data = bytes((codec_id,)) + rest
    outcome = decode_data(data)
    assert outcome.used == len(data)
    if isinstance(outcome, Rejected):
        assert 0 <= outcome.offset <= len(data)
        assert outcome.reason
