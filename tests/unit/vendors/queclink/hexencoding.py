"""Frames that a device sends in the HEX encoding."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from fastcrc.crc16 import ibm_3740 as crc16

from tracker.vendors.queclink.encoding import MAX_PLACES, Place, Sender
from tracker.vendors.queclink.hexframes import END, HEADER_BYTES

#: Mask of a report: all fields of a vehicle without analog inputs.
MASK: Final = 0x00FE1FBF
_FIXED: Final = 7
_FIRMWARE: Final = bytes.fromhex("0101")
#: Bytes of mileage and hour meter of the trip, and in all.
_TRIP_MILEAGE, _MILEAGE, _HOUR_METERS = 3, 5, 9
_SATELLITES: Final = 9


def seal(header: bytes, content: bytes) -> bytes:
    """Return a frame from its header and the bytes between header and CRC."""
    return header + content + crc16(content).to_bytes(2) + END


def encode_hex_fri(
    sender: Sender, places: Sequence[Place], *, buffered: bool = False, mileage: float = 0.0
) -> bytes:
    """Return a GTFRI of a vehicle.

    :param sender: its version has six hex digits.
    :param places: 1 to :data:`~tracker.vendors.queclink.encoding.MAX_PLACES` positions, the oldest
        first.
    :param mileage: km.
    """
    if not 1 <= len(places) <= MAX_PLACES:
        raise ValueError(f"a GTFRI has 1 to {MAX_PLACES} positions, not {len(places)}")
    state = bytes((100, *(12_500).to_bytes(2), 0, 0, 0x22, _SATELLITES))
    groups = b"".join(map(_group, places))
    after = bytes(_TRIP_MILEAGE) + _tenths(mileage, _MILEAGE) + bytes(_HOUR_METERS)
    body = _unique_id(sender) + state + bytes((0x10, len(places))) + groups + after + _tail(sender)
    start = bytes((_FIXED,)) + MASK.to_bytes(4)
    versions = bytes.fromhex(sender.version) + _FIRMWARE
    length = HEADER_BYTES + len(start) + 2 + len(versions) + len(body) + 4
    content = start + length.to_bytes(2) + versions + body
    return seal(b"+BSP" if buffered else b"+RSP", content)


def encode_hex_heartbeat(sender: Sender) -> bytes:
    """Return a heartbeat, which the server answers with a SACK."""
    body = bytes.fromhex(sender.version) + _FIRMWARE + _unique_id(sender) + _tail(sender)
    length = HEADER_BYTES + 2 + len(body) + 4
    return seal(b"+HBD", bytes((0xEF, length)) + body)


def encode_hex_answer(sender: Sender, number: int, serial: str) -> bytes:
    """Return the answer to a command.

    :param number: number of the command: 16 for GTRTO.
    :param serial: serial number of the command, 4 hex digits.
    """
    versions = bytes.fromhex(sender.version) + _FIRMWARE
    body = versions + _unique_id(sender) + b"\0" + bytes.fromhex(serial) + _tail(sender)
    length = HEADER_BYTES + 3 + len(body) + 4
    return seal(b"+ACK", bytes((number, 0xEF, length)) + body)


def _unique_id(sender: Sender) -> bytes:
    """Return an IMEI: each byte is two decimal digits as a number, and the last one is one."""
    imei = sender.device_id
    return bytes(int(imei[at : at + 2]) for at in range(0, len(imei), 2))


def _group(place: Place) -> bytes:
    return b"".join(
        (
            bytes((round(place.accuracy),)),
            _tenths(place.speed, 3),
            place.azimuth.to_bytes(2),
            round(place.altitude).to_bytes(2, signed=True),
            round(place.longitude * 1e6).to_bytes(4, signed=True),
            round(place.latitude * 1e6).to_bytes(4, signed=True),
            _time(place.time),
            bytes(9),
        )
    )


def _tenths(value: float, size: int) -> bytes:
    """Return a number as its integer, and a last byte with the tenths."""
    whole, tenths = divmod(round(value * 10), 10)
    return whole.to_bytes(size - 1) + bytes((tenths,))


def _tail(sender: Sender) -> bytes:
    return _time(sender.time) + (sender.count_number & 0xFFFF).to_bytes(2)


def _time(seconds: float) -> bytes:
    moment = datetime.fromtimestamp(int(seconds), UTC)
    return moment.year.to_bytes(2) + bytes(moment.timetuple()[1:6])
