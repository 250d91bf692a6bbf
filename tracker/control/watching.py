"""Devices that a client watches, and their events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from tracker.control.commands import MAX_NAME, Event
from tracker.control.wire import Locator
from tracker.position import iso_milliseconds
from tracker.untrusted import shown


@frozen
class DeviceEvent:
    """An event on the connection of a device."""

    device_id: str
    at: float
    """Seconds since 1970 (UTC)."""
    kind: str
    """``connected``, ``disconnected``, ``received``, ``sent`` or ``rejected``."""
    raw: bytes
    decoded: str
    """JSON, as ``tracker-admin decode`` shows it."""
    truncated: bool
    """True if ``raw`` or ``decoded`` is incomplete because it is too long."""
    dropped: int
    """Number of events that were dropped before this one because they were not read in time."""


Watcher = Callable[[DeviceEvent], None]


class Watches(Locator):
    """Passes each event of a device to its watcher."""

    _log = Logger()

    def __init__(self) -> None:
        super().__init__({Event: self.event_received})
        self._watchers: dict[str, Watcher] = {}

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of the watched devices."""
        return iter(list(self._watchers))

    def set(self, device_id: str, watcher: Watcher | None) -> Watcher | None:
        """Set or (with None) remove the watcher of a device; return the previous one."""
        before = self._watchers.pop(device_id, None)
        if watcher is not None:
            self._watchers[device_id] = watcher
        return before

    def event_received(
        self, *, raw: str | None, decoded: str | None, kind: str, at: float, **facts: Any
    ) -> dict[str, Any]:
        """Pass an event to its watcher; drop it if its time or bytes are malformed."""
        try:
            digits = bytes.fromhex(raw or "")
            iso_milliseconds(int(at * 1000))
        except (ValueError, OverflowError) as error:
            self._log.debug("malformed event dropped: {error}", error=shown(error))
            return {}
        kind = shown(kind, MAX_NAME)
        event = DeviceEvent(raw=digits, decoded=decoded or "", kind=kind, at=at, **facts)
        watcher = self._watchers.get(event.device_id)
        if watcher is not None:
            try:
                watcher(event)
            except Exception:  # noqa: BLE001 - an error of a watcher must not end the connection
                self._log.failure("watcher of {device} failed", device=event.device_id)
        return {}
