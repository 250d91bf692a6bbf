"""Readers of positions and alarms.

Source of each layout: see :mod:`tracker.vendors.concox.content`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from tracker.vendors.concox.fields import (
    GPS_BYTES,
    GSM_CELL,
    MAX_LEVEL,
    SL4X_CELL,
    WIDE_CELL,
    Cell,
    read_cell,
    read_gps,
    terminal_attributes,
)
from tracker.vendors.concox.readings import (
    Mismatch,
    Reader,
    Reading,
    check_length,
    keep_trailing,
)

_MILEAGE: Final = struct.Struct(">I")
_STATE: Final = struct.Struct("5B")
_UPLOAD: Final = struct.Struct("3B")
_SL4X_UPLOAD: Final = struct.Struct(">3BIh")


def read_gps_only(content: bytes) -> Reading:
    """Read 0x10: a GPS block."""
    attributes: dict[str, Any] = {}
    keep_trailing(attributes, content, GPS_BYTES)
    return Reading(attributes, read_gps(content))


def _place(content: bytes, cell: Cell) -> tuple[dict[str, Any], int]:
    """Return the attributes of the cell after the GPS block, and the offset after them."""
    try:
        return read_cell(content, GPS_BYTES, cell)
    except struct.error:
        return {}, GPS_BYTES


def read_gps_cell(content: bytes) -> Reading:
    """Read 0x12: a GPS block and a cell."""
    gps = read_gps(content)
    attributes, end = _place(content, GSM_CELL)
    keep_trailing(attributes, content, end)
    return Reading(attributes, gps)


def read_position(cell: Cell) -> Reader:
    """Return the reader of 0x22 or 0xA0: GPS block, cell, ACC, upload mode and re-upload."""

    def read(content: bytes) -> Reading:
        gps = read_gps(content)
        # Public frames of this length have a cell ID of four bytes.
        is_wide = cell is GSM_CELL and len(content) == 42
        attributes, end = _place(content, WIDE_CELL if is_wide else cell)
        tail = content[end:]
        # ACC and the mark of a re-upload are 0 or 1.
        if end == GPS_BYTES or len(tail) < _UPLOAD.size or tail[0] > 1 or tail[2] > 1:
            keep_trailing(attributes, content, end)
            return Reading(attributes, gps)
        attributes["acc"], attributes["upload_mode"], buffered = _UPLOAD.unpack_from(tail)
        if len(tail) == _UPLOAD.size + _MILEAGE.size:
            (attributes["mileage"],) = _MILEAGE.unpack_from(tail, _UPLOAD.size)
        else:
            keep_trailing(attributes, tail, _UPLOAD.size)
        return Reading(attributes, gps, buffered=bool(buffered))

    return read


def read_sl4x_position(content: bytes) -> Reading:
    """Read 0x31 of the SL4X family."""
    attributes, end = read_cell(content, GPS_BYTES, SL4X_CELL)
    check_length(content, end + _SL4X_UPLOAD.size)
    acc, mode, buffered, mileage, altitude = _SL4X_UPLOAD.unpack_from(content, end)
    if acc > 1 or buffered > 1:
        raise Mismatch
    attributes |= {"acc": acc, "upload_mode": mode, "mileage": mileage}
    return Reading(attributes, read_gps(content), buffered=bool(buffered), altitude=altitude)


# Alarms.


def _state(attributes: dict[str, Any], content: bytes, offset: int) -> int:
    """Read the state of the device and the alarm; return the code of the alarm."""
    information, voltage, signal, alarm, language = _STATE.unpack_from(content, offset)
    if signal > MAX_LEVEL:
        raise Mismatch
    attributes |= terminal_attributes(information)
    if voltage <= MAX_LEVEL:
        attributes["voltage_level"] = voltage
    else:
        attributes["voltage_code"] = voltage
    attributes |= {"gsm_signal": signal, "alarm": alarm, "language": language}
    return int(alarm)


def _alarm(content: bytes, cell: Cell) -> tuple[Reading, int]:
    """Read GPS block, cell and state; return the offset after them."""
    gps = read_gps(content)
    start = end = GPS_BYTES + 1
    attributes: dict[str, Any] = {}
    if length := content[GPS_BYTES]:
        attributes, end = read_cell(content, start, cell)
        # The documents count the byte of the length itself, too; some devices do not.
        if length - (end - start) not in (0, 1):
            raise Mismatch
    alarm = _state(attributes, content, end)
    return Reading(attributes, gps, alarm=alarm), end + _STATE.size


def _alarm_or_place(content: bytes, cell: Cell) -> tuple[Reading, int]:
    """Read an alarm, or only its GPS block if the rest has another layout."""
    try:
        return _alarm(content, cell)
    except (struct.error, IndexError, Mismatch):
        return Reading({}, read_gps(content)), GPS_BYTES


def read_plain_alarm(content: bytes) -> Reading:
    """Read 0x16: a GPS block, a cell, the state of the device and an alarm."""
    # Public frames of this length have a cell ID of four bytes.
    is_wide = len(content) == 33 and content[GPS_BYTES] == 9
    reading, end = _alarm_or_place(content, WIDE_CELL if is_wide else GSM_CELL)
    keep_trailing(reading.attributes, content, end)
    return reading


def read_mileage_alarm(content: bytes) -> Reading:
    """Read 0x26: 0x16, on some devices with the mileage."""
    reading, end = _alarm_or_place(content, GSM_CELL)
    if reading.alarm is not None and len(content) == end + _MILEAGE.size:
        (reading.attributes["mileage"],) = _MILEAGE.unpack_from(content, end)
    else:
        keep_trailing(reading.attributes, content, end)
    return reading


def read_fence_alarm(cell: Cell) -> Reader:
    """Return the reader of 0x27 or 0xA4: an alarm and the number of a fence."""

    def read(content: bytes) -> Reading:
        reading, end = _alarm_or_place(content, cell)
        if reading.alarm is not None and end < len(content):
            reading.attributes["fence"] = content[end]
            end += 1
        keep_trailing(reading.attributes, content, end)
        return reading

    return read


def read_sl4x_alarm(content: bytes) -> Reading:
    """Read 0x32 of the SL4X family."""
    reading, end = _alarm(content, SL4X_CELL)
    altitude = None
    if len(content) == end + 2:
        altitude = int.from_bytes(content[end:], "big", signed=True)
    else:
        check_length(content, end)
    return reading._replace(altitude=altitude)


def read_cell_alarm(cell: Cell) -> Reader:
    """Return the reader of 0x19 or 0xA5: a cell, the state of the device and an alarm."""

    def read(content: bytes) -> Reading:
        attributes, end = read_cell(content, 0, cell)
        alarm = _state(attributes, content, end)
        keep_trailing(attributes, content, end + _STATE.size)
        return Reading(attributes, alarm=alarm)

    return read
