"""Frames of a device, as simulators and tests write them.

Source of each layout: see :mod:`tracker.vendors.concox.content`.
"""

from __future__ import annotations

import struct
from typing import Final

from attrs import frozen

from tracker.vendors.concox.content import ALARM, HEARTBEAT, LONG_STRING, POSITION
from tracker.vendors.concox.fields import (
    ACC_ON,
    ACC_VALID,
    NORTH,
    POSITIONED,
    UNITS_PER_DEGREE,
    WEST,
    Gps,
    date_bytes,
    write_gps,
)
from tracker.vendors.concox.frames import Frame
from tracker.vendors.concox.messages import ASCII

_CELL: Final = struct.Struct(">HBH3s")
_LANGUAGE: Final = 2


@frozen
class State:
    """The state of a device, as heartbeats and alarms report it."""

    acc: bool = False
    charging: bool = True
    gps_on: bool = True
    oil_cut: bool = False
    armed: bool = False
    voltage_level: int = 6
    """0 to 6."""
    gsm_signal: int = 4
    """0 to 4."""

    def encode(self, alarm: int = 0) -> bytes:
        """Return the bytes of the state, with the code of an alarm."""
        information = (
            self.oil_cut << 7 | self.gps_on << 6 | self.charging << 2 | self.acc << 1 | self.armed
        )
        return bytes((information, self.voltage_level, self.gsm_signal, alarm, _LANGUAGE))


@frozen
class Report:
    """A position of a device."""

    time: float
    """Seconds since 1970 (UTC)."""
    latitude: float
    """Degrees."""
    longitude: float
    speed: int = 0
    """km/h, at most 255."""
    course: int = 0
    """Degrees from north."""
    satellites: int = 9
    """At most 15."""
    fix: bool = True
    acc: bool = True
    cell: tuple[int, int, int, int] = (460, 0, 0x287D, 0x001F71)
    """MCC, MNC of one byte, LAC, cell ID of three bytes."""

    @property
    def gps(self) -> Gps:
        """The GPS block."""
        flags = self.course | ACC_VALID
        flags |= POSITIONED if self.fix else 0
        flags |= ACC_ON if self.acc else 0
        flags |= NORTH if self.latitude >= 0 else 0
        flags |= WEST if self.longitude < 0 else 0
        return Gps(
            date_bytes(self.time),
            self.satellites,
            round(abs(self.latitude) * UNITS_PER_DEGREE),
            round(abs(self.longitude) * UNITS_PER_DEGREE),
            self.speed,
            flags,
        )

    def encode_cell(self) -> bytes:
        """Return the bytes of the cell."""
        mcc, mnc, lac, cell_id = self.cell
        return _CELL.pack(mcc, mnc, lac, cell_id.to_bytes(3, "big"))


def heartbeat_frame(state: State, serial: int) -> Frame:
    """Return a heartbeat, 0x13."""
    return Frame(HEARTBEAT, state.encode(), serial)


def position_frame(
    report: Report, serial: int, *, upload_mode: int = 0, buffered: bool = False
) -> Frame:
    """Return a position, 0x22.

    :param upload_mode: the reason why it is sent; 0 is time.
    :param buffered: True for a position that was stored, and is sent later.
    :raises struct.error: if a number does not fit its field.
    """
    tail = bytes((report.acc, upload_mode, buffered))
    return Frame(POSITION, write_gps(report.gps) + report.encode_cell() + tail, serial)


def alarm_frame(report: Report, state: State, alarm: int, serial: int) -> Frame:
    """Return an alarm, 0x26.

    :param alarm: its code; 1 is SOS.
    :raises struct.error: if a number does not fit its field.
    """
    cell = report.encode_cell()
    length = bytes((1 + len(cell),))
    return Frame(ALARM, write_gps(report.gps) + length + cell + state.encode(alarm), serial)


def answer_frame(text: str, flag: int, serial: int) -> Frame:
    """Return the answer to a command, 0x21.

    :param text: ASCII.
    :param flag: the server flag of the command.
    """
    content = flag.to_bytes(4, "big") + bytes((ASCII,)) + text.encode("ascii")
    return Frame(LONG_STRING, content, serial, extended=True)
