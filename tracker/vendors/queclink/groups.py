"""Position groups of a report, recognised by their shape.

A group is accuracy, speed, azimuth, altitude, longitude, latitude, UTC time, the four fields of a
cell, and a last field whose meaning depends on the model. Longitude, latitude and time in a row
occur nowhere else, so a group is found in reports of unknown models, too. A device without a fix
repeats its last known position, with an accuracy of 0; without one, it leaves the seven fields
empty.

Sources: the manufacturer's @Track documents; captured reports for the insertions (Wi-Fi before the
cell, signal strength after it, the append mask).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from tracker.position import MAX_TIMESTAMP_MS
from tracker.vendors.queclink.models import SIGNAL_TYPES, device_type, has_append_mask
from tracker.vendors.queclink.text import TextFrame

#: Fields of a group before its longitude.
_BEFORE: Final = 4
#: Fields of a place: accuracy to time.
_PLACE_FIELDS: Final = 7
#: Maximum number of Wi-Fi access points in a group.
_MAX_WIFI: Final = 16
_WIFI_FIELDS: Final = 5
#: Bits of the append mask whose field is known: number of satellites, trigger, jamming state.
_APPENDED: Final = {0: "satellites", 1: "gnss_trigger", 4: "gnss_jamming"}

_NUMBER: Final = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,6})?")
_INTEGER: Final = re.compile(r"[0-9]{1,9}")
_CODE: Final = re.compile(r"[0-9]{0,4}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{0,8}")
_MAC: Final = re.compile(r"[0-9A-Fa-f]{12}")
_MASK: Final = re.compile(r"[0-9A-Fa-f]{2}")
_KILOMETRES: Final = re.compile(r"[0-9]{1,9}\.[0-9]{1,3}")
_EPOCH: Final = datetime(1970, 1, 1)  # naive on purpose: all times in this module are UTC
_MILLISECOND: Final = timedelta(milliseconds=1)


class Group(NamedTuple):
    """A position group; None stands for a field that is empty or malformed."""

    start: int
    """Index of its first field in the body."""
    end: int
    """Index after its last field."""
    accuracy: float | None
    """Dilution of precision; 0 without a fix."""
    speed: float | None
    """km/h."""
    azimuth: float | None
    """Degrees clockwise from north."""
    altitude: float | None
    """Metres."""
    longitude: float | None
    """Degrees; None if the group has no place, or one off the globe."""
    latitude: float | None
    time_ms: int | None
    """UTC time of the fix in milliseconds since 1970."""
    satellites: int | None
    attributes: dict[str, Any]
    """Attributes of the cell and of the appended fields."""
    is_complete: bool
    """False if the group has a field without a name."""


def read_groups(frame: TextFrame, max_groups: int) -> list[Group]:
    """Return the position groups of a frame, in the order of the frame.

    :param max_groups: maximum number of groups; those beyond it are not read.
    """
    groups: list[Group] = []
    end = 0
    places = frame.places[:max_groups]
    for number, place in enumerate(places):
        if place < end:
            continue  # inside the group before it
        following = frame.places[number + 1 :][:1]
        limit = max(place + 3, following[0] - _BEFORE) if following else len(frame.body)
        groups.append(_read(frame, max(end, place - _BEFORE), place, limit))
        end = groups[-1].end
    return groups


def read_empty_group(frame: TextFrame, start: int) -> Group | None:
    """Return the group without a place at an index of the body; None if there is none."""
    end = start + _PLACE_FIELDS
    body = frame.body
    if len(body) <= end or any(body[start + 1 : end]) or _number(body[start]):
        return None
    return _read(frame, start, start + _BEFORE, len(body))


def _read(frame: TextFrame, start: int, place: int, limit: int) -> Group:
    """Return the group of a place.

    :param start: index of its first field.
    :param place: index of the longitude.
    :param limit: index at which the group ends at the latest.
    """
    body = frame.body
    # Fields are missing only at the start of a malformed report.
    accuracy, speed, azimuth, altitude = (
        *([None] * _BEFORE),
        *map(_number, body[start:place]),
    )[-_BEFORE:]
    longitude, latitude = _place(body[place], body[place + 1])
    attributes: dict[str, Any] = {}
    at = _read_wifi(body, place + 3, limit, attributes)
    at = _read_cell(body, at, limit, attributes)
    kind = device_type(frame.version)
    if kind in SIGNAL_TYPES and limit - at >= 3:
        for name, text in zip(("csq_rssi", "csq_ber"), body[at : at + 2], strict=True):
            if _INTEGER.fullmatch(text):
                attributes[name] = int(text)
        at += 2
    is_complete = True
    if at < limit:
        at, is_complete = _read_last(frame, at, limit, attributes)
    return Group(
        start,
        at,
        accuracy,
        speed,
        azimuth,
        altitude,
        longitude,
        latitude,
        milliseconds(body[place + 2]),
        attributes.pop("satellites", None),
        attributes,
        is_complete,
    )


def _read_wifi(body: Sequence[str], at: int, limit: int, attributes: dict[str, Any]) -> int:
    """Read the Wi-Fi access points that some models report; return the index after them."""
    if at + 1 >= limit or not _INTEGER.fullmatch(body[at]) or not _MAC.fullmatch(body[at + 1]):
        return at
    at += 1
    points: list[str] = []
    while at + _WIFI_FIELDS <= limit and _MAC.fullmatch(body[at]) and len(points) < _MAX_WIFI:
        points.append(f"{body[at]},{body[at + 1]}")
        at += _WIFI_FIELDS
    attributes["wifi"] = points
    return at


def _read_cell(body: Sequence[str], at: int, limit: int, attributes: dict[str, Any]) -> int:
    """Read MCC, MNC, LAC and cell ID; return the index after them."""
    cell = body[at : min(at + 4, limit)]
    if len(cell) < 4 or not all(map(_CODE.fullmatch, cell[:2])):
        return at
    if not all(map(_HEX.fullmatch, cell[2:])):
        return at
    for name, text, base in zip(_CELL, cell, (10, 10, 16, 16), strict=True):
        if text:
            attributes[name] = int(text, base)
    return at + 4


_CELL: Final = ("mcc", "mnc", "lac", "cell_id")


def _read_last(
    frame: TextFrame, at: int, limit: int, attributes: dict[str, Any]
) -> tuple[int, bool]:
    """Read the last field of a group, and those that it appends.

    :return: the index after them, and False if one of them has no name.
    """
    body, text = frame.body, frame.body[at]
    if not text.strip("0"):
        return at + 1, True
    if _KILOMETRES.fullmatch(text):
        attributes["mileage"] = float(text)
        return at + 1, True
    if not (has_append_mask(frame.version) and _MASK.fullmatch(text)):
        return at + 1, False
    at += 1
    mask = int(text, 16)
    for bit in range(8):
        if not mask >> bit & 1:
            continue
        name = _APPENDED.get(bit)
        if name is None or at >= limit:
            return at, False  # a field of unknown length follows
        if _INTEGER.fullmatch(body[at]):
            attributes[name] = int(body[at])
        at += 1
    return at, True


def _place(longitude: str, latitude: str) -> tuple[float | None, float | None]:
    if not longitude or not latitude:
        return None, None
    east, north = float(longitude), float(latitude)
    if abs(east) > 180.0 or abs(north) > 90.0:
        return None, None
    return east, north


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def milliseconds(text: str) -> int | None:
    """Return a time in milliseconds since 1970.

    :param text: ``YYYYMMDDHHMMSS``.
    :return: None if the time does not exist, or is before 1970.
    """
    try:
        moment = datetime(
            int(text[:4]),
            int(text[4:6]),
            int(text[6:8]),
            int(text[8:10]),
            int(text[10:12]),
            int(text[12:14]),
        )
    except ValueError:
        return None
    passed = (moment - _EPOCH) // _MILLISECOND
    return passed if 0 <= passed <= MAX_TIMESTAMP_MS else None
