"""The devices that a client watches, and their events."""

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
    """Something that has happened on the connection of a device."""

    device_id: str
    at: float
    """Seconds since 1970 (UTC)."""
    kind: str
    """``connected``, ``disconnected``, ``received``, ``sent`` or ``rejected``."""
    raw: bytes
    decoded: str
    """JSON, as ``tracker-admin decode`` shows it."""
    truncated: bool
    """True if a part of it is missing, since it is too long."""
    dropped: int
    """Events before this one that were left out, since they were not read in time."""


Watcher = Callable[[DeviceEvent], None]


class Watches(Locator):
    """Pass each event of a device to its watcher."""

    _log = Logger()

    def __init__(self) -> None:
        super().__init__({Event: self.happened})
        self._watchers: dict[str, Watcher] = {}

    def __iter__(self) -> Iterator[str]:
        """Iterate over the devices that are watched."""
        return iter(list(self._watchers))

    def set(self, device_id: str, watcher: Watcher | None) -> Watcher | None:
        """Replace the watcher of a device, and return the former one. None: there is none."""
        before = self._watchers.pop(device_id, None)
        if watcher is not None:
            self._watchers[device_id] = watcher
        return before

    def happened(
        self, *, raw: str | None, decoded: str | None, kind: str, at: float, **facts: Any
    ) -> dict[str, Any]:
        """Pass on an event; drop it if its time or bytes are malformed."""
        try:
            digits = bytes.fromhex(raw or "")
            iso_milliseconds(int(at * 1000))
        except (ValueError, OverflowError) as error:
            self._log.debug("an event is left out: {error}", error=shown(error))
            return {}
        kind = shown(kind, MAX_NAME)
        event = DeviceEvent(raw=digits, decoded=decoded or "", kind=kind, at=at, **facts)
        watcher = self._watchers.get(event.device_id)
        if watcher is not None:
            try:
                watcher(event)
            except Exception:  # noqa: BLE001 - a fault of the watcher, which ends nothing here
                self._log.failure("the watcher of {device} has failed", device=event.device_id)
        return {}
