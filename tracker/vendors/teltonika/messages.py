"""Commands to a device, its answers and its unsolicited messages: Codecs 12, 13, 14 and 15.

The data of such a frame is codec id, quantity 1, type, size (u32), payload and quantity 2; the
quantities have no meaning. Before the text, the payload of Codec 13 has a time, that of Codec 14
the IMEI, that of Codec 15 both. These frames have no ACK.
Source: Teltonika wiki, "Codec", chapters "Codec for communication over GPRS messages". Captured
frames show that the time of Codec 13 is in seconds.
"""

from __future__ import annotations

import struct
from codecs import utf_8_decode
from typing import Final

from attrs import field, frozen

from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.sizes import byte_count

COMMAND: Final = 0x05
RESPONSE: Final = 0x06
#: Codec 14: the IMEI in the command is not that of the device.
NACK: Final = 0x11

_HEADER: Final = struct.Struct(">BBBI")
_TIME: Final = struct.Struct(">I")
_BYTE: Final = struct.Struct("B")
_IMEI_BYTES: Final = 8
_IMEI_DIGITS: Final = 15


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
    """Seconds since 1970 (UTC), in Codecs 13 and 15."""
    imei: str | None = None
    """IMEI in Codecs 14 and 15."""
    quantities: tuple[int, int] = field(default=(1, 1), eq=False)
    """The counts at both ends; they have no meaning."""

    @property
    def text(self) -> str | None:
        """The content as text; None if it is not printable."""
        return _printable(self.content)


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


def decode_message(data: bytes) -> Decoded[Message] | Rejected:
    """Decode the data of a frame in one of :data:`MESSAGE_CODECS` with a correct checksum."""
    length = len(data)
    codec = MESSAGE_CODECS[data[0]]
    if length < _HEADER.size + 1:
        return Rejected(
            length,
            length,
            f"message of {byte_count(length)} is too short: the minimum is {_HEADER.size + 1}",
            field="data",
            expected=f"{_HEADER.size + 1} bytes or more",
            found=byte_count(length),
        )
    _, quantity, type_, size = _HEADER.unpack_from(data)
    offset = _HEADER.size
    end = length - 1
    if size != end - offset:
        return Rejected(
            length,
            3,
            f"size {size} does not match the payload of {byte_count(end - offset)}",
            field="size",
            expected=str(end - offset),
            found=str(size),
        )
    timestamp = imei = None
    if codec.timed:
        if end - offset < _TIME.size:
            return Rejected(
                length,
                offset,
                "time extends past the end of the message",
                field="timestamp",
                expected=f"{_TIME.size} bytes",
                found=byte_count(end - offset),
            )
        (timestamp,) = _TIME.unpack_from(data, offset)
        offset += _TIME.size
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
    quantities = quantity, data[end]
    return Decoded(Message(codec, type_, data[offset:end], timestamp, imei, quantities), length)


def encode_message(message: Message) -> bytes:
    """Return the data of a frame with this message: the inverse of :func:`decode_message`.

    :raises ValueError: if a time or an IMEI is missing or superfluous in this codec, or if a value
        does not fit its field.
    """
    codec = message.codec
    if codec.timed is not (message.timestamp is not None):
        raise ValueError(
            f"codec {codec.name}: a time is required in Codecs 13 and 15, and only there"
        )
    if codec.addressed is not (message.imei is not None):
        raise ValueError(
            f"codec {codec.name}: an IMEI is required in Codecs 14 and 15, and only there"
        )
    try:
        time = b"" if message.timestamp is None else _TIME.pack(message.timestamp)
        imei = b"" if message.imei is None else _pack_imei(message.imei)
        payload = time + imei + message.content
        before, after = message.quantities
        header = _HEADER.pack(codec.codec_id, before, message.type, len(payload))
        return header + payload + _BYTE.pack(after)
    except struct.error as error:
        raise ValueError(f"codec {codec.name} cannot encode the message: {error}") from None


def _pack_imei(imei: str) -> bytes:
    if len(imei) != _IMEI_DIGITS or not (imei.isascii() and imei.isdigit()):
        raise ValueError(f"{imei!r} is not an IMEI: an IMEI has {_IMEI_DIGITS} digits")
    return bytes.fromhex("0" + imei)
