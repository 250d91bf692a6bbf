"""The envelope of AVL data and messages over TCP.

Preamble of four zero bytes, data length (u32), data, CRC-16/ARC of the data (u32); big-endian.
The data extends from the codec id to the second count.
Source: Teltonika wiki, "Codec", chapter "Codec for device data sending".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from fastcrc.crc16 import arc as crc16

from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.vendors.teltonika.avl import MIN_DATA_BYTES
from tracker.vendors.teltonika.messages import MESSAGE_CODECS

PREAMBLE: Final = bytes(4)
#: Sent before the login and between frames to keep a NAT entry alive; it gets no reply.
PING: Final = 0xFF

_HEADER: Final = 8
_CRC: Final = 4
_WORD: Final = struct.Struct(">I").unpack_from
_ENVELOPE: Final = _HEADER + _CRC


def decode_frame(
    buffer: bytes | bytearray, max_data: int, max_message_data: int = 0
) -> Decoded[bytes] | Incomplete | Fatal:
    """Decode the frame at the start of ``buffer``.

    :param max_data: limit of the data length of a frame with records, in bytes.
    :param max_message_data: the same for a command or message; 0 to use ``max_data``.
    :return: the data of the frame; ``used`` is the size of the whole frame. The function never
        returns ``Rejected``: after a wrong length or checksum, the start of the next frame is
        unknown, because the zeros of the preamble occur inside records too.
    """
    size = len(buffer)
    if not buffer.startswith(PREAMBLE[:size]):
        preamble = buffer[: len(PREAMBLE)]
        return Fatal(
            0,
            "invalid preamble: four zero bytes must come first",
            field="preamble",
            expected=PREAMBLE[: len(preamble)].hex(),
            found=preamble.hex(),
        )
    if size < _HEADER:
        return Incomplete(_HEADER - size)
    (length,) = _WORD(buffer, len(PREAMBLE))
    if length < MIN_DATA_BYTES:
        return Fatal(
            4,
            f"data length {length} is too short: the minimum is {MIN_DATA_BYTES}",
            field="length",
            expected=f"{MIN_DATA_BYTES} or more",
            found=str(length),
        )
    limit = max(max_data, max_message_data)
    if max_message_data and min(max_data, max_message_data) < length <= limit:
        if size == _HEADER:
            return Incomplete(1)  # the codec id selects the limit
        limit = max_message_data if buffer[_HEADER] in MESSAGE_CODECS else max_data
    if length > limit:
        return Fatal(
            4,
            f"data length {length} exceeds the limit of {limit}",
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
            f"CRC mismatch: received {carried:#010x}, computed {computed:#010x}",
            field="crc",
            expected=f"{computed:#010x}",
            found=f"{carried:#010x}",
        )
    return Decoded(data, length + _ENVELOPE)


def find_message(
    buffer: bytearray, start: int, wanted: Callable[[bytes], bool]
) -> tuple[int, bytes | None]:
    """Search complete frames of messages for one, without removing any of them.

    :param start: offset of a frame or a ping.
    :param wanted: called with the data of a message; returns True if it is the one.
    :return: offset and data of the frame; if it is not found, the offset at which to continue
        after more bytes have arrived, and None.
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
    """Return the size in bytes of the frame with this data."""
    return len(data) + _ENVELOPE


def encode_frame(data: bytes) -> bytes:
    """Wrap ``data`` (codec id to second count) in an envelope."""
    return b"".join(
        (PREAMBLE, len(data).to_bytes(4, "big"), data, crc16(data).to_bytes(_CRC, "big"))
    )
