"""Frames recognised by their bytes, and the errors of invalid ones."""

from __future__ import annotations

from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import malformed
from tests.unit.vendors.teltonika.examples import (
    CODEC_7_FRAME,
    CODEC_16_FRAME,
    COMMAND,
    DATAGRAM,
    EXAMPLES,
    TIMED,
    TIMED_AND_ADDRESSED,
)
from tests.unit.vendors.teltonika.golden import (
    BEACON_DATA,
    EXTENDED,
    GOLDEN,
    IMEI,
    LOGIN,
    NARROW_ELEMENTS,
    SMALLEST,
    STREAM,
    TWO_RECORDS,
    Golden,
)
from tracker.outcomes import Decoded, Fatal
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.frames import (
    Kind,
    Login,
    Ping,
    TcpFrame,
    decode_frames,
    encode_any_frame,
)


def error_of(data: bytes, kind: Kind | None = None) -> tuple[int, str, str, str]:
    """Return offset, field, expected and found of the error in these bytes."""
    outcome = decode_frames(data, kind)
    assert isinstance(outcome, Fatal)
    assert outcome.reason
    return outcome.offset, outcome.field, outcome.expected, outcome.found


def changed(data: bytes, offset: int, value: str) -> bytes:
    """Return ``data`` with the bytes at ``offset`` replaced."""
    new = bytes.fromhex(value)
    return data[:offset] + new + data[offset + len(new) :]


def reframed(frame: bytes, offset: int, value: str) -> bytes:
    """Return a frame with some of its data replaced, and with a new checksum."""
    return encode_frame(changed(frame, offset, value)[8:-4])


# Valid frames.


@pytest.mark.parametrize("name", EXAMPLES)
def test_decoded_example_is_encoded_to_the_same_bytes(name: str) -> None:
    data = EXAMPLES[name]
    outcome = decode_frames(data)
    assert isinstance(outcome, Decoded)
    assert outcome.used == len(data)
    (frame,) = outcome.value
    assert encode_any_frame(frame) == data


def test_stream_is_decoded_to_a_sequence_of_frames() -> None:
    outcome = decode_frames(STREAM)
    assert isinstance(outcome, Decoded)
    ping, login, _, frame, last = outcome.value
    assert (ping, login, last) == (Ping(1), Login(IMEI), Ping(1))
    assert isinstance(frame, TcpFrame)
    assert b"".join(map(encode_any_frame, outcome.value)) == STREAM


def test_consecutive_pings_are_decoded_as_one_frame() -> None:
    assert decode_frames(b"\xff" * 1000) == Decoded((Ping(1000),), 1000)


def test_six_pings_and_a_login_are_not_a_datagram() -> None:
    # The length of the IMEI and its digits have the offsets of those in a datagram.
    assert decode_frames(b"\xff" * 6 + LOGIN) == Decoded((Ping(6), Login(IMEI)), 23)


@pytest.mark.parametrize(
    ("data", "kind"), [(LOGIN, "login"), (SMALLEST.frame, "frame"), (DATAGRAM, "datagram")]
)
def test_given_kind_accepts_only_frames_of_that_kind(data: bytes, kind: Kind) -> None:
    assert decode_frames(data, kind) == decode_frames(data)
    for other in {"login", "frame", "datagram"} - {kind}:
        assert isinstance(decode_frames(data, other), Fatal)  # type: ignore[arg-type]


def test_codec_7_is_decoded_but_not_encoded() -> None:
    outcome = decode_frames(CODEC_7_FRAME)
    assert isinstance(outcome, Decoded)
    with pytest.raises(ValueError, match="codec 7 cannot be encoded"):
        encode_any_frame(outcome.value[0])


# Errors in the envelope.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (0, "frame", "2 bytes or more", "nothing")),
        (b"\x00", (0, "frame", "2 bytes or more", "00")),
        (b"\xff\x00", (1, "frame", "2 bytes or more", "00")),
        (b"GET / HTTP/1.1", (0, "frame", ANY, "474554202f204854")),
        (STREAM + b"\x16\x03\x01", (len(STREAM), "frame", ANY, "160301")),
        (LOGIN[:2], (2, "imei", "15 bytes", "0 bytes up to the end")),
        (b"\xff" + LOGIN[:10], (3, "imei", "15 bytes", "8 bytes up to the end")),
        (b"\x00\x0e" + b"1" * 14, (0, "length", "000f", "000e")),
        (b"\xff\x00\x10" + b"1" * 16, (1, "length", "000f", "0010")),
        (b"\x00\x1a" + b"1" * 26, (0, "length", "000f", "001a")),
        (
            LOGIN[:-1] + b"X",
            (2, "imei", "15 digits", "'35630704244101X'"),
        ),
        (
            LOGIN[:-1] + b"\x1b",
            (2, "imei", "15 digits", r"'35630704244101\x1b'"),
        ),
        (bytes(3), (0, "preamble", "4 bytes", "3 bytes up to the end")),
        (b"\x00\x00\x00\x05", (0, "preamble", "00000000", "00000005")),
        (bytes(6), (4, "length", "4 bytes", "2 bytes up to the end")),
        (bytes(12), (4, "length", "3 or more", "0")),
        (LOGIN + bytes(4) + b"\x00\xff\xff\xff", (21, "length", "1048576 or less", "16777215")),
        (SMALLEST.frame[:20], (8, "data", "33 bytes", "12 bytes up to the end")),
        (LOGIN + SMALLEST.frame[:-1], (58, "crc", "4 bytes", "3 bytes up to the end")),
        (malformed.BAD_CRC, (48, "crc", "0x0000f22a", "0x0000f22b")),
        (b"\xff" + malformed.BAD_CRC, (49, "crc", "0x0000f22a", "0x0000f22b")),
        (LOGIN + malformed.BAD_CRC, (65, "crc", "0x0000f22a", "0x0000f22b")),
    ],
)
def test_error_in_an_envelope_has_its_offset_and_field(
    data: bytes, expected: tuple[int, str, str, str]
) -> None:
    assert error_of(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            changed(DATAGRAM, 0, "013D"),
            (23, "data", "296 bytes, according to the length", "40 bytes up to the end"),
        ),
        (
            DATAGRAM + b"\x00",
            (63, "datagram", "its end, according to the length", "1 byte after the end"),
        ),
        (changed(DATAGRAM, 6, "0004"), (6, "length of the imei", "15", "4")),
        (changed(DATAGRAM, 8, "58"), (8, "imei", "15 digits", "'X52093086403655'")),
        (changed(DATAGRAM, 23, "55"), (23, "codec", ANY, "0x55")),
        (changed(DATAGRAM, 23, "0C"), (26, "size", ANY, ANY)),
        (changed(DATAGRAM, 62, "02"), (62, "second count of records", "1", "2")),
        (changed(DATAGRAM, 50, "04"), (50, "records[0] total of elements", "3", "4")),
    ],
)
def test_error_in_a_datagram_has_its_offset_and_field(
    data: bytes, expected: tuple[int, str, str, str]
) -> None:
    assert error_of(data) == expected


def test_truncated_datagram_has_the_error_of_its_incomplete_field() -> None:
    expected = (23, "data", "40 bytes, according to the length", "2 bytes up to the end")
    assert error_of(DATAGRAM[:25]) == expected
    assert error_of(DATAGRAM[:9]) == (8, "imei", "15 bytes", "1 byte up to the end")
    assert error_of(b"", "datagram") == (0, "length", "2 bytes", "0 bytes up to the end")


# Errors in the data of a frame with a correct checksum.


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (malformed.COUNTS_DIFFER, (47, "second count of records", "1", "2")),
        (malformed.UNKNOWN_CODEC, (8, "codec", ANY, "0x55")),
        (
            malformed.RECORD_MISSING,
            (47, "records[1] timestamp", "8 bytes", "0 bytes up to the second count"),
        ),
        (malformed.TOTAL_DIFFERS, (35, "records[0] total of elements", "3", "4")),
        (malformed.STRAY_BYTE, (47, "records", "the second count", "1 byte before it")),
        # Count of 2-byte elements: 7 instead of 1.
        (
            reframed(NARROW_ELEMENTS.frame, 41, "07"),
            (42, "records[0] 2-byte elements", "21 bytes", "5 bytes up to the second count"),
        ),
        # Group of 8-byte elements: missing.
        (
            encode_frame(SMALLEST.data[:-2] + SMALLEST.data[-1:]),
            (
                39,
                "records[0] count of 8-byte elements",
                "1 byte",
                "0 bytes up to the second count",
            ),
        ),
        # Total of elements in the second record.
        (reframed(TWO_RECORDS.frame, 67, "05"), (67, "records[1] total of elements", "1", "5")),
        (
            reframed(BEACON_DATA.frame, 129, "00FF"),
            (131, "records[1] element 385", "255 bytes", "45 bytes up to the second count"),
        ),
        (
            reframed(EXTENDED.frame, 79, "0001"),
            (
                81,
                "records[0] id of a variable element",
                "2 bytes",
                "0 bytes up to the second count",
            ),
        ),
        (reframed(CODEC_16_FRAME, 37, "09"), (37, "records[0] total of elements", "4", "9")),
        (
            encode_frame(bytes.fromhex("07 01 50AA1432 02 02F001 01")),
            (
                18,
                "records[0] 1-byte elements",
                "2 bytes",
                "0 bytes up to the second count",
            ),
        ),
        (
            encode_frame(bytes.fromhex("07 01 50AA1432 01 01 4233 01")),
            (16, "records[0] coordinates", "8 bytes", "2 bytes up to the second count"),
        ),
        (reframed(COMMAND, 11, "00000008"), (11, "size", "7", "8")),
        (
            encode_frame(bytes.fromhex("0D 01 06 00000002 0000 01")),
            (15, "timestamp", "4 bytes", "2 bytes"),
        ),
        (
            reframed(TIMED_AND_ADDRESSED, 19, "11"),
            (19, "imei", "0 and 15 digits, packed", "1123456789123456"),
        ),
        (
            encode_frame(bytes.fromhex("0C 01 05 00")),
            (12, "data", "8 bytes or more", "4 bytes"),
        ),
    ],
)
@pytest.mark.parametrize("before", [b"", LOGIN, STREAM + TIMED], ids=["alone", "login", "stream"])
def test_error_in_the_data_has_its_offset_and_field(
    frame: bytes, expected: tuple[int, str, str, str], before: bytes
) -> None:
    offset, *others = error_of(before + frame)
    assert (offset - len(before), *others) == expected


# Arbitrary bytes.


@given(st.binary(max_size=60), st.sampled_from([None, "login", "frame", "datagram"]))
def test_any_bytes_are_frames_or_have_an_error(data: bytes, kind: Kind | None) -> None:
    outcome = decode_frames(data, kind)
    if isinstance(outcome, Decoded):
        assert outcome.used == len(data)
    else:
        assert 0 <= outcome.offset <= len(data)
        assert outcome.field
        assert outcome.expected
        assert outcome.found.isprintable()
        assert outcome.found.isascii()


@given(
    st.sampled_from([*EXAMPLES.values(), CODEC_7_FRAME, CODEC_16_FRAME]),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=4),
    st.integers(1, 500),
)
def test_damaged_bytes_are_frames_or_have_an_error(
    data: bytes, changes: list[tuple[int, int]], size: int
) -> None:
    damaged = bytearray(data)
    for offset, byte in changes:
        damaged[offset % len(data)] = byte
    inside = bytes(damaged)[8:-4][:size]
    for candidate in (bytes(damaged[:size]), encode_frame(inside)):
        outcome = decode_frames(candidate)
        if isinstance(outcome, Fatal):
            assert 0 <= outcome.offset <= len(candidate)
            assert outcome.field
            assert outcome.expected
            assert outcome.found
            assert outcome.expected != outcome.found


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_error_for_a_record_truncated_anywhere_names_the_missing_field(golden: Golden) -> None:
    data = golden.data
    for size in range(2, len(data) - 1):
        cut = encode_frame(data[:size] + data[-1:])
        offset, field, _, found = error_of(cut)
        assert field.startswith("records[")
        assert found.endswith("up to the second count")
        assert offset <= 8 + size
