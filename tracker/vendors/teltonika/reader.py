"""Conversion of the data of frames and datagrams to stream entries, in the fastest way."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tracker.limits import MESSAGE_BYTES
from tracker.outcomes import Rejected
from tracker.position import Entry
from tracker.vendors.teltonika.avl import Packet
from tracker.vendors.teltonika.content import decode_data
from tracker.vendors.teltonika.layouts import Layouts, RecentLayouts
from tracker.vendors.teltonika.messages import Messages
from tracker.vendors.teltonika.positions import entries


class Reading(NamedTuple):
    """Content of a frame or datagram."""

    entries: list[Entry]
    messages: Messages | None
    """The messages, each with one entry; None for records."""


class EntryReader:
    """Reader of the data of a device; it learns the layouts of the device's records."""

    __slots__ = ("_max_records", "_message_bytes", "_on_truncated", "_recent")

    def __init__(
        self,
        layouts: Layouts,
        max_records: int,
        message_bytes: int = MESSAGE_BYTES,
        on_truncated: Callable[[], None] = lambda: None,
    ) -> None:
        """Start without known layouts.

        :param max_records: limit of records in one frame.
        :param message_bytes: limit in bytes of a message; a longer one is truncated.
        :param on_truncated: called for each message that is truncated.
        """
        self._max_records = max_records
        self._on_truncated = on_truncated
        self._message_bytes = message_bytes
        self._recent = RecentLayouts(layouts)

    def read(
        self, device_id: str, data: bytes, now: float, on_repeated_id: Callable[[], None]
    ) -> Reading | Rejected:
        """Decode data of any codec (codec id to second count).

        :param now: seconds since 1970 (UTC), for a message without a time.
        :param on_repeated_id: called for each record in which an IO ID occurs more than once.
        """
        known = self._recent.entries(device_id, data, self._max_records)
        if known is not None:
            return Reading(known, None)
        outcome = decode_data(data, self._max_records)
        if isinstance(outcome, Rejected):
            return outcome
        content = outcome.value
        if isinstance(content, Packet):
            self._recent.learn(content)
        made = entries(device_id, content, now, on_repeated_id, message_bytes=self._message_bytes)
        if not isinstance(content, Messages):
            return Reading(made, None)
        for message in content.parts:
            if len(message.content) > self._message_bytes:
                self._on_truncated()
        return Reading(made, content)
