"""Logins: complete, in pieces, and invalid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.golden import IMEI, LOGIN, SMALLEST, STREAM
from tracker.outcomes import Decoded, Fatal, Incomplete, Rejected
from tracker.vendors.teltonika.login import ACCEPT, REFUSE, decode_login, encode_login

imeis = st.text("0123456789", min_size=15, max_size=15)


def test_login_is_decoded_to_its_imei() -> None:
    assert decode_login(LOGIN) == Decoded(IMEI, 17)


def test_login_that_arrives_byte_by_byte_is_decoded() -> None:
    buffer = bytearray()
    for number, byte in enumerate(LOGIN):
        assert decode_login(buffer) == Incomplete(17 - number)
        buffer.append(byte)
    assert decode_login(buffer) == Decoded(IMEI, 17)


@pytest.mark.parametrize("after", [b"\xff", b"\x00", LOGIN, SMALLEST.frame, b"GET /"])
def test_bytes_after_the_login_are_ignored(after: bytes) -> None:
    assert decode_login(LOGIN + after) == Decoded(IMEI, 17)


def test_decoding_a_login_does_not_change_the_buffer() -> None:
    buffer = bytearray(LOGIN + b"\xff")
    decode_login(buffer)
    assert buffer == LOGIN + b"\xff"


def test_login_after_a_ping_is_decoded() -> None:
    assert decode_login(STREAM[1:]) == Decoded(IMEI, 17)


@pytest.mark.parametrize("imei", ["000000000000000", "999999999999999", "356307042441010"])
def test_login_decoder_does_not_verify_the_check_digit(imei: str) -> None:
    assert decode_login(b"\x00\x0f" + imei.encode()) == Decoded(imei, 17)


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (b"G", "not a Teltonika login"),
        (b"\x16\x03\x01", "not a Teltonika login"),
        (b"\xff", "not a Teltonika login"),
        (b"\x03\x00", "not a Teltonika login"),
        (b"\x0f\x00", "not a Teltonika login"),
        (b"\x01\x0f", "not a Teltonika login"),
        (b"\x00\x00", "frame before the login: the IMEI must come first"),
        (b"\x00\x00\x00\x05", "frame before the login: the IMEI must come first"),
        (SMALLEST.frame, "frame before the login: the IMEI must come first"),
    ],
)
def test_bytes_of_another_protocol_are_fatal_at_once(received: bytes, reason: str) -> None:
    assert decode_login(received) == Fatal(0, reason)


@pytest.mark.parametrize("digits", [1, 14, 16, 255])
@pytest.mark.parametrize("sent", ["length only", "length and digits"])
def test_wrong_length_is_rejected_before_the_digits(digits: int, sent: str) -> None:
    data = bytes((0, digits)) + (b"1" * digits if sent == "length and digits" else b"")
    outcome = decode_login(data)
    assert isinstance(outcome, Rejected)
    assert outcome.offset == 0
    assert outcome.used == len(data)
    assert f" {digits} " in outcome.reason
    assert "15" in outcome.reason


@pytest.mark.parametrize("offset", range(15))
@pytest.mark.parametrize("character", [b"X", b" ", b"/", b":", b"\x00", b"\xb2", b"\xff", b"-"])
def test_character_that_is_not_a_digit_is_rejected_on_arrival(
    offset: int, character: bytes
) -> None:
    before = LOGIN[: 2 + offset]
    assert decode_login(before) == Incomplete(15 - offset)
    outcome = decode_login(before + character)
    assert isinstance(outcome, Rejected)
    assert 2 <= outcome.offset <= 2 + offset
    assert "digits" in outcome.reason


def test_complete_login_with_a_letter_is_rejected() -> None:
    outcome = decode_login(b"\x00\x0f35630704244101X")
    assert isinstance(outcome, Rejected)
    assert outcome.used == 17


def test_letter_after_the_login_is_ignored() -> None:
    assert decode_login(LOGIN + b"X") == Decoded(IMEI, 17)


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_incomplete_or_invalid(data: bytes) -> None:
    outcome = decode_login(data)
    if isinstance(outcome, Incomplete):
        assert outcome.missing > 0
        assert len(data) + outcome.missing == 17
    elif isinstance(outcome, Decoded):
        assert encode_login(outcome.value) == data[: outcome.used]
    else:
        assert outcome.reason


@given(st.integers(0, 16), st.integers(0, 255))
def test_login_with_one_changed_byte_is_decoded_or_invalid(offset: int, byte: int) -> None:
    data = LOGIN[:offset] + bytes((byte,)) + LOGIN[offset + 1 :]
    outcome = decode_login(data)
    digit_kept = offset >= 2 and chr(byte).isdecimal() and byte < 128
    if data == LOGIN or digit_kept:
        assert outcome == Decoded(data[2:].decode(), 17)
    else:
        assert isinstance(outcome, Rejected | Fatal)


@given(st.binary(min_size=1, max_size=20), st.binary(max_size=20))
def test_rejection_does_not_depend_on_later_bytes(received: bytes, more: bytes) -> None:
    outcome = decode_login(received)
    if isinstance(outcome, Rejected | Fatal):
        assert isinstance(decode_login(received + more), Rejected | Fatal)


@given(imeis)
def test_encoded_login_decodes_to_the_same_imei(imei: str) -> None:
    assert decode_login(encode_login(imei)) == Decoded(imei, 17)


def test_golden_login_is_encoded_byte_for_byte() -> None:
    assert encode_login(IMEI) == LOGIN


@pytest.mark.parametrize(
    "imei",
    [
        "",
        "1" * 14,
        "1" * 16,
        "35630704244101X",
        "35630704244101 ",
        "٣" * 15,
        "²" * 15,
        "-1" + "1" * 13,
    ],
)
def test_login_with_an_invalid_imei_is_not_encoded(imei: str) -> None:
    with pytest.raises(ValueError, match="15 digits"):
        encode_login(imei)


def test_replies_to_a_login_have_one_byte() -> None:
    assert (ACCEPT, REFUSE) == (b"\x01", b"\x00")
