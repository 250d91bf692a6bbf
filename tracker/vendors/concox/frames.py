"""Frames of the GT06 protocol: start, length, number, content, serial number, checksum, stop.

The content may contain the bytes of a start and of a stop, so a frame is found by its length.
Garbage before a frame, or a frame without its stop bytes, is skipped up to the next start.
Source: GT06 protocol 1.8 and Concox protocol 3.1, chapters on the format of packets, which name
the checksum CRC-ITU; its parameters are those of CRC-16/X-25.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from fastcrc.crc16 import ibm_sdlc as crc16

from tracker.outcomes import Decoded, Incomplete, Rejected
from tracker.wording import counted

SHORT_START: Final = b"\x78\x78"
EXTENDED_START: Final = b"\x79\x79"
STOP: Final = b"\r\n"

#: Minimum value of a frame's length: number, serial number and checksum, without content.
MIN_LENGTH: Final = 5
#: Maximum value of the length of a short frame, and of an extended one.
MAX_SHORT_LENGTH: Final = 0xFF
MAX_LENGTH: Final = 0xFFFF

_START: Final = re.compile(re.escape(SHORT_START) + b"|" + re.escape(EXTENDED_START))
_STARTS: Final = SHORT_START + EXTENDED_START
_CRC: Final = 2


class Frame(NamedTuple):
    """A frame, without what only delimits and protects it."""

    number: int
    """The protocol number, which gives the content its meaning."""
    content: bytes = b""
    serial: int = 0
    """Counts the packets of the sender, from 1; it wraps after 65,535."""
    extended: bool = False
    """True if the length has two bytes."""


def decode_frame(
    data: bytes | bytearray, max_length: int = MAX_LENGTH
) -> Decoded[Frame] | Incomplete | Rejected:
    """Decode the frame at the start of ``data``.

    :param data: not empty.
    :param max_length: maximum value of the length.
    :return: ``Rejected`` with the bytes up to the next start if a frame does not begin here, or
        with the whole frame if only its checksum is wrong.
    """
    start = data[:2]
    if start == SHORT_START:
        header, extended = 3, False
    elif start == EXTENDED_START:
        header, extended = 4, True
    elif len(start) < 2 and start[0] in _STARTS:
        return Incomplete(1)
    else:
        expected = f"{SHORT_START.hex()} or {EXTENDED_START.hex()}"
        return _not_a_frame(
            data, 0, "no start of a frame", field="preamble", values=(expected, start.hex())
        )
    if len(data) < header:
        return Incomplete(header - len(data))
    length = data[2] if header == 3 else data[2] << 8 | data[3]
    if not MIN_LENGTH <= length <= max_length:
        reason = f"length {length} is not between {MIN_LENGTH} and {max_length}"
        bounds = f"{MIN_LENGTH} to {max_length}"
        return _not_a_frame(data, 2, reason, field="length", values=(bounds, str(length)))
    end = header + length
    missing = end + len(STOP) - len(data)
    if missing > 0:
        return Incomplete(missing)
    stop = data[end : end + len(STOP)]
    if stop != STOP:
        reason = f"no stop bytes after length {length}"
        return _not_a_frame(data, end, reason, field="stop", values=(STOP.hex(), stop.hex()))
    frame = bytes(data[:end])
    carried = frame[-2] << 8 | frame[-1]
    computed = crc16(frame[2:-_CRC])
    if carried != computed:
        return Rejected(
            end + len(STOP),
            end - _CRC,
            "CRC does not match",
            field="crc",
            expected=f"{computed:04x}",
            found=f"{carried:04x}",
        )
    value = Frame(frame[header], frame[header + 1 : -4], frame[-4] << 8 | frame[-3], extended)
    return Decoded(value, end + len(STOP))


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame: the inverse of :func:`decode_frame`.

    :raises ValueError: if the content is too long, or a number does not fit its field.
    """
    number, content, serial, extended = frame
    length = len(content) + MIN_LENGTH
    most = MAX_LENGTH if extended else MAX_SHORT_LENGTH
    if length > most:
        kind = "an extended" if extended else "a short"
        raise ValueError(
            f"content of {counted(len(content), 'byte')} is too long: {kind} frame has "
            f"{most - MIN_LENGTH} or less"
        )
    if not (0 <= number <= 0xFF and 0 <= serial <= 0xFFFF):
        raise ValueError(f"number {number} or serial {serial} does not fit its field")
    protected = b"".join(
        (
            length.to_bytes(2 if extended else 1, "big"),
            bytes((number,)),
            content,
            serial.to_bytes(2, "big"),
        )
    )
    start = EXTENDED_START if extended else SHORT_START
    return b"".join((start, protected, crc16(protected).to_bytes(_CRC, "big"), STOP))


def acknowledgement(frame: Frame) -> bytes:
    """Return the server's answer to a frame: its number and serial, always in a short frame."""
    return encode_frame(Frame(frame.number, b"", frame.serial))


def frame_end(data: bytes | bytearray, offset: int) -> int:
    """Return the end of the frame at an offset, by its header alone; it may be past the data.

    :return: ``offset`` if no frame begins there, or its header is incomplete.
    """
    start = data[offset : offset + 2]
    if start == SHORT_START and offset + 2 < len(data):
        return offset + 3 + data[offset + 2] + len(STOP)
    if start == EXTENDED_START and offset + 3 < len(data):
        return offset + 4 + (data[offset + 2] << 8 | data[offset + 3]) + len(STOP)
    return offset


def _not_a_frame(
    data: bytes | bytearray, offset: int, reason: str, *, field: str, values: tuple[str, str]
) -> Rejected:
    """Reject the bytes up to the next start.

    :param values: expected and found value of the field.
    """
    found = _START.search(data, 1)
    if found is not None:
        used = found.start()
    else:  # the last byte may be the first one of a start
        used = len(data) - (len(data) > 1 and data[-1] in _STARTS)
    return Rejected(used, offset, reason, field=field, expected=values[0], found=values[1])
