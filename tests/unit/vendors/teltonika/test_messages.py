"""Commands, answers and messages of Codecs 12 to 15: decoded, encoded and rejected."""

from __future__ import annotations

import string

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
    TWO_PARTS_12,
    GoldenMessage,
    alone,
)
from tests.unit.vendors.teltonika.strategies import unsigned
from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.envelope import decode_frame, encode_frame
from tracker.vendors.teltonika.messages import (
    MAX_MESSAGES,
    MESSAGE_CODECS,
    Message,
    Messages,
    count_messages,
    decode_messages,
    encode_message,
    encode_messages,
)

each_golden = pytest.mark.parametrize("golden", GOLDEN_MESSAGES, ids=lambda golden: golden.name)
each_frame = pytest.mark.parametrize(
    "golden", [*GOLDEN_MESSAGES, TWO_PARTS_12], ids=lambda golden: golden.name
)
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
        draw(st.integers(1000, 2**32 - 1)) if codec.timed else None,
        draw(imeis) if codec.addressed else None,
    )


def rejection(data: bytes) -> Rejected:
    """Return the rejection of ``data``, which covers all of it."""
    outcome = decode_messages(data)
    assert isinstance(outcome, Rejected)
    assert outcome.used == len(data)
    assert 0 <= outcome.offset <= len(data)
    assert outcome.reason
    return outcome


def with_payload(codec_id: int, payload: bytes) -> bytes:
    """Return the data of a message with this payload and a correct size."""
    return bytes((codec_id, 1, 0x06)) + len(payload).to_bytes(4, "big") + payload + b"\x01"


# Golden messages.


@each_frame
def test_golden_message_is_decoded(golden: GoldenMessage) -> None:
    assert decode_messages(golden.data) == Decoded(golden.messages, len(golden.data))


@each_frame
def test_golden_message_is_encoded_byte_for_byte(golden: GoldenMessage) -> None:
    assert encode_messages(golden.messages) == golden.data
    assert encode_frame(golden.data) == golden.frame


@each_frame
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
    assert outcome.reason == f"size {size:,} does not match the payload of 7 bytes"


@each_codec
@pytest.mark.parametrize("length", [1, 2, 4, 5, 6, 7])
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
    assert decode_messages(data) == Decoded(alone(expected), len(data))


@each_golden
@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 2), (255, 1)])
def test_quantities_in_a_message_are_ignored(golden: GoldenMessage, first: int, last: int) -> None:
    data = golden.data[:1] + bytes((first,)) + golden.data[2:-1] + bytes((last,))
    assert decode_messages(data) == Decoded(golden.messages, len(data))


@pytest.mark.parametrize("golden", [COMMAND_12, ANSWER_12, SERIAL_13], ids=lambda g: g.name)
def test_message_may_have_an_empty_payload(golden: GoldenMessage) -> None:
    empty = attrs.evolve(golden.message, content=b"")
    data = encode_message(empty)
    assert decode_messages(data) == Decoded(alone(empty), len(data))


# Times.

YEAR_2000 = 946_684_800
PRINTABLE = string.printable.removesuffix("\x0b\x0c")
#: Four bytes of a device that was switched on a short time ago, and does not know the time.
SINCE_POWER_ON = range(220, 1000)
not_text = st.binary(min_size=4, max_size=4).filter(
    lambda low: any(byte not in b"\t\r\n" and not 0x20 <= byte < 0x7F for byte in low)
)


def timed(payload: bytes) -> Message:
    """Return the message of Codec 13 with this payload, which includes the time."""
    outcome = decode_messages(with_payload(0x0D, payload))
    assert isinstance(outcome, Decoded)
    (message,) = outcome.value.parts
    return message


@given(unsigned(4).filter(lambda time: time not in SINCE_POWER_ON), st.binary(max_size=20))
def test_time_of_four_bytes_is_read_as_seconds_before_any_content(
    seconds: int, content: bytes
) -> None:
    message = timed(seconds.to_bytes(4, "big") + content)
    assert (message.timestamp, message.content) == (seconds, content)
    assert message.milliseconds == seconds * 1000


@given(st.sampled_from(SINCE_POWER_ON), st.text(PRINTABLE, max_size=20))
def test_time_of_four_bytes_before_text_is_read_as_seconds(seconds: int, text: str) -> None:
    message = timed(seconds.to_bytes(4, "big") + text.encode())
    assert message.timestamp == seconds


@given(
    st.integers(221, 999).map(lambda high: high.to_bytes(4, "big")),
    not_text,
    st.binary(max_size=20),
)
def test_time_of_eight_bytes_is_read_as_milliseconds(
    high: bytes, low: bytes, content: bytes
) -> None:
    message = timed(high + low + content)
    assert message.timestamp == message.milliseconds == int.from_bytes(high + low, "big")
    assert message.content == content


@pytest.mark.parametrize(
    ("payload", "timestamp"),
    [
        ("000000DC 6ACFABFF", 220),  # a millisecond before the year 2000
        ("000000DC 6ACFAC00", YEAR_2000 * 1000),
        ("000003E7 FFFFFFFF", 2**32 * 1000 - 1),
        ("000003E8 00000000", 1000),
        ("0000016C 0A81C3", 364),  # too short for eight bytes
        ("0000016C 0A81C320", 1_563_544_372_000),
        ("0000016C 0A412020", 364),  # a new line and text
        ("0000016C 7F412020", 0x16C7F412020),
    ],
)
def test_limits_of_times_of_eight_bytes_are_exact(payload: str, timestamp: int) -> None:
    assert timed(bytes.fromhex(payload)).timestamp == timestamp


@given(st.sampled_from(SINCE_POWER_ON), not_text)
def test_time_of_codec_15_always_has_four_bytes(seconds: int, low: bytes) -> None:
    payload = seconds.to_bytes(4, "big") + bytes.fromhex("0352093081452251") + low
    outcome = decode_messages(with_payload(0x0F, payload))
    assert isinstance(outcome, Decoded)
    assert outcome.value.parts[0].timestamp == seconds


# Frames with another number of messages than one.


@each_codec
def test_frame_without_messages_is_decoded(codec_id: int) -> None:
    data = bytes((codec_id, 0, 0))
    assert decode_messages(data) == Decoded(Messages(MESSAGE_CODECS[codec_id], ()), 3)
    assert encode_messages(Messages(MESSAGE_CODECS[codec_id], ())) == data
    assert count_messages(data) == 0


@pytest.mark.parametrize(("first", "last"), [(0, 0), (1, 1), (2, 1), (3, 255)])
def test_quantities_of_several_messages_are_ignored(first: int, last: int) -> None:
    data = TWO_PARTS_12.data[:1] + bytes((first,)) + TWO_PARTS_12.data[2:-1] + bytes((last,))
    assert decode_messages(data) == Decoded(TWO_PARTS_12.messages, len(data))


def test_each_part_has_its_own_type_time_and_imei() -> None:
    codec = MESSAGE_CODECS[0x0F]
    parts = (
        Message(codec, 0x0B, b"a", 1_699_440_036, "123456789123456"),
        Message(codec, 0x05, b"", 1_699_440_037, "352093081452251"),
    )
    data = encode_messages(Messages(codec, parts))
    assert decode_messages(data) == Decoded(Messages(codec, parts), len(data))


def test_frame_with_an_incomplete_second_message_is_rejected() -> None:
    for size in range(14, len(TWO_PARTS_12.data)):
        outcome = rejection(TWO_PARTS_12.data[:size])
        assert (outcome.offset, outcome.field) == (12, "message")


def test_number_of_messages_in_a_frame_is_limited() -> None:
    part = bytes.fromhex("06 00000000")
    outcome = decode_messages(b"\x0c\xff" + part * 255 + b"\xff")
    assert isinstance(outcome, Decoded)
    assert len(outcome.value.parts) == MAX_MESSAGES
    assert rejection(b"\x0c\xff" + part * 256 + b"\xff").offset == 2 + 255 * 5
    assert count_messages(b"\x0c\xff" + part * 256 + b"\xff") == MAX_MESSAGES


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


def test_quantities_without_messages_are_not_encoded() -> None:
    empty = Messages(MESSAGE_CODECS[0x0C], (), (1, 1))
    with pytest.raises(ValueError, match="both quantities are 0"):
        encode_messages(empty)


@pytest.mark.parametrize("type_", [-1, 256])
def test_message_with_a_type_out_of_range_is_not_encoded(type_: int) -> None:
    with pytest.raises(ValueError, match="codec 12 cannot encode"):
        encode_message(attrs.evolve(COMMAND_12.message, type=type_))


# Properties.


@given(st.lists(messages(), min_size=1, max_size=4))
def test_encoded_messages_decode_to_themselves(drawn: list[Message]) -> None:
    codec = drawn[0].codec
    content = Messages(codec, tuple(one for one in drawn if one.codec is codec))
    data = encode_messages(content)
    outcome = decode_messages(data)
    assert outcome == Decoded(content, len(data))
    assert outcome.value.quantities == content.quantities
    assert count_messages(data) == len(content.parts)


def check(data: bytes) -> None:
    """Assert that decoding has an outcome; decoded messages encode to the same bytes."""
    outcome = decode_messages(data)
    if isinstance(outcome, Decoded):
        assert outcome.used == len(data)
        assert encode_messages(outcome.value) == data
        assert count_messages(data) == len(outcome.value.parts)
    else:
        rejection(data)
        assert len(data) < 3 or count_messages(data) >= 1


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
