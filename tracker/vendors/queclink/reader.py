"""Conversion of the frames of both encodings to stream entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tracker.limits import Limits
from tracker.position import Entry
from tracker.vendors.queclink.framing import DeviceFrame
from tracker.vendors.queclink.hexrecords import hex_records
from tracker.vendors.queclink.records import text_records
from tracker.vendors.queclink.text import TextFrame


class Reading(NamedTuple):
    """The content of a frame."""

    entries: Sequence[Entry]
    notice: str
    """An oddity of the frame, in one line; empty without one."""


class EntryReader:
    """Reader of the frames of one connection or port."""

    __slots__ = ("_limits", "_on_truncated", "_zone")

    def __init__(self, limits: Limits, zone: int, on_truncated: Callable[[], None]) -> None:
        """Start to read.

        :param zone: offset of the devices' clocks from UTC, in seconds.
        :param on_truncated: called for each message that is truncated because of its length.
        """
        self._limits = limits
        self._zone = zone
        self._on_truncated = on_truncated

    def read(self, frame: DeviceFrame, device_id: str, now: float) -> Reading:
        """Return the entries of a frame, in its order.

        :param device_id: ID of the device that has sent the frame.
        :param now: seconds since 1970 (UTC), for a frame without a valid time.
        """
        zone, records, size = self._zone, self._limits.records, self._limits.message_bytes
        if isinstance(frame, TextFrame):
            read = text_records(frame, now, zone, max_records=records, message_bytes=size)
        else:
            read = hex_records(frame, device_id, now, zone, max_records=records, message_bytes=size)
        if read.is_truncated:
            self._on_truncated()
        return Reading(read.entries, read.notice)
