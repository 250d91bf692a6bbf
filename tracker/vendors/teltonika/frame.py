"""The envelope of every Teltonika frame over TCP.

Preamble of four zero bytes, data length (u32), data, CRC (u32); big-endian. The
CRC-16/ARC covers the data, which runs from the codec id to the second count.
Source: Teltonika wiki, "Codec", chapter "Codec for device data sending".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from fastcrc.crc16 import arc as crc16

from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.vendors.teltonika.avl import SHORTEST_DATA
from tracker.vendors.teltonika.messages import MESSAGE_CODECS

PREAMBLE: Final = bytes(4)
#: Sent between frames, and before the login, to keep a NAT entry alive; never answered.
PING: Final = 0xFF

_HEADER: Final = 8
_CRC: Final = 4
_WORD: Final = struct.Struct(">I").unpack_from
_ENVELOPE: Final = _HEADER + _CRC


def decode_frame(
    buffer: bytes | bytearray, max_data: int, max_message_data: int = 0
) -> Decoded[bytes] | Incomplete | Fatal:
    """Take the data of one frame from the start of ``buffer``.

    :param max_data: largest data length, in bytes, of a frame of records that is waited for.
    :param max_message_data: the same for a command or message; 0: as for records.
    :return: the data, with the whole frame's size as ``used``. There is no
        ``Rejected`` here: after a bad length or checksum the next frame's start is a
        guess, since the preamble's zeros occur inside records too.
    """
    size = len(buffer)
    if not buffer.startswith(PREAMBLE[:size]):
        preamble = buffer[: len(PREAMBLE)]
        return Fatal(
            0,
            "no preamble of zeros",
            field="preamble",
            expected=PREAMBLE[: len(preamble)].hex(),
            found=preamble.hex(),
        )
    if size < _HEADER:
        return Incomplete(_HEADER - size)
    (length,) = _WORD(buffer, len(PREAMBLE))
    if length < SHORTEST_DATA:
        return Fatal(
            4,
            f"data length {length}: too short for a frame",
            field="length",
            expected=f"{SHORTEST_DATA} or more",
            found=str(length),
        )
    limit = max(max_data, max_message_data)
    if max_message_data and min(max_data, max_message_data) < length <= limit:
        if size == _HEADER:
            return Incomplete(1)  # the codec id decides
        limit = max_message_data if buffer[_HEADER] in MESSAGE_CODECS else max_data
    if length > limit:
        return Fatal(
            4,
            f"data length {length} is over the limit of {limit}",
            field="length",
            expected=f"{limit} or less",
            found=str(length),
        )
    end = _HEADER + length
    if size < end + _CRC:
        return Incomplete(end + _CRC - size)
    data = bytes(buffer[_HEADER:end])
    (carried,) = _WORD(buffer, end)
    computed = crc16(data)
    if carried != computed:
        return Fatal(
            end,
            f"CRC {carried:#010x} where {computed:#010x} is due",
            field="crc",
            expected=f"{computed:#010x}",
            found=f"{carried:#010x}",
        )
    return Decoded(data, length + _ENVELOPE)


def find_message(
    buffer: bytearray, start: int, wanted: Callable[[bytes], bool]
) -> tuple[int, bytes | None]:
    """Search whole frames of messages for one, without removing any of them.

    :param start: offset of a frame or a ping.
    :param wanted: returns whether the data of a message are wanted.
    :return: offset and data of the wanted frame; if there is none, the offset at which to
        continue after more bytes have arrived, and None.
    """
    size = len(buffer)
    while start + _HEADER < size:
        if buffer[start] == PING:
            start += 1
            continue
        end = start + _ENVELOPE + int.from_bytes(buffer[start + 4 : start + _HEADER], "big")
        if buffer[start + _HEADER] not in MESSAGE_CODECS or end > size:
            break
        frame = decode_frame(buffer[start:end], end - start)
        if not isinstance(frame, Decoded):
            break
        if wanted(frame.value):
            return start, frame.value
        start = end
    return start, None


def frame_size(data: bytes) -> int:
    """Return the size of the frame with this data."""
    return len(data) + _ENVELOPE


def encode_frame(data: bytes) -> bytes:
    """Wrap ``data`` (codec id to second count) in an envelope."""
    return b"".join(
        (PREAMBLE, len(data).to_bytes(4, "big"), data, crc16(data).to_bytes(_CRC, "big"))
    )
