"""Descriptions of a device's traffic, for ``tracker-admin watch`` and the console."""

from __future__ import annotations

from typing import Any

from tracker.outcomes import Decoded
from tracker.position import iso_milliseconds
from tracker.vendors.concox.content import COMMAND, TIME, read_content
from tracker.vendors.concox.fields import POSITIONED, milliseconds
from tracker.vendors.concox.frames import Frame, decode_frame
from tracker.vendors.concox.login import NUMBER as LOGIN
from tracker.vendors.concox.login import read_login
from tracker.vendors.concox.readings import Reading


def describe(data: bytes, sent: bool) -> dict[str, Any]:
    """Return the content of one frame.

    :param sent: True if the server sent it: an acknowledgement, the time, or a command.
    """
    outcome = decode_frame(data) if data else None
    if not isinstance(outcome, Decoded):
        reason = getattr(outcome, "reason", "the frame is truncated")
        return {"bad": reason, "offset": getattr(outcome, "offset", len(data))}
    frame = outcome.value
    described: dict[str, Any] = {"number": f"{frame.number:#04x}", "serial": frame.serial}
    return described | (_sent(frame) if sent else _received(frame))


def _sent(frame: Frame) -> dict[str, Any]:
    if frame.number == COMMAND:
        content = frame.content
        text = content[5 : 1 + content[0]] if content else b""  # a language may follow
        return {
            "server_flag": int.from_bytes(content[1:5], "big"),
            "command": text.decode(errors="backslashreplace"),
        }
    if frame.number == TIME:
        return _date(frame.content)
    return {"acknowledged": frame.serial}


def _received(frame: Frame) -> dict[str, Any]:
    if frame.number == LOGIN:
        login = read_login(frame.content)
        if login is not None:
            return {name: value for name, value in login._asdict().items() if value is not None}
    reading = read_content(frame)
    if reading is None:
        return {"content": frame.content.hex()}
    return _read(reading)


def _read(reading: Reading) -> dict[str, Any]:
    described = dict(reading.attributes)
    gps = reading.gps
    if gps is None:
        if reading.date:
            described |= _date(reading.date)
    else:
        degrees = gps.degrees or (None, None)
        described |= _date(gps.date) | {
            "latitude": degrees[0],
            "longitude": degrees[1],
            "fix": bool(gps.flags & POSITIONED),
            "satellites": gps.satellites,
            "speed": gps.speed,
            "course": gps.course,
            "buffered": reading.buffered,
        }
    if reading.text is not None:
        described["text"] = reading.text
    elif reading.data is not None:
        described["data"] = reading.data.hex()
    return described


def _date(date: bytes) -> dict[str, Any]:
    time = milliseconds(date) if len(date) == 6 else None
    return {"date": date.hex() if time is None else iso_milliseconds(time)}
