"""Frames that tests build."""

from __future__ import annotations

from tests.unit.vendors.concox.golden import Golden
from tracker.outcomes import Decoded
from tracker.vendors.concox.fields import Gps, write_gps
from tracker.vendors.concox.frames import Frame, decode_frame
from tracker.vendors.concox.reports import Report

#: 2024-03-15 12:00:00 UTC.
TIME = 1_710_504_000
REPORT = Report(TIME, 41.3275, -19.8187, speed=43, course=214, satellites=3)
CELL = bytes.fromhex("01cc00287d001f71")


def frame_of(golden: Golden) -> Frame:
    outcome = decode_frame(golden.data)
    assert isinstance(outcome, Decoded)
    return outcome.value


def position(gps: Gps, *, number: int = 0x12, serial: int = 1) -> Frame:
    """Return the frame of a position with a cell."""
    return Frame(number, write_gps(gps) + CELL, serial)
