"""The envelope of AVL data over UDP, and its ACK.

Length of what follows (u16), packet id (u16), an unused byte, AVL packet id (u8), length of the
IMEI (u16), IMEI, then the data of a TCP frame without a checksum. The ACK repeats the ids and
adds the number of accepted records (u8).
Source: Teltonika wiki, "Teltonika Data Sending Protocols", chapter "Communication
with server over UDP".
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import field, frozen

from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.avl import MIN_DATA_BYTES
from tracker.vendors.teltonika.login import IMEI_DIGITS
from tracker.wording import counted

_HEADER: Final = struct.Struct(">HHBBH")
_ACK: Final = struct.Struct(">HHBBB")
_NOT_USED: Final = 0x01
#: Offset of the data.
_DATA: Final = _HEADER.size + IMEI_DIGITS
#: Fields before the data, with their sizes in bytes.
_FIELDS: Final = (
    ("length", 2),
    ("packet id", 2),
    ("unused", 1),
    ("avl packet id", 1),
    ("length of the imei", 2),
    ("imei", IMEI_DIGITS),
)
_IMEI_LENGTH: Final = IMEI_DIGITS.to_bytes(2, "big")
#: Length of a datagram without records.
_MIN_LENGTH: Final = _DATA + MIN_DATA_BYTES - 2
#: Devices send at most 1280 bytes. If only the first two bytes suggest a datagram, a greater
#: length than this rules it out: text and TLS begin like that.
_MAX_LIKELY_LENGTH: Final = 0x07FF


@frozen
class Datagram:
    """One datagram from a device."""

    packet_id: int
    avl_packet_id: int
    imei: str
    data: bytes
    """Codec id to second count, for :func:`~tracker.vendors.teltonika.avl.decode_packet`."""
    unused: int = field(default=_NOT_USED, eq=False)
    """A byte without a meaning."""


def decode_datagram(datagram: bytes) -> Decoded[Datagram] | Rejected:
    """Decode a datagram from a device.

    :return: ``Rejected`` for the first field that is invalid or truncated. If the size of the
        datagram does not match its length field, the length is taken to be right.
    """
    size = len(datagram)
    if fault := _check_header(datagram):
        return fault
    length, packet_id, unused, avl_packet_id, _ = _HEADER.unpack_from(datagram)
    if length != size - 2:
        reason = (
            f"length {length:,} does not match the {counted(size - 2, 'byte')} that follow"
            if size - 2 >= _MIN_LENGTH
            else _too_short(size)
        )
        end = length + 2
        if end > size:
            return Rejected(
                size,
                _DATA,
                reason,
                field="data",
                expected=f"{counted(end - _DATA, 'byte')}, according to the length",
                found=f"{counted(size - _DATA, 'byte')} up to the end",
            )
        return Rejected(
            size,
            end,
            reason,
            field="datagram",
            expected="its end, according to the length",
            found=f"{counted(size - end, 'byte')} after the end",
        )
    imei = datagram[_HEADER.size : _DATA].decode("ascii")
    return Decoded(Datagram(packet_id, avl_packet_id, imei, datagram[_DATA:], unused), size)


def _check_header(datagram: bytes) -> Rejected | None:
    size = len(datagram)
    length, imei_length = (int.from_bytes(datagram[at : at + 2], "big") for at in (0, 6))
    if size >= 2 and length < _MIN_LENGTH:
        return Rejected(
            size,
            0,
            f"length {length} is too short: the minimum is {_MIN_LENGTH}",
            field="length",
            expected=f"{_MIN_LENGTH} or more",
            found=str(length),
        )
    if size >= _HEADER.size and imei_length != IMEI_DIGITS:
        return Rejected(
            size,
            6,
            f"IMEI length {imei_length} is wrong: an IMEI has {IMEI_DIGITS} digits",
            field="length of the imei",
            expected=str(IMEI_DIGITS),
            found=str(imei_length),
        )
    imei = datagram[_HEADER.size : _DATA]
    if imei and not imei.isdigit():
        return Rejected(
            size,
            _HEADER.size,
            f"IMEI has invalid characters: an IMEI has {IMEI_DIGITS} digits",
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
                _too_short(size),
                field=name,
                expected=counted(width, "byte"),
                found=f"{counted(size - offset, 'byte')} up to the end",
            )
        offset += width
    return None


def resembles_datagram(data: bytes) -> bool | None:
    """Return True if bytes of unknown kind are a datagram, valid or not.

    :return: None if they may be an invalid login as well.
    """
    head, imei_length, imei = data[:2], data[6:8], data[8:_DATA]
    # These start a ping, a TCP frame or a login: a datagram never has the length 0 or 15.
    if len(head) < 2 or head[0] == 0xFF or head in (bytes(2), _IMEI_LENGTH):
        return False
    if imei_length == _IMEI_LENGTH and (imei.isdigit() or not imei):
        return True
    length = int.from_bytes(head, "big")
    # Only digits follow the length: an IMEI with a wrong length word.
    like_login = head[0] == 0 and (data[2:].isdigit() or len(data) == 2)
    if length == len(data) - 2 and length >= _MIN_LENGTH:
        return not like_login
    if not _MIN_LENGTH <= length <= _MAX_LIKELY_LENGTH:
        return False
    if _IMEI_LENGTH.startswith(imei_length):
        # Nothing contradicts a datagram, but few bytes support it.
        return None if like_login else True
    return False if like_login else None


def encode_datagram(datagram: Datagram) -> bytes:
    """Return the bytes that a device sends: the inverse of :func:`decode_datagram`.

    :raises ValueError: if a value does not fit its field.
    """
    imei = datagram.imei.encode("ascii")
    if len(imei) != IMEI_DIGITS or not imei.isdigit():
        raise ValueError(f"{datagram.imei!r} is not an IMEI: an IMEI has {IMEI_DIGITS} digits")
    try:
        header = _HEADER.pack(
            _DATA + len(datagram.data) - 2,
            datagram.packet_id,
            datagram.unused,
            datagram.avl_packet_id,
            IMEI_DIGITS,
        )
    except struct.error as error:
        raise ValueError(f"a field of the datagram is out of range: {error}") from None
    return header + imei + datagram.data


def encode_ack(packet_id: int, avl_packet_id: int, accepted: int) -> bytes:
    """Return the server's ACK of a datagram with these ids.

    :param accepted: number of accepted records.
    """
    return _ACK.pack(_ACK.size - 2, packet_id, _NOT_USED, avl_packet_id, accepted)


def _too_short(size: int) -> str:
    return f"datagram of {counted(size, 'byte')} is too short: the minimum is {_MIN_LENGTH + 2}"
