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

from tracker.vendors.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.avl import SHORTEST_DATA
from tracker.vendors.teltonika.login import IMEI_DIGITS

_HEADER: Final = struct.Struct(">HHBBH")
_ANSWER: Final = struct.Struct(">HHBBB")
_NOT_USED: Final = 0x01
#: Where the data begins.
_DATA: Final = _HEADER.size + IMEI_DIGITS


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
    """Read a datagram from a device."""
    size = len(datagram)
    if size < _DATA + SHORTEST_DATA:
        return Rejected(
            size,
            size,
            f"{size} bytes are too short for a datagram",
            field="datagram",
            expected=f"{_DATA + SHORTEST_DATA} bytes or more",
            found=f"{size} bytes",
        )
    length, packet_id, unused, avl_packet_id, imei_length = _HEADER.unpack_from(datagram)
    if length != size - 2:
        return Rejected(
            size,
            0,
            f"a length of {length} where {size - 2} bytes follow",
            field="length",
            expected=str(size - 2),
            found=str(length),
        )
    if imei_length != IMEI_DIGITS:
        return Rejected(
            size,
            6,
            f"an IMEI of {imei_length} instead of {IMEI_DIGITS} digits",
            field="length of the imei",
            expected=str(IMEI_DIGITS),
            found=str(imei_length),
        )
    imei = datagram[_HEADER.size : _DATA]
    if not imei.isdigit():
        return Rejected(
            size,
            _HEADER.size,
            "an IMEI with other characters than digits",
            field="imei",
            expected=f"{IMEI_DIGITS} digits",
            found=ascii(imei.decode("latin-1")),
        )
    decoded = Datagram(packet_id, avl_packet_id, imei.decode("ascii"), datagram[_DATA:], unused)
    return Decoded(decoded, size)


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
