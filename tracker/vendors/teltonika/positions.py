"""From AVL records to stream entries."""

from __future__ import annotations

from typing import Any, Final

from tracker.position import MAX_TIMESTAMP_MS, Entry, Position, attribute, iso_milliseconds
from tracker.vendors.teltonika.avl import Packet, Record

#: Attribute that keeps the clock of a device that claims a year after 9999.
RAW_TIMESTAMP: Final = "timestamp_ms"

_DEGREE: Final = 10_000_000


def entries(device_id: str, packet: Packet) -> list[Entry]:
    """The stream entries of a packet, one a record, in the order of the wire."""
    codec = packet.codec.name
    return [position(device_id, record).to_entry(codec) for record in packet.records]


def position(device_id: str, record: Record) -> Position:
    """One record as a position.

    Where an IO id occurs several times, the last one wins. A clock beyond what four
    digits of a year can say is no reason to refuse a record, which would block the
    device's queue for good: its time is set to the last one that can be written, and
    the real number stays among the attributes.
    """
    attributes: dict[str, Any] = {}
    for element_id, _, value in record.elements:
        attributes[str(element_id)] = attribute(value)
    for element_id, content in record.variable:
        attributes[str(element_id)] = attribute(content)
    if record.timestamp > MAX_TIMESTAMP_MS:
        attributes[RAW_TIMESTAMP] = attribute(record.timestamp)
    return Position(
        device_id=device_id,
        timestamp=iso_milliseconds(min(record.timestamp, MAX_TIMESTAMP_MS)),
        latitude=record.latitude / _DEGREE,
        longitude=record.longitude / _DEGREE,
        altitude=record.altitude,
        angle=record.angle,
        speed=record.speed,
        satellites=record.satellites,
        priority=record.priority,
        event=record.event,
        attributes=attributes,
    )
