"""Conversion of frames in the HEX encoding to positions and stream entries.

The attributes have the names of the ASCII encoding. As there, a record without a fix, and a
message, has the send time; and the payload of a frame is the same under whichever header, and
however often, the device sends it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tracker.position import (
    MAX_TIMESTAMP_MS,
    MESSAGE,
    Entry,
    Position,
    has_fix,
    iso_milliseconds,
    truncation,
)
from tracker.vendors.queclink.groups import milliseconds
from tracker.vendors.queclink.hexfields import Groups, HexGroup, read_head, read_insert, read_tail
from tracker.vendors.queclink.hexframes import HexFrame
from tracker.vendors.queclink.layouts import EVENT_NAMES, LAST_FIX
from tracker.vendors.queclink.models import MODELS, device_type
from tracker.vendors.queclink.records import PART, RAW, TOO_MANY, Records

#: Codec of the entries of frames in this encoding.
HEX: Final = "hex"
#: Attribute with the bytes after the positions that have no name.
RAW_TAIL: Final = "raw_tail"

_PANIC: Final = 2
_SOS: Final = "GTSOS"


def hex_records(
    frame: HexFrame,
    device_id: str,
    now: float,
    zone: int,
    *,
    max_records: int,
    message_bytes: int,
) -> Records:
    """Return the entries of a frame.

    :param device_id: ID of the device that has sent the frame.
    :param now: seconds since 1970 (UTC), for a frame without a valid time.
    :param zone: offset of the devices' clocks from UTC, in seconds.
    :param max_records: maximum number of positions of a frame; further ones are not read.
    :param message_bytes: limit in characters of a message; a longer one is truncated, and its
        length and SHA-256 are added.
    """
    if frame.is_heartbeat:
        return Records([])
    sent = milliseconds(frame.send_time) if frame.send_time else None
    if sent is not None and not 0 <= sent - zone * 1000 <= MAX_TIMESTAMP_MS:
        sent = None
    event_ms = int(now * 1000) if sent is None else sent - zone * 1000
    found = frame.groups
    if found is None or not frame.has_place:
        return _message(frame, device_id, event_ms, message_bytes)
    base = _base(frame)
    state, before, after = _around(frame, found)
    groups = found.groups[:max_records]
    entries = []
    for number, group in enumerate(groups, 1):
        attributes = {**base, **before}
        if len(groups) > 1:
            attributes[PART] = number
        attributes |= {**group.cell, "accuracy": float(group.accuracy)}
        if group.speed is not None and not group.speed.is_integer():
            attributes["speed_kmh"] = group.speed
        if number == len(groups):
            attributes |= {**state, **after}
        entries.append(_position(frame, device_id, _placed(group, event_ms), attributes))
    return Records(entries, TOO_MANY if len(found.groups) > max_records else "")


class _Place(NamedTuple):
    """A position group with the time of its record."""

    group: HexGroup
    fix: bool
    time_ms: int


def _placed(group: HexGroup, event_ms: int) -> _Place:
    fix = has_fix(group.latitude, group.longitude, None, group.accuracy != 0)
    return _Place(group, fix, group.time_ms if fix and group.time_ms else event_ms)


def _position(frame: HexFrame, device_id: str, place: _Place, attributes: dict[str, Any]) -> Entry:
    group = place.group
    if not place.fix and group.time_ms is not None:
        attributes[LAST_FIX] = iso_milliseconds(group.time_ms)
    made = Position(
        device_id=device_id,
        timestamp=iso_milliseconds(place.time_ms),
        latitude=group.latitude,
        longitude=group.longitude,
        altitude=group.altitude,
        angle=group.azimuth,
        speed=None if group.speed is None else round(group.speed),
        satellites=attributes.pop("satellites", None),
        priority=_priority(frame),
        event=0,
        attributes=attributes,
    )
    return made.to_entry(HEX, _extra(frame, place.fix))


def _base(frame: HexFrame) -> dict[str, Any]:
    """Return the attributes that all frames have."""
    name = "command_answer" if frame.kind == "ACK" else EVENT_NAMES.get(frame.report)
    attributes: dict[str, Any] = {"report": frame.report}
    for key, value in (
        ("event_name", name),
        ("version", frame.version),
        ("model", MODELS.get(device_type(frame.version))),
        ("firmware_version", frame.firmware),
        ("device_name", frame.name),
        ("send_time", frame.send_time),
        ("count", frame.count_number),
        ("second_mask", frame.second_mask.hex().upper()),
    ):
        if value:
            attributes[key] = value
    return attributes


def _around(
    frame: HexFrame, groups: Groups
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the attributes of the head, of the type, and after the positions."""
    body = frame.body
    state, _ = read_head(body, frame.mask)
    insert = body[frame.head_end : groups.start]
    before, rest = read_insert(frame.kind, frame.number, insert)
    if any(rest):
        before[RAW] = rest.hex().upper()
    after, rest = read_tail(body[groups.end :], frame.mask)
    if any(rest):
        after[RAW_TAIL] = rest.hex().upper()
    return state, before, after


def _message(frame: HexFrame, device_id: str, timestamp_ms: int, message_bytes: int) -> Records:
    """Return the entry of a frame without a place: its bytes as hex digits."""
    attributes = _base(frame)
    if frame.serial:
        attributes["serial"] = frame.serial
    if frame.groups is not None:
        state, before, after = _around(frame, frame.groups)
        attributes |= {**state, **before, **frame.groups.groups[-1].cell, **after}
    text = frame.content.hex().upper()
    is_truncated = len(text) > message_bytes
    if is_truncated:
        attributes |= truncation(text.encode("ascii"))
    attributes[MESSAGE] = text[:message_bytes]
    made = Position.without_place(device_id, timestamp_ms, attributes, priority=_priority(frame))
    return Records([made.to_entry(HEX, _extra(frame, None))], is_truncated=is_truncated)


def _priority(frame: HexFrame) -> int:
    return _PANIC if frame.kind == "RSP" and frame.report == _SOS else 0


def _extra(frame: HexFrame, fix: bool | None) -> str:
    buffered = "true" if frame.header[1] == "B" else "false"
    mark = "" if fix is None else f',"fix":{"true" if fix else "false"}'
    return f'{{"header":"{frame.header}","buffered":{buffered}{mark}}}'
