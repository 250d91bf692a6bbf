"""Commands, answers and messages of Codecs 12 to 15: decoded, encoded and rejected."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.golden_messages import (
    ANSWER_12,
    COMMAND_12,
    COMMAND_14,
    GOLDEN_MESSAGES,
    REFUSAL_14,
    SERIAL_13,
    SERIAL_15,
    GoldenMessage,
)
from tests.unit.vendors.teltonika.strategies import unsigned
from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.envelope import decode_frame, encode_frame
from tracker.vendors.teltonika.messages import (
    MESSAGE_CODECS,
    Message,
    decode_message,
    encode_message,
)

each_golden = pytest.mark.parametrize("golden", GOLDEN_MESSAGES, ids=lambda golden: golden.name)
each_codec = pytest.mark.parametrize("codec_id", [0x0C, 0x0D, 0x0E, 0x0F], ids=hex)

#: Offsets in the data: of the time, and of the IMEI by codec.
TIME_OFFSET, IMEI_OFFSET = 7, {0x0E: 7, 0x0F: 11}
imeis = st.text("0123456789", min_size=15, max_size=15)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Draw a message of any codec, with any content."""
    codec = draw(st.sampled_from(sorted(MESSAGE_CODECS.values(), key=lambda codec: codec.name)))
    return Message(
        codec,
        draw(unsigned(1)),
        draw(st.binary(max_size=300)),
        draw(unsigned(4)) if codec.timed else None,
        draw(imeis) if codec.addressed else None,
    )


def rejection(data: bytes) -> Rejected:
    """Return the rejection of ``data``, which covers all of it."""
    outcome = decode_message(data)
    assert isinstance(outcome, Rejected)
    assert outcome.used == len(data)
    assert 0 <= outcome.offset <= len(data)
    assert outcome.reason
    return outcome


def with_payload(codec_id: int, payload: bytes) -> bytes:
    """Return the data of a message with this payload and a correct size."""
    return bytes((codec_id, 1, 0x06)) + len(payload).to_bytes(4, "big") + payload + b"\x01"


# Golden messages.


@each_golden
def test_golden_message_is_decoded(golden: GoldenMessage) -> None:
    assert decode_message(golden.data) == Decoded(golden.message, len(golden.data))


@each_golden
def test_golden_message_is_encoded_byte_for_byte(golden: GoldenMessage) -> None:
    assert encode_message(golden.message) == golden.data
    assert encode_frame(golden.data) == golden.frame


@each_golden
def test_golden_message_is_framed_like_records(golden: GoldenMessage) -> None:
    assert decode_frame(golden.frame, 8192) == Decoded(golden.data, len(golden.frame))


@each_golden
def test_message_truncated_anywhere_is_rejected(golden: GoldenMessage) -> None:
    for size in range(1, len(golden.data)):
        rejection(golden.data[:size])
        # With the second quantity, as in a frame with a consistent length.
        rejection(golden.data[:1] + golden.data[1 : max(size - 1, 1)] + golden.data[-1:])


@each_golden
@pytest.mark.parametrize("stray", [b"\x00", b"\xff" * 9])
def test_bytes_after_the_payload_are_rejected(golden: GoldenMessage, stray: bytes) -> None:
    outcome = rejection(golden.data[:-1] + stray + golden.data[-1:])
    assert outcome.offset == 3
    assert outcome.field == "size"


def test_message_codecs_have_their_ids_and_names() -> None:
    names = {codec_id: codec.name for codec_id, codec in MESSAGE_CODECS.items()}
    assert names == {0x0C: "12", 0x0D: "13", 0x0E: "14", 0x0F: "15"}


# Invalid messages.


@pytest.mark.parametrize("size", [0, 6, 8, 0x01000007, 0xFFFFFFFF])
def test_wrong_payload_size_is_rejected(size: int) -> None:
    outcome = rejection(COMMAND_12.data[:3] + size.to_bytes(4, "big") + COMMAND_12.data[7:])
    assert outcome.offset == 3
    assert outcome.reason == f"size {size} does not match the payload of 7 bytes"


@each_codec
@pytest.mark.parametrize("length", range(1, 8))
def test_message_shorter_than_its_header_is_rejected(codec_id: int, length: int) -> None:
    outcome = rejection(bytes((codec_id,)) + bytes(length - 1))
    assert "is too short" in outcome.reason
    assert outcome.expected == "8 bytes or more"


@pytest.mark.parametrize("codec_id", [0x0D, 0x0F])
@pytest.mark.parametrize("payload", [b"", b"\x64", b"\x64\x2b\x3a"])
def test_truncated_time_is_rejected(codec_id: int, payload: bytes) -> None:
    outcome = rejection(with_payload(codec_id, payload))
    assert outcome.offset == TIME_OFFSET
    assert "time" in outcome.reason


@pytest.mark.parametrize("codec_id", [0x0E, 0x0F])
@pytest.mark.parametrize("size", range(8))
def test_truncated_imei_is_rejected(codec_id: int, size: int) -> None:
    time = b"\x65\x4b\x65\xa4" if codec_id == 0x0F else b""
    # The quantity after the payload, 01, must not be taken for digits.
    outcome = rejection(with_payload(codec_id, time + bytes.fromhex("0352093081452251")[:size]))
    assert outcome.offset == IMEI_OFFSET[codec_id]
    assert "IMEI" in outcome.reason


@pytest.mark.parametrize("golden", [COMMAND_14, REFUSAL_14, SERIAL_15], ids=lambda g: g.name)
@pytest.mark.parametrize("nibble", range(16))
@pytest.mark.parametrize("value", [0xA, 0xF])
def test_imei_with_other_nibbles_than_digits_is_rejected(
    golden: GoldenMessage, nibble: int, value: int
) -> None:
    start = IMEI_OFFSET[golden.data[0]]
    digits = list(golden.data[start : start + 8].hex())
    digits[nibble] = f"{value:x}"
    changed = bytes.fromhex("".join(digits))
    outcome = rejection(golden.data[:start] + changed + golden.data[start + 8 :])
    assert outcome.offset == start
    assert "".join(digits) in outcome.reason


@pytest.mark.parametrize("digit", range(1, 10))
def test_imei_of_sixteen_digits_is_rejected(digit: int) -> None:
    payload = bytes((digit << 4 | 3,)) + bytes.fromhex("52093081452251")
    rejection(with_payload(0x0E, payload))


# Fields without a meaning.


@each_golden
@pytest.mark.parametrize("type_", [0x00, 0x05, 0x06, 0x0B, 0x0D, 0x11, 0xFF])
def test_message_of_any_type_is_decoded(golden: GoldenMessage, type_: int) -> None:
    data = golden.data[:2] + bytes((type_,)) + golden.data[3:]
    expected = attrs.evolve(golden.message, type=type_)
    assert decode_message(data) == Decoded(expected, len(data))


@each_golden
@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 2), (255, 1)])
def test_quantities_in_a_message_are_ignored(golden: GoldenMessage, first: int, last: int) -> None:
    data = golden.data[:1] + bytes((first,)) + golden.data[2:-1] + bytes((last,))
    assert decode_message(data) == Decoded(golden.message, len(data))


@pytest.mark.parametrize("golden", [COMMAND_12, ANSWER_12, SERIAL_13], ids=lambda g: g.name)
def test_message_may_have_an_empty_payload(golden: GoldenMessage) -> None:
    empty = attrs.evolve(golden.message, content=b"")
    data = encode_message(empty)
    assert decode_message(data) == Decoded(empty, len(data))


# Encoding errors.


@pytest.mark.parametrize(
    ("codec_id", "timestamp", "imei", "error"),
    [
        (0x0C, 1, None, "codec 12: a time"),
        (0x0D, None, None, "codec 13: a time"),
        (0x0E, 1, "3" * 15, "codec 14: a time"),
        (0x0F, None, "3" * 15, "codec 15: a time"),
        (0x0C, None, "3" * 15, "codec 12: an IMEI"),
        (0x0D, 1, "3" * 15, "codec 13: an IMEI"),
        (0x0E, None, None, "codec 14: an IMEI"),
        (0x0F, 1, None, "codec 15: an IMEI"),
    ],
)
def test_message_with_a_missing_or_unexpected_field_is_not_encoded(
    codec_id: int, timestamp: int | None, imei: str | None, error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        encode_message(Message(MESSAGE_CODECS[codec_id], 0x06, b"", timestamp, imei))


@pytest.mark.parametrize("imei", ["", "1" * 14, "1" * 16, "35630704244101X", "٣" * 15, "²" * 15])
def test_message_with_an_invalid_imei_is_not_encoded(imei: str) -> None:
    with pytest.raises(ValueError, match="15 digits"):
        encode_message(attrs.evolve(COMMAND_14.message, imei=imei))


@pytest.mark.parametrize("time", [-1, 2**32])
def test_message_with_a_time_out_of_range_is_not_encoded(time: int) -> None:
    with pytest.raises(ValueError, match="codec 13 cannot encode"):
        encode_message(attrs.evolve(SERIAL_13.message, timestamp=time))


@pytest.mark.parametrize("type_", [-1, 256])
def test_message_with_a_type_out_of_range_is_not_encoded(type_: int) -> None:
    with pytest.raises(ValueError, match="codec 12 cannot encode"):
        encode_message(attrs.evolve(COMMAND_12.message, type=type_))


# Properties.


@given(messages())
def test_encoded_message_decodes_to_itself(message: Message) -> None:
    data = encode_message(message)
    assert decode_message(data) == Decoded(message, len(data))


def check(data: bytes) -> None:
    """Assert that decoding has an outcome; a decoded message encodes to the same bytes."""
    outcome = decode_message(data)
    if isinstance(outcome, Decoded):
        assert outcome.used == len(data)
        assert encode_message(outcome.value)[2:-1] == data[2:-1]
    else:
        rejection(data)


@given(st.sampled_from(sorted(MESSAGE_CODECS)), st.binary(max_size=80))
def test_any_bytes_are_decoded_as_a_message_or_rejected(codec_id: int, rest: bytes) -> None:
    check(bytes((codec_id,)) + rest)


@given(st.sampled_from(sorted(MESSAGE_CODECS)), st.binary(max_size=40))
def test_any_payload_is_decoded_or_rejected(codec_id: int, payload: bytes) -> None:
    check(with_payload(codec_id, payload))


@given(
    st.sampled_from(GOLDEN_MESSAGES),
    st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated_message_is_decoded_or_rejected(
    golden: GoldenMessage, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(golden.data)
    for offset, byte in changes:
        data[1 + offset % (len(data) - 1)] = byte
    check(bytes(data))
