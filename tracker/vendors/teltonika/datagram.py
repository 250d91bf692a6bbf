"""The envelope of a packet over UDP, and the answer to it.

Length (u16, of what follows), packet id (u16), a byte that is not used, AVL packet id
(u8), length of the IMEI (u16), IMEI, and then the data as in a TCP frame, without a
checksum. The answer echoes the ids and adds the number of accepted records (u8).
Source: Teltonika wiki, "Teltonika Data Sending Protocols", chapter "Communication
with server over UDP".
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import field, frozen

from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.avl import SHORTEST_DATA
from tracker.vendors.teltonika.login import IMEI_DIGITS

_HEADER: Final = struct.Struct(">HHBBH")
_ANSWER: Final = struct.Struct(">HHBBB")
_NOT_USED: Final = 0x01
#: Where the data begins.
_DATA: Final = _HEADER.size + IMEI_DIGITS
#: What stands before it, and the size of each.
_FIELDS: Final = (
    ("length", 2),
    ("packet id", 2),
    ("unused", 1),
    ("avl packet id", 1),
    ("length of the imei", 2),
    ("imei", IMEI_DIGITS),
)
_IMEI_LENGTH: Final = IMEI_DIGITS.to_bytes(2, "big")
#: The lowest length: that of a datagram without a record.
_SHORTEST: Final = _DATA + SHORTEST_DATA - 2
#: Devices send 1280 bytes at most. Where only the first two bytes speak for a datagram, a
#: greater length than this is none: text and TLS begin so.
_LONGEST_LIKELY: Final = 0x07FF


@frozen
class Datagram:
    """One packet as it came over UDP."""

    packet_id: int
    avl_packet_id: int
    imei: str
    data: bytes
    """Codec id to second count, for :func:`~tracker.vendors.teltonika.avl.decode_packet`."""
    unused: int = field(default=_NOT_USED, eq=False)
    """The byte that means nothing."""


def decode_datagram(datagram: bytes) -> Decoded[Datagram] | Rejected:
    """Read a datagram from a device.

    :return: ``Rejected`` for the first field that is bad or cut off. Where more or less
        follows than the length says, the length is taken to be right.
    """
    size = len(datagram)
    if fault := _maybe_bad_header(datagram):
        return fault
    length, packet_id, unused, avl_packet_id, _ = _HEADER.unpack_from(datagram)
    if length != size - 2:
        reason = (
            f"a length of {length} where {size - 2} bytes follow"
            if size - 2 >= _SHORTEST
            else f"{size} bytes are too short for a datagram"
        )
        end = length + 2
        if end > size:
            return Rejected(
                size,
                _DATA,
                reason,
                field="data",
                expected=f"{end - _DATA} bytes, as the length says",
                found=f"{size - _DATA} bytes up to the end",
            )
        return Rejected(
            size,
            end,
            reason,
            field="datagram",
            expected="its end, as the length says",
            found=f"{size - end} bytes more",
        )
    imei = datagram[_HEADER.size : _DATA].decode("ascii")
    return Decoded(Datagram(packet_id, avl_packet_id, imei, datagram[_DATA:], unused), size)


def _maybe_bad_header(datagram: bytes) -> Rejected | None:
    size = len(datagram)
    length, imei_length = (int.from_bytes(datagram[at : at + 2], "big") for at in (0, 6))
    if size >= 2 and length < _SHORTEST:
        return Rejected(
            size,
            0,
            f"a length of {length}: too short for a datagram",
            field="length",
            expected=f"{_SHORTEST} or more",
            found=str(length),
        )
    if size >= _HEADER.size and imei_length != IMEI_DIGITS:
        return Rejected(
            size,
            6,
            f"an IMEI of {imei_length} instead of {IMEI_DIGITS} digits",
            field="length of the imei",
            expected=str(IMEI_DIGITS),
            found=str(imei_length),
        )
    imei = datagram[_HEADER.size : _DATA]
    if imei and not imei.isdigit():
        return Rejected(
            size,
            _HEADER.size,
            "an IMEI with other characters than digits",
            field="imei",
            expected=f"{IMEI_DIGITS} digits",
            found=ascii(imei.decode("latin-1")),
        )
    offset = 0
    for name, width in _FIELDS:
        if size < offset + width:
            return Rejected(
                size,
                offset,
                f"{size} bytes are too short for a datagram",
                field=name,
                expected=f"{width} bytes",
                found=f"{size - offset} bytes up to the end",
            )
        offset += width
    return None


def resembles_datagram(data: bytes) -> bool | None:
    """Whether bytes of unknown kind are to be read as a datagram, if perhaps a bad one.

    :return: None where they may as well be a bad login.
    """
    head, imei_length, imei = data[:2], data[6:8], data[8:_DATA]
    # A ping, or the start of a frame or a login: no datagram has a length of 0 or 15.
    if len(head) < 2 or head[0] == 0xFF or head in (bytes(2), _IMEI_LENGTH):
        return False
    if imei_length == _IMEI_LENGTH and (imei.isdigit() or not imei):
        return True
    length = int.from_bytes(head, "big")
    # Digits all through: an IMEI, whose length word is wrong.
    like_login = head[0] == 0 and (data[2:].isdigit() or len(data) == 2)
    if length == len(data) - 2 and length >= _SHORTEST:
        return not like_login
    if not _SHORTEST <= length <= _LONGEST_LIKELY:
        return False
    if _IMEI_LENGTH.startswith(imei_length):
        # Nothing contradicts, but few bytes speak for it.
        return None if like_login else True
    return False if like_login else None


def encode_datagram(datagram: Datagram) -> bytes:
    """What a device would send: the inverse of :func:`decode_datagram`.

    :raises ValueError: when a value does not fit.
    """
    imei = datagram.imei.encode("ascii")
    if len(imei) != IMEI_DIGITS or not imei.isdigit():
        raise ValueError(f"an IMEI has {IMEI_DIGITS} digits: {datagram.imei!r}")
    try:
        header = _HEADER.pack(
            _DATA + len(datagram.data) - 2,
            datagram.packet_id,
            datagram.unused,
            datagram.avl_packet_id,
            IMEI_DIGITS,
        )
    except struct.error as error:
        raise ValueError(f"a datagram cannot carry this: {error}") from None
    return header + imei + datagram.data


def encode_answer(packet_id: int, avl_packet_id: int, accepted: int) -> bytes:
    """The server's answer: ``accepted`` records of the packet with these ids."""
    return _ANSWER.pack(_ANSWER.size - 2, packet_id, _NOT_USED, avl_packet_id, accepted)
