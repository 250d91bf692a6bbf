"""Commands to a device, and what it answers or says unasked: Codecs 12, 13, 14 and 15.

The data of such a frame is codec id, quantity 1, type, size (u32), payload and
quantity 2; the quantities mean nothing. In front of the text, the payload of Codec
13 has a time, that of Codec 14 the IMEI, that of Codec 15 both. None of these frames
is ever acknowledged with a count.
Source: Teltonika wiki, "Codec", chapters "Codec for communication over GPRS messages".
That Codec 13's time is in seconds is what captured frames show.
"""

from __future__ import annotations

import struct
from codecs import utf_8_decode
from typing import Final

from attrs import field, frozen

from tracker.outcomes import Decoded, Rejected

COMMAND: Final = 0x05
RESPONSE: Final = 0x06
#: Codec 14: the IMEI in the command is not this device's.
NACK: Final = 0x11

_HEADER: Final = struct.Struct(">BBBI")
_TIME: Final = struct.Struct(">I")
_BYTE: Final = struct.Struct("B")
_IMEI_BYTES: Final = 8
_IMEI_DIGITS: Final = 15


@frozen
class MessageCodec:
    """What one codec puts in front of the text."""

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
    """One command, answer or message."""

    codec: MessageCodec
    type: int
    """:data:`COMMAND`, :data:`RESPONSE`, :data:`NACK`; arbitrary in Codec 15."""
    content: bytes
    """The text, or whatever came over the device's serial port."""
    timestamp: int | None = None
    """Seconds since 1970 (UTC), in Codecs 13 and 15."""
    imei: str | None = None
    """In Codecs 14 and 15."""
    quantities: tuple[int, int] = field(default=(1, 1), eq=False)
    """The counts at both ends, which mean nothing."""

    @property
    def text(self) -> str | None:
        """The content as people read it; None where it is no printable text."""
        return _printable(self.content)


def _printable(content: bytes) -> str | None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    # A loop over the characters would take twenty times as long as methods of the whole text.
    bare = text.replace("\t", "").replace("\r", "").replace("\n", "")
    return text if bare.isprintable() else None


def beginning(content: bytes, limit: int) -> bytes:
    """Return at most ``limit`` bytes of a text in UTF-8, without half a character at the end."""
    _, used = utf_8_decode(content[:limit], "replace", False)
    return content[:used]


def decode_message(data: bytes) -> Decoded[Message] | Rejected:
    """Read the data of a frame whose checksum was right and whose codec is one of these."""
    length = len(data)
    codec = MESSAGE_CODECS[data[0]]
    if length < _HEADER.size + 1:
        return Rejected(
            length,
            length,
            f"{length} bytes are too short for a message",
            field="data",
            expected=f"{_HEADER.size + 1} bytes or more",
            found=f"{length} bytes",
        )
    _, quantity, type_, size = _HEADER.unpack_from(data)
    offset = _HEADER.size
    end = length - 1
    if size != end - offset:
        return Rejected(
            length,
            3,
            f"a size of {size} where {end - offset} bytes follow",
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
                "the time runs past the message's end",
                field="timestamp",
                expected=f"{_TIME.size} bytes",
                found=f"{end - offset} bytes",
            )
        (timestamp,) = _TIME.unpack_from(data, offset)
        offset += _TIME.size
    if codec.addressed:
        digits = data[offset : min(offset + _IMEI_BYTES, end)].hex()
        if len(digits) < 2 * _IMEI_BYTES or digits[0] != "0" or not digits.isdecimal():
            return Rejected(
                length,
                offset,
                f"an IMEI of the packed digits {digits!r}",
                field="imei",
                expected=f"0 and {_IMEI_DIGITS} digits, packed",
                found=digits or "nothing",
            )
        imei = digits[1:]
        offset += _IMEI_BYTES
    quantities = quantity, data[end]
    return Decoded(Message(codec, type_, data[offset:end], timestamp, imei, quantities), length)


def encode_message(message: Message) -> bytes:
    """The data of a frame: the inverse of :func:`decode_message`.

    :raises ValueError: when the codec needs a time or an IMEI that is missing, or has
        no place for one that is given, or a value does not fit.
    """
    codec = message.codec
    if codec.timed is not (message.timestamp is not None):
        raise ValueError(f"codec {codec.name}: a time belongs to Codecs 13 and 15, always")
    if codec.addressed is not (message.imei is not None):
        raise ValueError(f"codec {codec.name}: an IMEI belongs to Codecs 14 and 15, always")
    try:
        time = b"" if message.timestamp is None else _TIME.pack(message.timestamp)
        imei = b"" if message.imei is None else _pack_imei(message.imei)
        payload = time + imei + message.content
        before, after = message.quantities
        header = _HEADER.pack(codec.codec_id, before, message.type, len(payload))
        return header + payload + _BYTE.pack(after)
    except struct.error as error:
        raise ValueError(f"codec {codec.name} cannot carry the message: {error}") from None


def _pack_imei(imei: str) -> bytes:
    if len(imei) != _IMEI_DIGITS or not (imei.isascii() and imei.isdigit()):
        raise ValueError(f"an IMEI has {_IMEI_DIGITS} digits: {imei!r}")
    return bytes.fromhex("0" + imei)
