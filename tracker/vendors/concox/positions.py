"""Conversion of frames to stream entries.

A frame with a GPS block becomes a position, every other one a message. The payload has nothing
that differs when the device sends the same record again: the serial number and the mark of a
re-upload are in ``extra``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tracker.limits import MESSAGE_BYTES
from tracker.position import MESSAGE, Entry, Position, attribute, iso_milliseconds, truncation
from tracker.vendors.concox.content import HEARTBEATS
from tracker.vendors.concox.fields import (
    ACC_ON,
    ACC_VALID,
    DIFFERENTIAL,
    POSITIONED,
    Gps,
    milliseconds,
)
from tracker.vendors.concox.frames import Frame
from tracker.vendors.concox.readings import Reading

#: The codec of all entries.
CODEC: Final = "gt06"

#: Attribute with the protocol number, which is also the type of a message.
PROTOCOL: Final = "protocol"
MESSAGE_TYPE: Final = "message_type"
#: Attribute with the six bytes of a date that does not exist.
DATE: Final = "date"

#: Numbers of positions and alarms, all from the first documents, whose dates are in the zone of
#: the device. Concox protocol 3.1 has the successors 0x22, 0x26 and 0x28 for dates in UTC.
LOCAL_NUMBERS: Final = frozenset((0x10, 0x12, 0x16, 0x18, 0x24))

#: Codes of alarms that mean the same on all devices whose documents are public. Source: Concox
#: protocol 3.1 and JM-VL03 protocol 1.1.2, chapter on alarms. Other brands use 0x09, 0x0E, 0x0F,
#: 0x18, 0x19 and 0x25 to 0x30 for other alarms.
EVENT_NAMES: Final = {
    0x01: "sos",
    0x02: "power_cut",
    0x03: "vibration",
    0x04: "fence_entered",
    0x05: "fence_left",
    0x06: "over_speed",
    0x0A: "gps_blind_area_entered",
    0x0B: "gps_blind_area_left",
    0x0C: "power_on",
    0x0D: "first_fix",
    0x10: "sim_changed",
    0x11: "power_off",
    0x12: "airplane_mode",
    0x13: "tamper",
    0x14: "door",
    0x15: "low_power_shutdown",
    0x16: "sound",
    0x17: "pseudo_base_station",
    0x20: "deep_sleep",
    0x23: "fall",
    0x32: "unplugged",
    0xFE: "acc_on",
    0xFF: "acc_off",
}

_MINUTE: Final = 60_000


def entry(
    device_id: str,
    frame: Frame,
    reading: Reading | None,
    now: float,
    *,
    zone: int = 0,
    message_bytes: int = MESSAGE_BYTES,
    on_truncated: Callable[[], None] = lambda: None,
) -> Entry:
    """Return the stream entry of a frame from a device that has logged in.

    :param reading: what :func:`~tracker.vendors.concox.content.read_content` returns for the frame.
    :param now: seconds since 1970 (UTC), for a frame without a date that exists.
    :param zone: minutes east of UTC, for the dates of :data:`LOCAL_NUMBERS`.
    :param message_bytes: limit in bytes of a message; a longer one is truncated.
    :param on_truncated: called if the message is truncated.
    """
    offset = zone * _MINUTE if frame.number in LOCAL_NUMBERS else 0
    if reading is not None and reading.gps is not None:
        return _position(device_id, frame, reading, reading.gps, now=now, offset=offset)
    return _message(
        device_id,
        frame,
        reading or Reading({}),
        now=now,
        offset=offset,
        message_bytes=message_bytes,
        on_truncated=on_truncated,
    )


def _position(
    device_id: str, frame: Frame, reading: Reading, gps: Gps, *, now: float, offset: int
) -> Entry:
    attributes: dict[str, Any] = {PROTOCOL: frame.number}
    time = milliseconds(gps.date)
    if time is None:
        attributes[DATE] = attribute(gps.date)
    flags = gps.flags
    if flags & ACC_VALID:
        attributes["acc_flag"] = 1 if flags & ACC_ON else 0
    if flags & DIFFERENTIAL:
        attributes["differential"] = 1
    course = gps.course
    if course is None:
        attributes["flags"] = flags
    attributes |= reading.attributes
    event = 0
    if reading.alarm is not None:
        event = reading.alarm
        if event in EVENT_NAMES:
            attributes["event_name"] = EVENT_NAMES[event]
    degrees = gps.degrees
    has_fix = degrees is not None and time is not None and bool(flags & POSITIONED)
    position = Position(
        device_id=device_id,
        timestamp=iso_milliseconds(_arrival(now) if time is None else time - offset),
        latitude=None if degrees is None else degrees[0],
        longitude=None if degrees is None else degrees[1],
        altitude=reading.altitude,
        angle=course,
        speed=gps.speed,
        satellites=gps.satellites,
        priority=0,
        event=event,
        attributes=attributes,
    )
    mark = ',"buffered":true' if reading.buffered else ""
    fix = "true" if has_fix else "false"
    return position.to_entry(CODEC, f'{{"fix":{fix}{mark},"serial":{frame.serial}}}')


def _message(
    device_id: str,
    frame: Frame,
    reading: Reading,
    *,
    now: float,
    offset: int,
    message_bytes: int,
    on_truncated: Callable[[], None],
) -> Entry:
    content, text = frame.content if reading.data is None else reading.data, reading.text
    if text is not None:
        content = text.encode()
    attributes: dict[str, Any] = {}
    beginning = content[:message_bytes]
    if text is None:
        attributes[MESSAGE] = attribute(beginning)
    else:  # without an incomplete last character
        attributes[MESSAGE] = beginning.decode(errors="ignore")
    attributes |= {MESSAGE_TYPE: frame.number, PROTOCOL: frame.number}
    if len(content) > message_bytes:
        on_truncated()
        attributes |= truncation(content)
    time = milliseconds(reading.date) if reading.date else None
    if reading.date and time is None:
        attributes[DATE] = attribute(reading.date)
    attributes |= reading.attributes
    if reading.alarm in EVENT_NAMES:
        attributes["event_name"] = EVENT_NAMES[reading.alarm]
    position = Position.without_place(
        device_id,
        _arrival(now) if time is None else time - offset,
        attributes,
        event=reading.alarm or 0,
    )
    kind = "status" if frame.number in HEARTBEATS else "message"
    return position.to_entry(CODEC, f'{{"kind":"{kind}","serial":{frame.serial}}}')


def _arrival(now: float) -> int:
    return round(now * 1000)
