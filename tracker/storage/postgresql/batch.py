"""Transactions that store a batch.

Rows are copied into a temporary table of the connection, and from there inserted in the order of
their keys. Processors with the same devices or the same entries thus take locks in the same order,
which prevents deadlocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from psycopg import sql

from tracker.clock import ClockRule
from tracker.interfaces import Batch, StoredPosition
from tracker.log.entries import entry_order
from tracker.storage.places import postgresql_place
from tracker.storage.postgresql.connection import Connection
from tracker.storage.rows import encode_json, message_columns, pieces

CREATE_STAGING: Final = """
CREATE TEMPORARY TABLE tracker_batch (
    device_id       text COLLATE "C",
    ts              timestamptz(3),
    digest          bytea,
    vendor          text,
    codec           text,
    latitude        double precision,
    longitude       double precision,
    altitude        integer,
    angle           integer,
    speed           integer,
    satellites      integer,
    priority        integer,
    event           integer,
    generation_type integer,
    attributes      jsonb,
    named           jsonb,
    received_at     timestamptz(3),
    extra           json,
    is_place        boolean,
    is_message      boolean,
    type            integer,
    name            text,
    message         text
) ON COMMIT DELETE ROWS
"""
_COPY: Final = "COPY pg_temp.tracker_batch FROM STDIN"

#: Columns that positions and last_positions share with the staging table.
RECORD: Final = (
    *("digest", "vendor", "codec", "latitude", "longitude", "altitude", "angle", "speed"),
    *("satellites", "priority", "event", "generation_type", "attributes", "named"),
    *("received_at", "extra"),
)
_COLUMNS: Final = f"device_id, ts, {', '.join(RECORD)}"

_INSERT_POSITIONS: Final = f"""
INSERT INTO positions ({_COLUMNS})
SELECT {_COLUMNS} FROM pg_temp.tracker_batch WHERE NOT is_message
ORDER BY device_id, ts, digest
ON CONFLICT DO NOTHING
"""  # noqa: S608 - made of constants

_INSERT_MESSAGES: Final = """
INSERT INTO messages (
    device_id, ts, digest, vendor, codec, type, name, message, attributes, received_at, extra
)
SELECT device_id, ts, digest, vendor, codec, type, name, message, attributes, received_at, extra
FROM pg_temp.tracker_batch WHERE is_message
ORDER BY device_id, ts, digest
ON CONFLICT DO NOTHING
"""

# Of two records with the same time the one with the greater digest wins, so that the result does
# not depend on their order. A row of an earlier version may hold coordinates that are not a place,
# or a time that no record exceeds; any place replaces it.
_NEWER: Final = (
    "(excluded.ts IS NOT NULL AND (l.ts IS NULL "
    "OR (excluded.ts, excluded.digest) > (l.ts, l.digest) OR NOT {place}))"
)
# Earlier versions stored the latest time of any record, which may be in the future.
_IN_FUTURE: Final = "l.last_contact > now() + interval '{tolerance} seconds'"
_COORDINATES: Final = ", ".join(
    f"{column} = CASE WHEN {_NEWER} THEN excluded.{column} ELSE l.{column} END"
    for column in ("ts", *RECORD)
)
_LAST_POSITIONS: Final = f"""
INSERT INTO last_positions AS l (device_id, last_contact, ts, {", ".join(RECORD)})
SELECT device_id, last_contact, ts, {", ".join(RECORD)}
FROM (
    SELECT device_id, max(received_at) AS last_contact FROM pg_temp.tracker_batch GROUP BY device_id
) AS contact
LEFT JOIN (
    SELECT DISTINCT ON (device_id) {_COLUMNS} FROM pg_temp.tracker_batch WHERE is_place
    ORDER BY device_id, ts DESC, digest DESC
) AS latest USING (device_id)
ORDER BY device_id
ON CONFLICT (device_id) DO UPDATE SET
    last_contact = CASE WHEN {_IN_FUTURE} THEN excluded.last_contact
        ELSE greatest(l.last_contact, excluded.last_contact) END,
    {_COORDINATES}
WHERE excluded.last_contact > l.last_contact OR {_IN_FUTURE} OR {_NEWER}
"""  # noqa: S608 - made of constants

# The statement before it has locked the rows.
_CLOCK_ERRORS: Final = """
UPDATE last_positions AS l
SET clock_error = wrong.kind, clock_error_ts = wrong.ts, clock_error_at = wrong.received_at
FROM (
    SELECT DISTINCT ON (device_id) device_id, extra->>'clock' AS kind, ts, received_at
    FROM pg_temp.tracker_batch WHERE extra->>'clock' IS NOT NULL
    ORDER BY device_id, received_at DESC, ts DESC, kind DESC
) AS wrong
WHERE l.device_id = wrong.device_id AND (l.clock_error_at IS NULL
    OR (wrong.received_at, wrong.ts) > (l.clock_error_at, l.clock_error_ts))
"""

_READ_CHECKPOINT: Final = "SELECT entry_id FROM checkpoints WHERE stream = %s AND group_name = %s"
# Pending entries may be delivered after later ones; checkpoints never decrease.
_ORDER: Final = "(split_part({0}, '-', 1)::numeric, split_part({0}, '-', 2)::numeric)"
_WRITE_CHECKPOINT: Final = f"""
INSERT INTO checkpoints AS c (stream, group_name, entry_id) VALUES ($1, $2, $3)
ON CONFLICT (stream, group_name) DO UPDATE SET entry_id = excluded.entry_id
WHERE {_ORDER.format("excluded.entry_id")} > {_ORDER.format("c.entry_id")}
"""  # noqa: S608 - made of constants


_PREPARE: Final = f"""
PREPARE tracker_positions AS {_INSERT_POSITIONS};
PREPARE tracker_messages AS {_INSERT_MESSAGES};
PREPARE tracker_last_positions AS {_LAST_POSITIONS};
PREPARE tracker_clock_errors AS {_CLOCK_ERRORS};
PREPARE tracker_checkpoint (text, text, text) AS {_WRITE_CHECKPOINT}
"""


def prepare(connection: Connection, clocks: ClockRule) -> None:
    """Prepare the statements of :func:`store` on a connection.

    :param connection: a connection in autocommit mode that has executed :data:`CREATE_STAGING`.
    :param clocks: the rule that times of records must meet.
    :raises psycopg.Error: if that fails, for example because a table lacks a column.
    """
    place = postgresql_place(clocks, "l.")
    connection.execute(_PREPARE.format(place=place, tolerance=clocks.clock_tolerance))


def store(connection: Connection, batch: Batch) -> int:
    """Commit a batch.

    :param connection: a connection after :func:`prepare`.
    :return: the number of new positions and messages.
    :raises psycopg.Error: if that fails; the caller must roll back a transaction that is open.
    """
    for entry_id in batch.checkpoints.values():
        entry_order(entry_id)
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    if batch.positions:
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            # The server reads a piece while the next one is built.
            for piece in pieces(map(_copy_row, batch.positions)):
                copy.write(piece.encode("utf-8", "surrogatepass"))
    inserts = []
    if batch.positions:
        inserts.append("positions")
        if any(stored.position.is_message for stored in batch.positions):
            inserts.append("messages")
    statements = [f"EXECUTE tracker_{table}" for table in inserts]
    if batch.positions:
        statements.append("EXECUTE tracker_last_positions")
        if any(stored.extra.clock is not None for stored in batch.positions):
            statements.append("EXECUTE tracker_clock_errors")
    for (stream, group), entry_id in sorted(batch.checkpoints.items()):
        checkpoint = sql.SQL("EXECUTE tracker_checkpoint ({}, {}, {})")
        statements.append(checkpoint.format(stream, group, entry_id).as_string(connection))
    # All statements that take locks are sent with COMMIT in one message. If this process hangs
    # before it, no lock is held; after it, the server commits without this process. In a pipeline
    # a process that hangs before COMMIT keeps its locks: the server's timeouts of statements and
    # of idle transactions do not apply there.
    cursor = connection.execute("; ".join((*statements, "COMMIT")))
    new = 0
    for _ in inserts:
        new += cursor.rowcount
        cursor.nextset()
    return new


def read_checkpoint(connection: Connection, stream: str, group: str) -> str | None:
    """Return the ID of a checkpoint, or None.

    :raises psycopg.Error: if the query fails.
    """
    row = connection.execute(_READ_CHECKPOINT, (stream, group)).fetchone()
    return None if row is None else row[0]


def _copy_row(stored: StoredPosition) -> str:
    position = stored.position
    named = "\\N" if stored.named is None else _json(stored.named)
    # As it stands in the entry, perhaps with line ends between its parts.
    extra = _escaped(stored.extra.text) if stored.extra.text else "\\N"
    rest = f"{'t' if stored.is_place else 'f'}\tf\t\\N\t\\N\t\\N"
    if position.is_message:
        columns = message_columns(position.attributes)
        name, text = map(_text_or_null, (columns.name, columns.message))
        rest = f"f\tt\t{_null(columns.type)}\t{name}\t{text}"
    return (
        f"{_escaped(position.device_id)}\t{position.timestamp}\t\\\\x{stored.digest.hex()}\t"
        f"{_escaped(stored.vendor)}\t{_escaped(stored.codec)}\t"
        f"{_null(position.latitude)}\t{_null(position.longitude)}\t{_null(position.altitude)}\t"
        f"{_null(position.angle)}\t{_null(position.speed)}\t{_null(position.satellites)}\t"
        f"{position.priority}\t{position.event}\t{_null(position.generation_type)}\t"
        f"{_json(position.attributes)}\t{named}\t{stored.received_at}\t{extra}\t{rest}\n"
    )


def _json(value: Mapping[str, Any]) -> str:
    text = encode_json(value)
    return text.replace("\\", "\\\\") if "\\" in text else text


def _null(value: float | None) -> Any:
    return "\\N" if value is None else value


def _text_or_null(text: str | None) -> str:
    return "\\N" if text is None else _escaped(text)


def _escaped(text: str) -> str:
    # Source: PostgreSQL documentation, COPY, "Text Format".
    if text.isalnum():
        return text
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
