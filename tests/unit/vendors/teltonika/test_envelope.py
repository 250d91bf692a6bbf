"""The envelope of frames over TCP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.golden import GOLDEN, LOGIN, SMALLEST, STREAM, Golden
from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.vendors.teltonika.envelope import PING, decode_frame, encode_frame

LIMIT = 8192

each_golden = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
#: Frames with a correct envelope and a mistake in their data.
each_correct_envelope = pytest.mark.parametrize(
    "frame",
    [
        malformed.COUNTS_DIFFER,
        malformed.UNKNOWN_CODEC,
        malformed.RECORD_MISSING,
        malformed.TOTAL_DIFFERS,
        malformed.STRAY_BYTE,
        malformed.NO_RECORDS,
    ],
)


@each_golden
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_complete_frame_is_decoded(golden: Golden, kind: type) -> None:
    outcome = decode_frame(kind(golden.frame), LIMIT)
    assert outcome == Decoded(golden.data, len(golden.frame))
    assert isinstance(outcome, Decoded)
    assert type(outcome.value) is bytes  # a copy, because the buffer changes


@each_golden
def test_frame_that_arrives_byte_by_byte_is_decoded_at_its_last_byte(golden: Golden) -> None:
    buffer = bytearray()
    for byte in golden.frame:
        outcome = decode_frame(buffer, LIMIT)
        assert isinstance(outcome, Incomplete)
        assert outcome.missing > 0
        if len(buffer) < 8:  # the size is unknown before the header is complete
            assert len(buffer) + outcome.missing == 8
        else:
            assert len(buffer) + outcome.missing == len(golden.frame)
        buffer.append(byte)
    assert decode_frame(buffer, LIMIT) == Decoded(golden.data, len(golden.frame))


@each_golden
def test_reads_of_the_missing_bytes_complete_a_frame_in_two_steps(golden: Golden) -> None:
    have, steps = 0, 0
    while isinstance(outcome := decode_frame(golden.frame[:have], LIMIT), Incomplete):
        have += outcome.missing
        steps += 1
    assert (have, steps) == (len(golden.frame), 2)


@each_golden
@pytest.mark.parametrize("after", [b"\x00", b"\xff", b"\x00" * 20, SMALLEST.frame, b"garbage"])
def test_bytes_after_a_frame_are_ignored(golden: Golden, after: bytes) -> None:
    assert decode_frame(golden.frame + after, LIMIT) == Decoded(golden.data, len(golden.frame))


@pytest.mark.parametrize("first", GOLDEN, ids=lambda golden: golden.name)
@pytest.mark.parametrize("second", GOLDEN[-3:], ids=lambda golden: golden.name)
def test_two_frames_in_one_buffer_are_decoded_in_order(first: Golden, second: Golden) -> None:
    buffer = bytearray(first.frame + second.frame)
    taken = []
    while isinstance(outcome := decode_frame(buffer, LIMIT), Decoded):
        taken.append(outcome.value)
        del buffer[: outcome.used]
    assert taken == [first.data, second.data]
    assert buffer == b""
    assert outcome == Incomplete(8)


def test_decoding_a_frame_does_not_change_the_buffer() -> None:
    buffer = bytearray(SMALLEST.frame + b"\xff")
    decode_frame(buffer, LIMIT)
    assert buffer == SMALLEST.frame + b"\xff"


def test_frame_between_pings_is_decoded() -> None:
    start = 1 + len(LOGIN) + 1
    assert STREAM[0] == STREAM[start - 1] == STREAM[-1] == PING
    outcome = decode_frame(STREAM[start:], LIMIT)
    assert outcome == Decoded(SMALLEST.data, 45)
    assert STREAM[start + 45 :] == bytes((PING,))


@each_golden
def test_golden_frame_is_encoded_byte_for_byte(golden: Golden) -> None:
    assert encode_frame(golden.data) == golden.frame


def test_checksum_is_crc_16_arc() -> None:
    # The check value of CRC-16/ARC in catalogues of CRCs.
    assert encode_frame(b"123456789")[-4:] == bytes.fromhex("0000BB3D")


# Invalid frames.


@pytest.mark.parametrize("offset", range(4))
@pytest.mark.parametrize("byte", [0x01, 0x0F, 0x47, 0xFF])
def test_wrong_preamble_is_fatal_at_its_first_wrong_byte(offset: int, byte: int) -> None:
    assert decode_frame(bytes(offset), LIMIT) == Incomplete(8 - offset)
    outcome = decode_frame(bytes(offset) + bytes((byte,)), LIMIT)
    assert isinstance(outcome, Fatal)
    assert outcome.offset == 0
    assert "preamble" in outcome.reason


@pytest.mark.parametrize(
    "data",
    [b"\xde\xad\xbe\xef" + SMALLEST.frame, bytes((PING,)) + SMALLEST.frame, LOGIN, b"GET / HTTP"],
)
def test_bytes_before_a_frame_are_not_skipped(data: bytes) -> None:
    outcome = decode_frame(data, LIMIT)
    assert isinstance(outcome, Fatal)
    assert "preamble" in outcome.reason


@pytest.mark.parametrize("length", [0, 1, 2])
@pytest.mark.parametrize("after", [b"", b"\x00" * 20])
def test_length_below_the_minimum_is_fatal(length: int, after: bytes) -> None:
    outcome = decode_frame(bytes(4) + length.to_bytes(4, "big") + after, LIMIT)
    assert isinstance(outcome, Fatal)
    assert outcome.offset == 4
    assert f"length {length}" in outcome.reason
    assert "too short" in outcome.reason


def test_frame_of_the_minimum_length_is_incomplete_until_its_end() -> None:
    assert decode_frame(bytes.fromhex("00000000 00000003"), LIMIT) == Incomplete(7)


@pytest.mark.parametrize("limit", [64, 1280, LIMIT])
def test_length_at_the_limit_is_accepted(limit: int) -> None:
    header = bytes(4) + limit.to_bytes(4, "big")
    assert decode_frame(header, limit) == Incomplete(limit + 4)
    frame = encode_frame(bytes(limit))
    assert decode_frame(frame, limit) == Decoded(bytes(limit), limit + 12)


@pytest.mark.parametrize("limit", [64, 1280, LIMIT])
def test_length_past_the_limit_is_fatal_after_the_header(limit: int) -> None:
    header = bytes(4) + (limit + 1).to_bytes(4, "big")
    assert decode_frame(header[:7], limit) == Incomplete(1)
    outcome = decode_frame(header, limit)
    assert isinstance(outcome, Fatal)
    assert outcome.offset == 4
    assert str(limit + 1) in outcome.reason
    assert f"limit of {limit}" in outcome.reason
    assert decode_frame(encode_frame(bytes(limit + 1)), limit) == outcome


@pytest.mark.parametrize("length", [0x00FFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_huge_length_is_fatal(length: int) -> None:
    outcome = decode_frame(bytes(4) + length.to_bytes(4, "big"), LIMIT)
    assert isinstance(outcome, Fatal)
    assert f"length {length} " in outcome.reason  # unsigned


@each_golden
def test_limit_of_the_data_length_is_inclusive(golden: Golden) -> None:
    size = len(golden.data)
    assert isinstance(decode_frame(golden.frame, size), Decoded)
    outcome = decode_frame(golden.frame, size - 1)
    assert isinstance(outcome, Fatal)
    assert outcome.offset == 4


# The checksum.


def test_checksum_with_one_wrong_bit_is_fatal() -> None:
    outcome = decode_frame(malformed.BAD_CRC, LIMIT)
    assert isinstance(outcome, Fatal)
    assert outcome.offset == 48
    assert "CRC" in outcome.reason
    assert "0x0000f22b" in outcome.reason
    assert "0x0000f22a" in outcome.reason


@pytest.mark.parametrize(("frame", "computed"), malformed.PUBLISHED_WITH_BAD_CRC.items())
def test_published_frames_with_a_wrong_checksum_are_fatal(frame: str, computed: int) -> None:
    data = bytes.fromhex(frame)
    outcome = decode_frame(data, LIMIT)
    assert isinstance(outcome, Fatal)
    assert outcome.offset == len(data) - 4
    assert outcome.expected == f"{computed:#010x}"


@each_golden
@pytest.mark.parametrize("offset", [-4, -3])
@pytest.mark.parametrize("byte", [0x01, 0x80, 0xFF])
def test_upper_half_of_the_checksum_must_be_zero(golden: Golden, offset: int, byte: int) -> None:
    frame = bytearray(golden.frame)
    frame[offset] = byte
    outcome = decode_frame(frame, LIMIT)
    assert isinstance(outcome, Fatal)
    assert outcome.offset == len(frame) - 4
    assert "CRC" in outcome.reason


@each_golden
def test_any_flipped_bit_of_data_or_checksum_is_fatal(golden: Golden) -> None:
    for offset in range(8, len(golden.frame)):
        for bit in range(8):
            frame = bytearray(golden.frame)
            frame[offset] ^= 1 << bit
            outcome = decode_frame(frame, LIMIT)
            assert isinstance(outcome, Fatal)
            assert "CRC" in outcome.reason


def test_wrong_checksum_is_reported_after_the_last_byte() -> None:
    assert decode_frame(malformed.BAD_CRC[:-1], LIMIT) == Incomplete(1)


@each_correct_envelope
def test_frame_with_malformed_data_is_decoded(frame: bytes) -> None:
    assert decode_frame(frame, LIMIT) == Decoded(frame[8:-4], len(frame))


# Arbitrary bytes.


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: bytes(4) + tail))
def test_any_bytes_are_decoded_incomplete_or_fatal(data: bytes) -> None:
    outcome = decode_frame(data, 64)
    if isinstance(outcome, Incomplete):
        assert outcome.missing > 0
        assert len(data) + outcome.missing <= 64 + 12
    elif isinstance(outcome, Decoded):
        assert encode_frame(outcome.value) == data[: outcome.used]
    else:
        assert 0 <= outcome.offset < len(data)
        assert outcome.reason


@given(
    st.sampled_from(GOLDEN),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 300),
)
def test_mutated_frame_is_decoded_incomplete_or_fatal(
    golden: Golden, changes: list[tuple[int, int]], size: int
) -> None:
    frame = bytearray(golden.frame)
    for offset, byte in changes:
        frame[offset % len(frame)] = byte
    outcome = decode_frame(frame[:size], LIMIT)
    if isinstance(outcome, Decoded):
        assert encode_frame(outcome.value) == frame[: outcome.used]
    elif isinstance(outcome, Incomplete):
        assert outcome.missing > 0
    else:
        assert outcome.reason


@given(st.binary(min_size=3, max_size=300), st.binary(max_size=20))
def test_encoded_frame_decodes_to_the_same_data(data: bytes, after: bytes) -> None:
    frame = encode_frame(data)
    assert decode_frame(frame + after, 300) == Decoded(data, len(data) + 12)


def test_limit_of_message_frames_may_exceed_that_of_record_frames() -> None:
    message, records = b"\x0c" + bytes(99), b"\x08" + bytes(99)
    assert decode_frame(encode_frame(message), 64, 100) == Decoded(message, 112)
    assert isinstance(decode_frame(encode_frame(records), 64, 100), Fatal)
    assert isinstance(decode_frame(encode_frame(message + b"x"), 64, 100), Fatal)


def test_codec_id_selects_the_limit_of_the_length() -> None:
    message, records = encode_frame(b"\x0c" + bytes(99)), encode_frame(b"\x08" + bytes(99))
    assert decode_frame(message[:8], 64, 100) == Incomplete(1)
    assert decode_frame(message[:9], 64, 100) == Incomplete(103)
    assert isinstance(decode_frame(records[:9], 64, 100), Fatal)
    assert isinstance(decode_frame(message[:8], 64, 99), Fatal)


def test_limit_of_message_frames_may_be_below_that_of_record_frames() -> None:
    message, records = b"\x0c" + bytes(63), b"\x08" + bytes(99)
    assert decode_frame(encode_frame(message), 100, 64) == Decoded(message, 76)
    assert isinstance(decode_frame(encode_frame(message + b"x"), 100, 64), Fatal)
    assert decode_frame(encode_frame(records), 100, 64) == Decoded(records, 112)
    assert isinstance(decode_frame(encode_frame(records + b"x")[:8], 100, 64), Fatal)
