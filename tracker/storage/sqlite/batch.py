"""Transactions that store a batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from tracker.clock import ClockRule
from tracker.interfaces import Batch, StoredPosition
from tracker.log.entries import entry_order
from tracker.storage.places import sqlite_place
from tracker.storage.rows import encode_json, message_columns
from tracker.storage.sqlite.connection import transaction

_INSERT_POSITION: Final = """
INSERT INTO positions (
    device_id, ts, digest, vendor, codec, latitude, longitude, altitude, angle, speed,
    satellites, priority, event, attributes, received_at, generation_type,
    named, extra
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (device_id, ts, digest) DO NOTHING
"""

_INSERT_MESSAGE: Final = """
INSERT INTO messages (
    device_id, ts, digest, vendor, codec, type, name, message, attributes, received_at, extra
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (device_id, ts, digest) DO NOTHING
"""

# Earlier versions stored the latest time of any record, which may be in the future.
_CONTACT: Final = """
INSERT INTO last_positions (device_id, last_contact) VALUES (?, ?)
ON CONFLICT (device_id) DO UPDATE SET last_contact = excluded.last_contact
WHERE excluded.last_contact > last_contact
    OR last_contact > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '{tolerance} seconds')
"""

# Of two records with the same time the one with the greater digest wins, so that the result does
# not depend on their order. A row of an earlier version may hold coordinates that are not a place,
# or a time that no record exceeds; any place replaces it. _CONTACT has created the row.
_COORDINATES: Final = """
UPDATE last_positions SET
    ts = ?2, digest = ?3, vendor = ?4, codec = ?5, latitude = ?6, longitude = ?7,
    altitude = ?8, angle = ?9, speed = ?10, satellites = ?11, priority = ?12, event = ?13,
    attributes = ?14, received_at = ?15, generation_type = ?16, named = ?17,
    extra = ?18
WHERE device_id = ?1 AND (ts IS NULL OR (?2, ?3) > (ts, digest) OR NOT {place})
"""

_CLOCK_ERROR: Final = """
UPDATE last_positions SET clock_error = ?2, clock_error_ts = ?3, clock_error_at = ?4
WHERE device_id = ?1 AND (clock_error_at IS NULL OR (?4, ?3) > (clock_error_at, clock_error_ts))
"""

_READ_CHECKPOINT: Final = "SELECT entry_id FROM checkpoints WHERE stream = ? AND group_name = ?"
_WRITE_CHECKPOINT: Final = """
INSERT INTO checkpoints (stream, group_name, entry_id) VALUES (?, ?, ?)
ON CONFLICT (stream, group_name) DO UPDATE SET entry_id = excluded.entry_id
"""


def store(database: sqlite3.Connection, batch: Batch, clocks: ClockRule) -> int:
    """Commit a batch atomically.

    :param database: a connection that autocommits.
    :param clocks: the rule that times of records must meet.
    :return: the number of new positions and messages.
    :raises Exception: see :func:`tracker.storage.sqlite.connection.is_refusal`.
    """
    positions = [one for one in batch.positions if not one.position.is_message]
    messages = [one for one in batch.positions if one.position.is_message]
    with transaction(database):
        before = database.total_changes
        database.executemany(_INSERT_POSITION, map(_row, positions))
        database.executemany(_INSERT_MESSAGE, map(_message_row, messages))
        new = database.total_changes - before
        contact = _CONTACT.format(tolerance=clocks.clock_tolerance)
        database.executemany(contact, _latest_contacts(batch.positions))
        coordinates = _COORDINATES.format(place=sqlite_place(clocks))
        database.executemany(coordinates, _latest_positions(positions))
        database.executemany(_CLOCK_ERROR, _latest_clock_errors(batch.positions))
        for (stream, group), entry_id in batch.checkpoints.items():
            _raise_checkpoint(database, stream, group, entry_id)
    return new


def read_checkpoint(database: sqlite3.Connection, stream: str, group: str) -> str | None:
    """Return the ID of a checkpoint, or None."""
    known = database.execute(_READ_CHECKPOINT, (stream, group)).fetchone()
    return None if known is None else known[0]


def _row(stored: StoredPosition) -> tuple[Any, ...]:
    position = stored.position
    return (
        position.device_id,
        position.timestamp,
        stored.digest,
        stored.vendor,
        stored.codec,
        position.latitude,
        position.longitude,
        position.altitude,
        position.angle,
        position.speed,
        position.satellites,
        position.priority,
        position.event,
        encode_json(position.attributes),
        stored.received_at,
        position.generation_type,
        None if stored.named is None else encode_json(stored.named),
        stored.extra.text or None,
    )


def _message_row(stored: StoredPosition) -> tuple[Any, ...]:
    position = stored.position
    return (
        position.device_id,
        position.timestamp,
        stored.digest,
        stored.vendor,
        stored.codec,
        *message_columns(position.attributes),
        encode_json(position.attributes),
        stored.received_at,
        stored.extra.text or None,
    )


def _latest_contacts(positions: Iterable[StoredPosition]) -> Iterable[tuple[str, str]]:
    latest: dict[str, str] = {}
    for stored in positions:
        device_id, received_at = stored.position.device_id, stored.received_at
        if received_at > latest.get(device_id, ""):
            latest[device_id] = received_at
    return latest.items()


def _latest_clock_errors(positions: Iterable[StoredPosition]) -> Iterable[tuple[Any, ...]]:
    latest: dict[str, tuple[str, str, str]] = {}
    for stored in positions:
        if (kind := stored.extra.clock) is not None:
            device_id = stored.position.device_id
            error = (stored.received_at, stored.position.timestamp, kind)
            latest[device_id] = max(latest.get(device_id, error), error)
    return ((device_id, kind, ts, at) for device_id, (at, ts, kind) in latest.items())


def _latest_positions(positions: Iterable[StoredPosition]) -> Iterable[tuple[Any, ...]]:
    latest: dict[str, StoredPosition] = {}
    for stored in positions:
        position = stored.position
        best = latest.get(position.device_id)
        if stored.is_place and (best is None or _moment(stored) > _moment(best)):
            latest[position.device_id] = stored
    return map(_row, latest.values())


def _moment(stored: StoredPosition) -> tuple[str, bytes]:
    return stored.position.timestamp, stored.digest


def _raise_checkpoint(database: sqlite3.Connection, stream: str, group: str, entry_id: str) -> None:
    # Pending entries may be delivered after later ones; checkpoints never decrease.
    known = read_checkpoint(database, stream, group)
    if known is None or entry_order(known) < entry_order(entry_id):
        database.execute(_WRITE_CHECKPOINT, (stream, group, entry_id))
