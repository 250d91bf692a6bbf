"""Fields that several frames have: date, GPS block, cell, status of the device, packed digits.

Readers raise ``struct.error`` if bytes are missing. Source: GT06 protocol 1.8 and Concox protocol
3.1, chapters "Location data packet" and "Heartbeat packet".
"""

from __future__ import annotations

import re
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from tracker.position import attribute

#: Bits of the word with course and status. The bits of the hemispheres have opposite senses.
ACC_ON: Final = 1 << 15
ACC_VALID: Final = 1 << 14
DIFFERENTIAL: Final = 1 << 13
POSITIONED: Final = 1 << 12
WEST: Final = 1 << 11
NORTH: Final = 1 << 10
COURSE: Final = 0x3FF

#: Latitude and longitude are minutes times 30,000.
UNITS_PER_DEGREE: Final = 1_800_000
MAX_LATITUDE: Final = 90 * UNITS_PER_DEGREE
MAX_LONGITUDE: Final = 180 * UNITS_PER_DEGREE
MAX_COURSE: Final = 360

DATE_BYTES: Final = 6
#: The first date that can be written, in seconds since 1970 (UTC): 2000-01-01.
FIRST_DATE: Final = 946_684_800
IMEI_BYTES: Final = 8

#: Highest value of a voltage level or a GSM signal. The documents have levels of 0 to 6 and 0 to 4;
#: other devices send percentages.
MAX_LEVEL: Final = 100

_IMEI: Final = re.compile("[0-9]{15}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_GPS: Final = struct.Struct(">6sBIIBH")
#: MCC has this bit if the MNC has two bytes.
_LONG_MNC: Final = 0x8000


class Gps(NamedTuple):
    """The GPS block, with the numbers of the wire."""

    date: bytes
    """See :func:`milliseconds`."""
    satellites: int
    latitude: int
    """Degrees times 1,800,000, without sign."""
    longitude: int
    speed: int
    """km/h."""
    flags: int
    """Course in degrees, and the bits of status."""

    @property
    def degrees(self) -> tuple[float, float] | None:
        """Latitude and longitude; None if one is beyond its range."""
        latitude, longitude, flags = self.latitude, self.longitude, self.flags
        if latitude > MAX_LATITUDE or longitude > MAX_LONGITUDE:
            return None
        return (
            round((latitude if flags & NORTH else -latitude) / UNITS_PER_DEGREE, 7),
            round((-longitude if flags & WEST else longitude) / UNITS_PER_DEGREE, 7),
        )

    @property
    def course(self) -> int | None:
        """Degrees from north; None if there are more than 360."""
        course = self.flags & COURSE
        return course if course <= MAX_COURSE else None


GPS_BYTES: Final = _GPS.size


def read_gps(content: bytes) -> Gps:
    """Return the GPS block at the start of a content."""
    date, satellites, latitude, longitude, speed, flags = _GPS.unpack_from(content)
    # The high nibble should be the length of the block; devices send other numbers.
    return Gps(date, satellites & 0x0F, latitude, longitude, speed, flags)


def write_gps(gps: Gps) -> bytes:
    """Return the bytes of a GPS block: the inverse of :func:`read_gps`.

    :raises struct.error: if a number does not fit its field.
    """
    date, satellites, latitude, longitude, speed, flags = gps
    return _GPS.pack(date, 0xC0 | satellites, latitude, longitude, speed, flags)


def milliseconds(date: bytes) -> int | None:
    """Return a date in milliseconds since 1970; None if it does not exist.

    :param date: year since 2000, month, day, hour, minute and second, a byte each.
    """
    year, month, day, hour, minute, second = date
    try:
        moment = datetime(2000 + year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return (moment - _EPOCH) // _MILLISECOND


def date_bytes(seconds: float) -> bytes:
    """Return the inverse of :func:`milliseconds`.

    :param seconds: seconds since 1970 (UTC), between the years 2000 and 2255.
    :raises ValueError: if the time is outside these years.
    """
    moment = datetime.fromtimestamp(seconds, UTC)
    return bytes(
        (moment.year - 2000, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    )


class Cell(NamedTuple):
    """The layout of a cell: bytes of the MNC after an MCC without and with bit 15, of LAC, ID."""

    short: struct.Struct
    long: struct.Struct


#: GSM: LAC of two bytes, ID of three.
GSM_CELL: Final = Cell(struct.Struct(">HBH3s"), struct.Struct(">HHH3s"))
#: GSM of some makers: an ID of four bytes.
WIDE_CELL: Final = Cell(struct.Struct(">HBH4s"), struct.Struct(">HHH4s"))
#: LTE: LAC of four bytes, ID of eight.
LTE_CELL: Final = Cell(struct.Struct(">HBI8s"), struct.Struct(">HHI8s"))
#: The SL4X family: an MNC of two bytes whatever the MCC says, and an ID of four.
SL4X_CELL: Final = Cell(struct.Struct(">HHH4s"), struct.Struct(">HHH4s"))


def read_cell(content: bytes, offset: int, cell: Cell) -> tuple[dict[str, Any], int]:
    """Return the attributes of a cell, and the offset after it."""
    layout = cell.long if content[offset : offset + 1] >= b"\x80" else cell.short
    mcc, mnc, lac, cell_id = layout.unpack_from(content, offset)
    attributes = {
        "mcc": mcc & ~_LONG_MNC,
        "mnc": mnc,
        "lac": lac,
        "cell_id": attribute(int.from_bytes(cell_id, "big")),
    }
    return attributes, offset + layout.size


def terminal_attributes(information: int) -> dict[str, Any]:
    """Return the attributes of the byte with the state of the device."""
    return {
        "oil_cut": information >> 7,
        "gps_on": information >> 6 & 1,
        "alarm_state": information >> 3 & 7,
        "charging": information >> 2 & 1,
        "acc": information >> 1 & 1,
        "armed": information & 1,
    }


def read_imei(content: bytes) -> str | None:
    """Return the IMEI in eight bytes of packed digits; None if they are no IMEI."""
    digits = content[:IMEI_BYTES].hex()
    if len(digits) != 2 * IMEI_BYTES or not digits.isdigit() or digits[0] != "0":
        return None
    return digits[1:]


def write_imei(imei: str) -> bytes:
    """Return the eight bytes of an IMEI.

    :raises ValueError: if it is not of 15 digits.
    """
    if not _IMEI.fullmatch(imei):
        raise ValueError(f"{imei!r} is not an IMEI of 15 digits")
    return bytes.fromhex(f"0{imei}")


def zone_minutes(word: int) -> int | None:
    """Return the time zone of a login in minutes east of UTC; None if it does not exist.

    :param word: bits 15 to 4 are hours times 100 plus minutes; bit 3 is set for the west.
    """
    hours, minutes = divmod(word >> 4, 100)
    if hours > 14 or minutes > 59:
        return None
    east = hours * 60 + minutes
    return -east if word & 8 else east


def zone_word(minutes_east: int) -> int:
    """Return the inverse of :func:`zone_minutes`."""
    hours, minutes = divmod(abs(minutes_east), 60)
    return (hours * 100 + minutes) << 4 | (8 if minutes_east < 0 else 0)
