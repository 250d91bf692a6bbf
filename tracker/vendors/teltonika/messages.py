"""Commands to a device, its answers and its unsolicited messages: Codecs 12, 13, 14 and 15.

The data of such a frame is codec id, quantity 1, the messages, and quantity 2. A message is type,
size (u32) and payload. Nearly all frames have one message; the sizes tell how many there are, and
the quantities are not needed to read them. Before the text, the payload of Codec 13 has a time,
that of Codec 14 the IMEI, that of Codec 15 both. Over TCP these frames have no ACK.
Source: Teltonika wiki, "Codec", chapters "Codec for communication over GPRS messages". Captured
frames show that the time of Codec 13 is in seconds, in four bytes. An example in older
documentation has milliseconds in eight bytes, see :func:`_time`.
"""

from __future__ import annotations

import struct
from codecs import utf_8_decode
from collections.abc import Iterator
from typing import Final

from attrs import field, frozen

from tracker.outcomes import Decoded, Rejected
from tracker.wording import counted

COMMAND: Final = 0x05
RESPONSE: Final = 0x06
#: Codec 14: the IMEI in the command is not that of the device.
NACK: Final = 0x11

#: Maximum number of messages in a frame: its quantity has one byte.
MAX_MESSAGES: Final = 255

#: Times of eight bytes are in this range, in milliseconds since 1970 (UTC): the years 2000 to 2106.
#: Times of four bytes are below it, in seconds.
EIGHT_BYTE_TIMES: Final = range(946_684_800_000, 4_294_967_296_000)

_QUANTITY: Final = 1  # offset of quantity 1
_FIRST: Final = 2  # offset of the first message
_HEAD: Final = struct.Struct(">BI")  # type and size
_MIN_BYTES: Final = _FIRST + _HEAD.size + 1
_EMPTY_BYTES: Final = 3
_SECONDS: Final = struct.Struct(">I")
_MILLISECONDS: Final = struct.Struct(">Q")
_TEXT: Final = frozenset((*b"\t\r\n", *range(0x20, 0x7F)))
_IMEI_BYTES: Final = 8
_IMEI_DIGITS: Final = 15
_BYTE: Final = struct.Struct("B")


@frozen
class MessageCodec:
    """Fields of one codec before the text."""

    name: str
    codec_id: int
    timed: bool
    addressed: bool


MESSAGE_CODECS: Final = {
    codec.codec_id: codec
    for codec in (
        MessageCodec("12", 0x0C, timed=False, addressed=False),
        MessageCodec("13", 0x0D, timed=True, addressed=False),
        MessageCodec("14", 0x0E, timed=False, addressed=True),
        MessageCodec("15", 0x0F, timed=True, addressed=True),
    )
}


@frozen
class Message:
    """A command, an answer or an unsolicited message."""

    codec: MessageCodec
    type: int
    """:data:`COMMAND`, :data:`RESPONSE`, :data:`NACK`; arbitrary in Codec 15."""
    content: bytes
    """The text, or bytes from the serial port of the device."""
    timestamp: int | None = None
    """Time in Codecs 13 and 15, as on the wire: seconds since 1970 (UTC), or, in Codec 13,
    milliseconds in :data:`EIGHT_BYTE_TIMES`."""
    imei: str | None = None
    """IMEI in Codecs 14 and 15."""

    @property
    def milliseconds(self) -> int | None:
        """The time in milliseconds since 1970 (UTC)."""
        if self.timestamp is None or self.timestamp in EIGHT_BYTE_TIMES:
            return self.timestamp
        return self.timestamp * 1000

    @property
    def text(self) -> str | None:
        """The content as text; None if it is not printable."""
        return _printable(self.content)


@frozen
class Messages:
    """The messages of one frame: nearly always one, at most :data:`MAX_MESSAGES`."""

    codec: MessageCodec
    parts: tuple[Message, ...]
    quantities: tuple[int, int] = field(eq=False)
    """The counts at both ends. They are those of the messages, but do not have to be."""

    @quantities.default
    def _count(self) -> tuple[int, int]:
        return len(self.parts), len(self.parts)


def _printable(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    # A loop over the characters takes twenty times as long as methods of the whole text.
    bare = text.replace("\t", "").replace("\r", "").replace("\n", "")
    return text if bare.isprintable() else None


def beginning(content: bytes, limit: int) -> bytes:
    """Return at most ``limit`` bytes of a text in UTF-8, without an incomplete last character."""
    _, used = utf_8_decode(content[:limit], "replace", False)
    return content[:used]


def count_messages(data: bytes) -> int:
    """Return the number of messages in the data of a frame, without decoding them.

    A frame that :func:`decode_messages` rejects counts as one message or more.
    """
    if _is_empty(data):
        return 0
    return max(1, sum(1 for _ in _parts(data)))


def decode_messages(data: bytes) -> Decoded[Messages] | Rejected:
    """Decode the data of a frame in one of :data:`MESSAGE_CODECS` with a correct checksum.

    :return: ``Rejected`` if the sizes of the messages do not add up to that of the data, or if a
        time or an IMEI is malformed.
    """
    length = len(data)
    codec = MESSAGE_CODECS[data[0]]
    if _is_empty(data):
        return Decoded(Messages(codec, ()), length)
    if length < _MIN_BYTES:
        return Rejected(
            length,
            length,
            f"message of {counted(length, 'byte')} is too short: the minimum is {_MIN_BYTES}",
            field="data",
            expected=f"{_MIN_BYTES} bytes or more",
            found=counted(length, "byte"),
        )
    messages: list[Message] = []
    end = _FIRST
    for start, end in _parts(data):
        part = _decode_part(codec, data, start, end)
        if isinstance(part, Rejected):
            return part
        messages.append(part)
    if end != length - 1:
        return _wrong_size(data, len(messages), end)
    return Decoded(Messages(codec, tuple(messages), (data[_QUANTITY], data[-1])), length)


def _is_empty(data: bytes) -> bool:
    """Return True for a frame that consists of quantities of 0."""
    return len(data) == _EMPTY_BYTES and not (data[_QUANTITY] or data[-1])


def _parts(data: bytes) -> Iterator[tuple[int, int]]:
    """Return the start and the end of each message; stop before one that exceeds the data."""
    start, limit = _FIRST, len(data) - 1
    for _ in range(MAX_MESSAGES):
        end = start + _HEAD.size
        if end > limit:
            return
        end += _HEAD.unpack_from(data, start)[1]
        if end > limit:
            return
        yield start, end
        start = end


def _wrong_size(data: bytes, number: int, offset: int) -> Rejected:
    """Return the error of data whose first messages fit, but end before the second quantity.

    :param number: number of messages that fit.
    :param offset: the end of the last one.
    """
    length = len(data)
    if number == 0 or data[_QUANTITY] <= 1:
        (size,) = _SECONDS.unpack_from(data, _FIRST + 1)
        follow = length - 1 - _FIRST - _HEAD.size
        return Rejected(
            length,
            _FIRST + 1,
            f"size {size:,} does not match the payload of {counted(follow, 'byte')}",
            field="size",
            expected=str(follow),
            found=str(size),
        )
    rest = counted(length - 1 - offset, "byte")
    return Rejected(
        length,
        offset,
        f"{rest} after message {number} are not another message",
        field="message",
        expected=f"a message, or the end after message {number}",
        found=rest,
    )


def _decode_part(codec: MessageCodec, data: bytes, start: int, end: int) -> Message | Rejected:
    length = len(data)
    type_ = data[start]
    offset = start + _HEAD.size
    timestamp = imei = None
    if codec.timed:
        if end - offset < _SECONDS.size:
            return Rejected(
                length,
                offset,
                "time extends past the end of the message",
                field="timestamp",
                expected=counted(_SECONDS.size, "byte"),
                found=counted(end - offset, "byte"),
            )
        timestamp, size = _time(data[offset:end], may_be_long=not codec.addressed)
        offset += size
    if codec.addressed:
        digits = data[offset : min(offset + _IMEI_BYTES, end)].hex()
        if len(digits) < 2 * _IMEI_BYTES or digits[0] != "0" or not digits.isdecimal():
            return Rejected(
                length,
                offset,
                f"packed IMEI {digits!r} is invalid: 0 and {_IMEI_DIGITS} digits are required",
                field="imei",
                expected=f"0 and {_IMEI_DIGITS} digits, packed",
                found=digits or "nothing",
            )
        imei = digits[1:]
        offset += _IMEI_BYTES
    return Message(codec, type_, data[offset:end], timestamp, imei)


def _time(payload: bytes, may_be_long: bool) -> tuple[int, int]:
    """Return the time at the start of a payload as on the wire, and its size in bytes.

    The first four bytes of a time of eight bytes are 220 to 999. As seconds, they are a time
    between 00:03 and 00:17 on 1 January 1970: a device has it only in the first quarter of an hour
    after it was switched on, and before it knows the time. What then follows the seconds is mostly
    text, but hardly ever in a time of eight bytes; so text decides for four bytes.

    :param may_be_long: False in a codec whose time always has four bytes.
    """
    (seconds,) = _SECONDS.unpack_from(payload)
    if may_be_long and len(payload) >= _MILLISECONDS.size:
        (milliseconds,) = _MILLISECONDS.unpack_from(payload)
        low = payload[_SECONDS.size : _MILLISECONDS.size]
        if milliseconds in EIGHT_BYTE_TIMES and not _TEXT.issuperset(low):
            return milliseconds, _MILLISECONDS.size
    return seconds, _SECONDS.size


def encode_message(message: Message) -> bytes:
    """Return the data of a frame with this message alone; see :func:`encode_messages`."""
    return encode_messages(Messages(message.codec, (message,)))


def encode_messages(messages: Messages) -> bytes:
    """Return the data of a frame with these messages: the inverse of :func:`decode_messages`.

    :raises ValueError: if a time or an IMEI is missing or superfluous in this codec, or if a value
        does not fit its field.
    """
    codec = messages.codec
    if not messages.parts and messages.quantities != (0, 0):
        raise ValueError("without messages, both quantities are 0")
    try:
        before, after = (_BYTE.pack(quantity) for quantity in messages.quantities)
        parts = map(_encode_part, messages.parts)
        return b"".join((_BYTE.pack(codec.codec_id), before, *parts, after))
    except struct.error as error:
        raise ValueError(f"codec {codec.name} cannot encode the message: {error}") from None


def _encode_part(message: Message) -> bytes:
    codec = message.codec
    if codec.timed is not (message.timestamp is not None):
        raise ValueError(
            f"codec {codec.name}: a time is required in Codecs 13 and 15, and only there"
        )
    if codec.addressed is not (message.imei is not None):
        raise ValueError(
            f"codec {codec.name}: an IMEI is required in Codecs 14 and 15, and only there"
        )
    time = b""
    if message.timestamp is not None:
        is_long = not codec.addressed and message.timestamp in EIGHT_BYTE_TIMES
        time = (_MILLISECONDS if is_long else _SECONDS).pack(message.timestamp)
    imei = b"" if message.imei is None else _pack_imei(message.imei)
    payload = time + imei + message.content
    return _HEAD.pack(message.type, len(payload)) + payload


def _pack_imei(imei: str) -> bytes:
    if len(imei) != _IMEI_DIGITS or not (imei.isascii() and imei.isdigit()):
        raise ValueError(f"{imei!r} is not an IMEI: an IMEI has {_IMEI_DIGITS} digits")
    return bytes.fromhex("0" + imei)
