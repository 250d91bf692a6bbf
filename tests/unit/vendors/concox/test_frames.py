"""Frames: start, length, checksum, stop bytes, and what is skipped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.concox.golden import GOLDEN, LOGIN, POSITION_22, Golden
from tracker.outcomes import Decoded, Incomplete, Rejected
from tracker.vendors.concox.frames import (
    MAX_LENGTH,
    Frame,
    acknowledgement,
    decode_frame,
    encode_frame,
)

FRAMES = st.builds(
    Frame,
    st.integers(0, 255),
    st.binary(max_size=250),
    st.integers(0, 0xFFFF),
    st.booleans(),
)
by_name = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)


@by_name
def test_golden_frame_is_decoded_and_encoded_again(golden: Golden) -> None:
    outcome = decode_frame(golden.data)
    assert isinstance(outcome, Decoded)
    assert (outcome.value.number, outcome.value.serial) == (golden.number, golden.serial)
    assert outcome.used == len(golden.data)
    assert encode_frame(outcome.value) == golden.data


@by_name
def test_golden_frame_is_incomplete_up_to_its_last_byte(golden: Golden) -> None:
    for length in range(1, len(golden.data)):
        assert isinstance(decode_frame(golden.data[:length]), Incomplete)


@by_name
def test_golden_frame_ends_before_the_bytes_behind_it(golden: Golden) -> None:
    whole = decode_frame(golden.data)
    assert decode_frame(golden.data + POSITION_22.data) == whole


@by_name
def test_changed_byte_is_never_decoded(golden: Golden) -> None:
    for index in range(len(golden.data)):
        data = bytearray(golden.data)
        data[index] ^= 0x10
        assert not isinstance(decode_frame(data), Decoded)


@given(FRAMES)
def test_encoded_frame_is_decoded(frame: Frame) -> None:
    data = encode_frame(frame)
    assert decode_frame(data) == Decoded(frame, len(data))


@pytest.mark.parametrize(
    ("golden", "answer"),
    [(golden, golden.answer) for golden in GOLDEN if golden.answer],
    ids=lambda value: value.name if isinstance(value, Golden) else "",
)
def test_acknowledgement_repeats_number_and_serial(golden: Golden, answer: str) -> None:
    assert acknowledgement(Frame(golden.number, b"", golden.serial)) == bytes.fromhex(answer)


@pytest.mark.parametrize(
    ("carried", "data"),
    [
        ("2087", "787822220F0C1D023305C9027AC8180C46586000140001CC00287D001F71000001000820870D0A"),
        ("8081", "78781F120B081D112E10CC027AC7EB0C46584900148F01CC00287D001FB8000380810D0A"),
        ("7193", "787811010123456789012345100B3201000171930D0A"),
        (
            "4df6",
            "78782627100419092D07C5027AC91C0C4658000005370900000000000000008002001900FF00004DF60D0A",
        ),
    ],
)
def test_published_frame_with_a_wrong_crc_is_skipped_whole(carried: str, data: str) -> None:
    frame = bytes.fromhex(data)
    outcome = decode_frame(frame + LOGIN.data)
    assert isinstance(outcome, Rejected)
    assert (outcome.used, outcome.field, outcome.found) == (len(frame), "crc", carried)


@pytest.mark.parametrize(
    ("garbage", "field"),
    [
        ("0011", "preamble"),
        ("79", "preamble"),
        ("7879", "preamble"),
        ("7878000a0d0a", "length"),
        ("787804010d0a", "length"),
        ("79790004010d0a", "length"),
        ("7878050100010203040506", "stop"),
    ],
)
def test_garbage_is_skipped_up_to_the_next_start(garbage: str, field: str) -> None:
    rest = bytearray(bytes.fromhex(garbage) + LOGIN.data)
    fields = []
    while isinstance(outcome := decode_frame(rest), Rejected):
        fields.append(outcome.field)
        del rest[: outcome.used]
    assert isinstance(outcome, Decoded)
    assert fields[0] == field
    assert outcome.value.number == 1


def test_byte_of_a_start_before_a_frame_delays_the_frame() -> None:
    # 78 78 78 may be a frame of length 0x78: only the bytes at its end can tell.
    rest = bytearray(b"\x78" + 8 * LOGIN.data)
    decoded = 0
    while not isinstance(outcome := decode_frame(rest), Incomplete):
        decoded += isinstance(outcome, Decoded)
        del rest[: outcome.used]
        if not rest:
            break
    assert decoded == 8


def test_frame_over_the_limit_is_no_frame() -> None:
    data = encode_frame(Frame(0x94, bytes(200), 1, extended=True))
    assert isinstance(decode_frame(data, 205), Decoded)
    outcome = decode_frame(data, 204)
    assert isinstance(outcome, Rejected)
    assert (outcome.field, outcome.found) == ("length", "205")


def test_length_over_the_limit_is_rejected_before_the_content_arrives() -> None:
    assert isinstance(decode_frame(bytes.fromhex("7979ffff94"), 8192), Rejected)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(1, bytes(251)),
        Frame(1, bytes(MAX_LENGTH - 4), extended=True),
        Frame(256),
        Frame(1, b"", 0x10000),
    ],
)
def test_frame_that_does_not_fit_is_not_encoded(frame: Frame) -> None:
    with pytest.raises(ValueError, match=r"fit|too long"):
        encode_frame(frame)
