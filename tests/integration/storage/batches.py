"""Positions and messages as sinks are given them."""

from __future__ import annotations

from typing import Any, Final

from tracker.interfaces import StoredPosition
from tracker.position import Position, digest

DEVICE: Final = "356307042441013"
CHECKPOINT: Final = {("telemetry:teltonika", "processor"): "1-0"}


def stored(second: int, device: str = DEVICE, **changes: Any) -> StoredPosition:
    """A record of that second of a minute."""
    facts: dict[str, Any] = {
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
    position = Position(**(facts | changes))
    return StoredPosition(
        position, digest(position.to_payload()), "teltonika", "8E", "2026-11-22T10:01:00.000Z"
    )


def message(second: int, device: str = DEVICE, **attributes: Any) -> StoredPosition:
    """What a device said at that second, without a place."""
    nowhere = dict.fromkeys(
        ("latitude", "longitude", "altitude", "angle", "speed", "satellites"), None
    )
    said = attributes or {"message": "RV:07 GPS:1", "message_type": 6}
    return stored(second, device, **nowhere, event=0, attributes=said)
