"""Positions and messages for sinks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tracker.interfaces import StoredPosition
from tracker.log.entries import StreamEntry
from tracker.position import Position, digest
from tracker.processing.decoding import stored_position

DEVICE: Final = "356307042441013"
CHECKPOINT: Final = {("telemetry:teltonika", "processor"): "1-0"}


def stored(second: int, device: str = DEVICE, **changes: Any) -> StoredPosition:
    """Return a position with the given second in its time, which arrives at once."""
    fields: dict[str, Any] = {
        "device_id": device,
        "timestamp": f"2026-11-22T10:00:{second:02}.000Z",
        "latitude": 41.3275,
        "longitude": 19.8187,
        "altitude": -6,
        "angle": 214,
        "speed": 43,
        "satellites": 14,
        "priority": 0,
        "event": 239,
        "attributes": {"239": 1, "78": {"__bigint": "13835058055282163712"}},
    }
    position = Position(**(fields | changes))
    return StoredPosition(
        position, digest(position.to_payload()), "teltonika", "8E", position.timestamp
    )


def processed(position: Position, arrival: str) -> StoredPosition:
    """Return a position as the processor stores it.

    :param arrival: the time at which its entry was appended.
    """
    since = datetime.fromisoformat(arrival) - datetime(1970, 1, 1, tzinfo=UTC)
    fields = position.to_entry("8E")._asdict().items()
    content = [part.encode() for pair in fields for part in pair]
    entry = StreamEntry("telemetry:teltonika", f"{since // timedelta(milliseconds=1)}-0", content)
    return stored_position(entry, "teltonika")


def message(second: int, device: str = DEVICE, **attributes: Any) -> StoredPosition:
    """Return a message, which has no coordinates, with the given second in its time."""
    no_coordinates = dict.fromkeys(
        ("latitude", "longitude", "altitude", "angle", "speed", "satellites"), None
    )
    content = attributes or {"message": "RV:07 GPS:1", "message_type": 6}
    return stored(second, device, **no_coordinates, event=0, attributes=content)
