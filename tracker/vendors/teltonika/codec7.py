"""Codec 7, decoding only: records of personal trackers of the GH3000 era.

Masks in a record indicate which fields it has: coordinates, IO elements, both or neither.
Source: Teltonika wiki, "GH3000 protocols", and captured frames.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from attrs import define, frozen

from tracker.outcomes import Decoded, Rejected
from tracker.vendors.teltonika.avl import check_counts, check_end
from tracker.wording import counted

CODEC_ID: Final = 0x07
NAME: Final = "7"

#: Epoch of the timestamps: 2007-01-01 00:00:00 UTC.
_EPOCH: Final = 1_167_609_600
_SECONDS_MASK: Final = (1 << 30) - 1

#: Field of each bit of the GPS mask, lowest bit first; also the order of the wire.
_GPS_FIELDS: Final = (
    ("coordinates", struct.Struct(">ff")),  # latitude first, unlike in the other codecs
    ("altitude", struct.Struct(">H")),
    ("angle", struct.Struct(">B")),  # 256 units to a circle
    ("speed", struct.Struct(">B")),
    ("satellites", struct.Struct(">B")),
    ("cell", struct.Struct(">HH")),  # location area, cell
    ("gsm_signal", struct.Struct(">B")),
    ("operator", struct.Struct(">I")),
)
#: Bit of the global mask, width of its IO elements in bytes, layout of id and value.
_IO_GROUPS: Final = ((0x02, 1, struct.Struct(">BB")), (0x04, 2, struct.Struct(">BH")),
                     (0x08, 4, struct.Struct(">BI")))  # fmt: skip
_HEAD: Final = struct.Struct(">IB")
_BYTE: Final = struct.Struct("B")


@frozen
class Codec7Record:
    """One record; None stands for a missing field.

    ``timestamp`` is in milliseconds since 1970 (UTC), ``latitude`` and ``longitude`` are in
    degrees, ``altitude`` in metres, ``angle`` in degrees from north, ``speed`` in km/h.
    """

    timestamp: int
    priority: int
    latitude: float | None = None
    longitude: float | None = None
    altitude: int | None = None
    angle: int | None = None
    speed: int | None = None
    satellites: int | None = None
    cell: tuple[int, int] | None = None
    """Location area code and cell id."""
    gsm_signal: int | None = None
    operator: int | None = None
    elements: tuple[tuple[int, int, int], ...] = ()
    """(id, width in bytes, value)."""


@frozen
class Codec7Packet:
    """The records of one frame, in the order of the wire."""

    records: tuple[Codec7Record, ...]


def decode_codec7(data: bytes) -> Decoded[Codec7Packet] | Rejected:
    """Decode the data of a frame in Codec 7 with a correct checksum."""
    size = len(data)
    if differ := check_counts(data):
        return differ
    count = data[1]
    # Without the second count, which no record may extend into.
    body = data[:-1]
    records = []
    offset = 2
    for number in range(1, count + 1):
        reader = _Reader(body, offset)
        try:
            record = _decode_record(reader)
        except struct.error:
            left = len(body) - reader.offset
            return Rejected(
                size,
                reader.offset,
                f"record {number} of {count}: extends past the end of the packet",
                field=f"records[{number - 1}] {reader.field}",
                expected=counted(reader.size, "byte"),
                found=f"{counted(left, 'byte')} up to the second count",
            )
        offset = reader.offset
        records.append(record)
    return check_end(data, offset) or Decoded(Codec7Packet(tuple(records)), size)


@define
class _Reader:
    """Reader of a record field by field; it remembers the field that is read."""

    body: bytes
    offset: int
    field: str = ""
    size: int = 0

    def take(self, field: str, layout: struct.Struct) -> tuple[Any, ...]:
        """Return the values of the next field.

        :raises struct.error: if the body ends before the field does.
        """
        self.field, self.size = field, layout.size
        values = layout.unpack_from(self.body, self.offset)
        self.offset += layout.size
        return values


def _decode_record(reader: _Reader) -> Codec7Record:
    time, mask = reader.take("timestamp and mask", _HEAD)
    gps: dict[str, tuple[float, ...]] = {}
    if mask & 0x01:
        (gps_mask,) = reader.take("gps mask", _BYTE)
        for bit, (name, layout) in enumerate(_GPS_FIELDS):
            if gps_mask & (1 << bit):
                gps[name] = reader.take(name, layout)
    elements: list[tuple[int, int, int]] = []
    for bit, width, layout in _IO_GROUPS:
        if mask & bit:
            (number,) = reader.take(f"count of {width}-byte elements", _BYTE)
            for _ in range(number):
                element_id, value = reader.take(f"{width}-byte elements", layout)
                elements.append((element_id, width, value))
    latitude, longitude = _coordinates(*gps.get("coordinates", (None, None)))
    angle = _integer(gps, "angle")
    cell = gps.get("cell")
    return Codec7Record(
        timestamp=(_EPOCH + (time & _SECONDS_MASK)) * 1000,
        priority=time >> 30,
        latitude=latitude,
        longitude=longitude,
        altitude=_integer(gps, "altitude"),
        angle=None if angle is None else round(angle * 360 / 256),
        speed=_integer(gps, "speed"),
        satellites=_integer(gps, "satellites"),
        cell=None if cell is None else (int(cell[0]), int(cell[1])),
        gsm_signal=_integer(gps, "gsm_signal"),
        operator=_integer(gps, "operator"),
        elements=tuple(elements),
    )


def _integer(gps: dict[str, tuple[float, ...]], name: str) -> int | None:
    return int(gps[name][0]) if name in gps else None


def _coordinates(
    latitude: float | None, longitude: float | None
) -> tuple[float | None, float | None]:
    # The documentation does not say what a device sends without a fix. Coordinates out of range
    # (NaN included) are dropped. A 32-bit float is precise to six decimals at most.
    if latitude is None or longitude is None:
        return None, None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None, None
    return round(latitude, 6), round(longitude, 6)
