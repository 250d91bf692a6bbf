"""Fields of the HEX encoding: those that a mask selects, position groups, and what surrounds them.

The mask of a report says which fields it has. A report with positions has, in this order, the
head, fields of its type, a number of positions, that many groups, and the tail::

    head | fields of the type | number | group … group | mileage, hour meter | send time, count

The fields of the type differ by model. So the groups are searched from the end: they are those
that end where the tail begins and that the number before them announces. A group is accuracy,
speed, azimuth, altitude, longitude, latitude, UTC time and cell.

Sources: the manufacturer's @Track documents of GV200 and GV300CAN (masks, identifiers, worked
frames); the layouts and captured frames of the open-source servers Traccar
(``Gl200BinaryProtocolDecoder``) and queclink-go. All lengths were checked against captured frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from tracker.vendors.queclink.layouts import named_field

#: Bytes of a time: year (2), month, day, hour, minute, second.
TIME_BYTES: Final = 7
#: Bytes of a unique ID: an IMEI, or a device name.
ID_BYTES: Final = 8
#: Maximum number of positions in a report.
MAX_PLACES: Final = 255

_EPOCH: Final = datetime(1970, 1, 1)  # naive on purpose: all times in this module are UTC
_MILLISECOND: Final = timedelta(milliseconds=1)

#: Fields of the head after the unique ID: (bit of the mask, name, bytes).
_HEAD: Final = (
    (11, "battery", 1),
    (12, "external_power", 2),
    (13, "analog_mode", 2),
    (14, "analog_1", 2),
    (15, "analog_2", 2),
    (26, "expander_inputs", 1),
    (17, "inputs", 1),
    (26, "expander_outputs", 1),
    (17, "outputs", 1),
    (18, "state", 1),
    (19, "satellites", 1),
)
#: Fields between the groups and the send time: (bit of the mask, name, bytes).
_TAIL: Final = (
    (20, "trip_mileage", 3),
    (21, "mileage", 5),
    (22, "trip_hour_meter", 3),
    (23, "hour_meter", 6),
    (24, "rfid", 4),
)
_TRIP_MILEAGE: Final = 20
_MILEAGES: Final = (20, 21)
_HOUR_METERS: Final = (22, 23)
_RFID: Final = 24
_CAN_DATA: Final = 25
#: Bytes of the data of the CAN bus, and of what it may displace, at most.
_MAX_CAN_BYTES: Final = 99
#: Maximum number of positions in a report with such data, whose length is not known.
_MAX_CAN_PLACES: Final = 15

#: Bits of the mask for the fields of a group, and their bytes.
_SPEED, _AZIMUTH, _ALTITUDE, _CELL = range(4)
_GROUP_FIELDS: Final = ((_SPEED, 3), (_AZIMUTH, 2), (_ALTITUDE, 2))
#: Bytes of longitude, latitude and time, which no mask omits.
_PLACE_BYTES: Final = 15
#: Bytes of a cell, by the generation of the model: the cell ID has 2 or 4.
_CELL_BYTES: Final = (9, 11)
#: Highest dilution of precision that a device reports.
_MAX_ACCURACY: Final = 99
#: First byte of the years from 1792 to 2047.
_THIS_CENTURY: Final = 7
#: Mobile country codes (ITU-T E.212).
_COUNTRIES: Final = range(200, 800)
#: Device types that write MCC and MNC as binary numbers, not as digits: GV600MG.
_BINARY_CELLS: Final = frozenset((0xDC,))
#: Bits of the satellite byte for the number of satellites; the others are the antenna's state.
_SATELLITES: Final = 0x0F


class HexGroup(NamedTuple):
    """A position group. A field is None if the mask omits it."""

    accuracy: int
    """Dilution of precision; 0 without a fix."""
    speed: float | None
    """km/h."""
    azimuth: int | None
    """Degrees clockwise from north."""
    altitude: int | None
    """Metres."""
    longitude: float | None
    """Degrees; None, like the latitude, if the group has no place."""
    latitude: float | None
    time_ms: int | None
    """UTC time of the fix in milliseconds since 1970."""
    cell: dict[str, int]


class Groups(NamedTuple):
    """The position groups of a report."""

    start: int
    """Offset of their number in the body."""
    end: int
    """Offset after the last group."""
    groups: tuple[HexGroup, ...]


def read_imei(data: bytes) -> str:
    """Return an IMEI: each byte is two decimal digits as a number, and the last one is one digit.

    :return: empty if it is none.
    """
    if len(data) != ID_BYTES or max(data[:-1]) > 99 or data[-1] > 9 or not any(data):
        return ""
    return "".join(f"{pair:02}" for pair in data[:-1]) + str(data[-1])


def read_name(data: bytes) -> str:
    """Return a device name of at most 8 characters, padded with NUL bytes."""
    name = data.rstrip(b"\0").decode("ascii", errors="backslashreplace")
    return name.translate({code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)})


def read_time(data: bytes) -> int | None:
    """Return a time in milliseconds since 1970; None if it does not exist.

    :param data: :data:`TIME_BYTES` bytes.
    """
    try:
        moment = datetime(int.from_bytes(data[:2]), *data[2:TIME_BYTES])
    except ValueError:
        return None
    passed = (moment - _EPOCH) // _MILLISECOND
    return passed if passed >= 0 else None


def time_digits(data: bytes) -> str:
    """Return the digits of a time, ``YYYYMMDDHHMMSS``, as the ASCII encoding has them."""
    return f"{int.from_bytes(data[:2]):04}" + "".join(f"{part:02}" for part in data[2:TIME_BYTES])


def read_head(body: bytes, mask: int) -> tuple[dict[str, Any], int]:
    """Return the attributes at the start of a body, and the offset after them.

    :param body: the bytes after the unique ID.
    :param mask: the report mask.
    """
    attributes: dict[str, Any] = {}
    at = 0
    for bit, name, size in _HEAD:
        if not mask >> bit & 1:
            continue
        value = int.from_bytes(body[at : at + size])
        at += size
        if at > len(body):
            break
        if name == "state":
            attributes |= named_field("state", f"{value:02X}") or {}
        elif name == "satellites":
            attributes[name] = value & _SATELLITES
        else:
            attributes[name] = value
    return attributes, min(at, len(body))


def read_groups(body: bytes, mask: int, *, start: int, device_type: int) -> Groups | None:
    """Return the position groups of a body.

    :param body: the bytes between the unique ID and the send time.
    :param start: offset after the head; the number of positions stands there or later.
    :return: None if no number and groups fit between the head and the tail.
    """
    has_cell = mask >> _CELL & 1
    for end, is_certain in _ends(body, mask):
        for cell_bytes in _CELL_BYTES if has_cell else (0, 1):
            found = _fit(body, mask, start, end, cell_bytes=cell_bytes, is_certain=is_certain)
            if found is None:
                continue
            first, size = found
            groups = tuple(
                _read_group(body[at : at + size], mask, device_type)
                for at in range(first + 1, end, size)
            )
            return Groups(first, end, groups)
    return None


def read_tail(body: bytes, mask: int) -> tuple[dict[str, Any], bytes]:
    """Return the attributes after the groups, and the bytes that have no name.

    :param body: the bytes between the groups and the send time.
    """
    if len(body) == _tail_bytes(mask | 1 << _TRIP_MILEAGE):
        mask |= 1 << _TRIP_MILEAGE  # reports of the ignition have it whatever the mask says
    attributes: dict[str, Any] = {}
    at = 0
    for bit, name, size in _TAIL:
        field = body[at : at + size]
        if not mask >> bit & 1 or len(field) < size:
            continue
        at += size
        if bit in _MILEAGES:
            attributes[name] = int.from_bytes(field[:-1]) + field[-1] / 10
        elif bit in _HOUR_METERS:
            hours = int.from_bytes(field[:-2])
            attributes[name] = f"{hours:05}:{field[-2]:02}:{field[-1]:02}"
        elif any(field):
            attributes[name] = field.hex().upper()
    return attributes, body[at:]


def _tail_bytes(mask: int) -> int:
    return sum(size for bit, _, size in _TAIL if mask >> bit & 1)


def _ends(body: bytes, mask: int) -> Iterator[tuple[int, bool]]:
    """Yield the offsets at which the groups may end, the likely ones first.

    With each is False if the tail may also have another length.
    """
    size = _tail_bytes(mask)
    sizes = [size]
    if mask >> _RFID & 1:
        sizes.append(size - 3)  # models without RFID write one reserved byte
    if not mask >> _TRIP_MILEAGE & 1:
        sizes += [size + 3 for size in sizes]
    is_certain = not mask >> _CAN_DATA & 1
    if not is_certain:
        sizes = [size + more for more in range(_MAX_CAN_BYTES + 1)]
    for size in sizes:
        if size <= len(body):
            yield len(body) - size, is_certain


def _fit(
    body: bytes, mask: int, start: int, end: int, *, cell_bytes: int, is_certain: bool
) -> tuple[int, int] | None:
    """Return the offset of the number, and the bytes of a group, if groups end at ``end``.

    The last byte of a group may look like a number. So the highest number that fits is taken.
    Each group is examined once, from the last to the first.

    :param is_certain: False if the end is one of many; each group must then have a time.
    """
    before = sum(size for bit, size in _GROUP_FIELDS if mask >> bit & 1)
    size = 1 + before + _PLACE_BYTES + cell_bytes
    found = None
    first = end
    for number in range(1, (MAX_PLACES if is_certain else _MAX_CAN_PLACES) + 1):
        first -= size
        if first <= start or not _is_group(body, first, before, may_lack_time=is_certain):
            break
        if body[first - 1] == number:
            found = first - 1
    return None if found is None else (found, size)


def _is_group(body: bytes, at: int, before: int, *, may_lack_time: bool) -> bool:
    """Return True if the bytes at an offset can be a position group.

    :param before: bytes between the accuracy and the longitude.
    """
    if body[at] > _MAX_ACCURACY:
        return False
    place = at + 1 + before
    time = body[place + 8 : place + _PLACE_BYTES]
    if may_lack_time and not any(time):
        return not any(body[place : place + 8])
    longitude, latitude = _coordinates(body[place : place + 8])
    if abs(longitude) > 180 or abs(latitude) > 90:
        return False
    return (may_lack_time or time[0] == _THIS_CENTURY) and read_time(time) is not None


def _coordinates(data: bytes) -> tuple[float, float]:
    return (
        int.from_bytes(data[:4], signed=True) / 1e6,
        int.from_bytes(data[4:], signed=True) / 1e6,
    )


def _read_group(data: bytes, mask: int, device_type: int) -> HexGroup:
    at = 1
    fields: dict[int, bytes] = {}
    for bit, size in _GROUP_FIELDS:
        if mask >> bit & 1:
            fields[bit] = data[at : at + size]
            at += size
    longitude, latitude = _coordinates(data[at : at + 8])
    time = data[at + 8 : at + _PLACE_BYTES]
    speed, azimuth, altitude = (fields.get(bit) for bit, _ in _GROUP_FIELDS)
    is_place = any(data[at : at + 8])
    return HexGroup(
        accuracy=data[0],
        speed=None if speed is None else int.from_bytes(speed[:2]) + speed[2] / 10,
        azimuth=None if azimuth is None else int.from_bytes(azimuth),
        altitude=None if altitude is None else int.from_bytes(altitude, signed=True),
        longitude=longitude if is_place else None,
        latitude=latitude if is_place else None,
        time_ms=read_time(time),
        cell=read_cell(data[at + _PLACE_BYTES :], device_type) if mask >> _CELL & 1 else {},
    )


def read_cell(data: bytes, device_type: int) -> dict[str, int]:
    """Return the attributes of a cell.

    :param data: MCC, MNC, LAC, the cell ID and a reserved byte.
    :param device_type: the type of the device, whose models write MCC and MNC in two ways.
    """
    if not any(data[:8]):
        return {}
    country, network = data[:2].hex(), data[2:4].hex()
    digits = country.isdecimal() and network.isdecimal() and int(country) in _COUNTRIES
    if digits and device_type not in _BINARY_CELLS:
        codes = (int(country), int(network))
    else:
        codes = (int(country, 16), int(network, 16))
    return dict(
        zip(
            ("mcc", "mnc", "lac", "cell_id"),
            (*codes, int.from_bytes(data[4:6]), int.from_bytes(data[6:-1])),
            strict=True,
        )
    )


#: Fields of a type between the head and the number of positions: (name, bytes).
_INSERTS: Final[Mapping[tuple[str, int], Sequence[tuple[str, int]]]] = {
    ("EVT", 6): (("battery_voltage", 2),),
    ("EVT", 13): (("duration", 4),),
    ("EVT", 14): (("duration", 4),),
    ("EVT", 15): (("update_code", 2), ("update_retry", 1)),
    ("EVT", 17): (("duration", 4),),
    ("EVT", 21): (("gnss_signal", 1), ("", 4)),
}


def read_insert(kind: str, number: int, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the attributes between the head and the number of positions, and the rest.

    :param kind: ``RSP`` or ``EVT``.
    :param number: the type of the report.
    :return: the attributes, and the bytes that have no name.
    """
    if kind == "RSP":
        if not body:
            return {}, b""
        return {"report_id": body[0] >> 4, "report_type": body[0] & 15}, body[1:]
    layout = _INSERTS.get((kind, number), ())
    if sum(size for _, size in layout) != len(body):
        return {}, body
    attributes: dict[str, Any] = {}
    at = 0
    for name, size in layout:
        value = int.from_bytes(body[at : at + size])
        at += size
        if name == "battery_voltage":
            attributes[name] = value / 1000  # mV; the ASCII encoding has V
        elif name:
            attributes[name] = value
    return attributes, b""
