"""Repair of rows in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from attrs import evolve

from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.interfaces import SinkDown, SinkTimedOut, SinkUnusable
from tracker.storage.places import postgresql_place
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.batch import RECORD
from tracker.storage.postgresql.connection import cannot_open, connect, error_text
from tracker.storage.postgresql.reader import ISO
from tracker.storage.postgresql.schema import is_current
from tracker.storage.repair import (
    PAGE_DEVICES,
    PAGE_LENGTH,
    PAGE_ROWS,
    Changes,
    Key,
    RepairedDatabase,
    Row,
)

#: Advisory lock that is held during a repair.
_LOCK: Final = 0x7472_6163_6B65_7202

# The search for the latest place of a device may pass over all of its records. It takes no locks.
_SESSION: Final = """
SELECT set_config('statement_timeout', '10min', false),
    set_config('lock_timeout', '5s', false),
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('default_transaction_read_only', %s, false)
"""

#: Errors because other sessions lock the rows.
_BUSY: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)

_SAME_KEY: Final = "(p.device_id, p.ts, p.digest) = (l.device_id, l.ts, l.digest)"
# A version that does not know the column leaves it as it was in an earlier last position.
_STALE: Final = f"""EXISTS (
    SELECT FROM positions AS p WHERE {_SAME_KEY} AND p.extra::text IS DISTINCT FROM l.extra::text
)"""  # noqa: S608 - made of constants
_NOT_A_PLACE: Final = "(l.ts IS NOT NULL AND NOT {place})"
_IN_FUTURE: Final = "l.last_contact > now() + interval '{tolerance} seconds'"
_DEVICES: Final = f"""
SELECT device_id, {_NOT_A_PLACE} OR {_IN_FUTURE} OR {_STALE}
FROM last_positions AS l WHERE device_id > %s ORDER BY device_id LIMIT {PAGE_DEVICES}
"""  # noqa: S608 - made of constants
_WRONG: Final = f"""
SELECT count(*) FROM (
    SELECT FROM last_positions AS l
    WHERE {_NOT_A_PLACE} OR {_IN_FUTURE} OR {_STALE} LIMIT {{limit}}
) AS wrong
"""  # noqa: S608 - made of constants
_REFRESH: Final = f"""
UPDATE last_positions AS l SET extra = p.extra FROM positions AS p
WHERE l.device_id = %s AND {_SAME_KEY} AND p.extra::text IS DISTINCT FROM l.extra::text
"""  # noqa: S608 - made of constants
# If a processor stores a place at the same time, its row is a place, and stays: the condition is
# evaluated again on the row that it has committed.
_REPLACE: Final = f"""
UPDATE last_positions AS l SET (ts, {", ".join(RECORD)}) = (
    SELECT p.ts, {", ".join(f"p.{column}" for column in RECORD)} FROM positions AS p
    WHERE p.device_id = l.device_id AND {{place_of_p}} ORDER BY p.ts DESC, p.digest DESC LIMIT 1
)
WHERE l.device_id = %s AND {_NOT_A_PLACE}
"""  # noqa: S608 - made of constants
_CONTACT: Final = f"""
UPDATE last_positions AS l SET last_contact = coalesce(greatest(
    (SELECT max(received_at) FROM positions AS p WHERE p.device_id = l.device_id),
    (SELECT max(received_at) FROM messages AS m WHERE m.device_id = l.device_id),
    l.received_at
), l.last_contact)
WHERE l.device_id = %s AND {_IN_FUTURE}
"""  # noqa: S608 - made of constants

_KEYS: Final = (
    f"device_id, {ISO.format('p.ts')} AS ts, digest, "
    f"{ISO.format('received_at')} AS received_at, extra::text"
)
_NEXT: Final = f"""
WHERE (device_id, ts, digest) > (%s, %s::timestamptz, %s)
ORDER BY device_id, p.ts, digest LIMIT {PAGE_ROWS}
"""
_PAGES: Final = {
    table: f"SELECT {_KEYS}{columns} FROM {table} AS p {_NEXT}"  # noqa: S608 - names of ours
    for table, columns in (
        ("positions", ", vendor, codec, latitude, longitude, satellites"),
        ("messages", ""),
    )
}
# The length of all attributes up to a row limits the page, which has at least one row.
_PAGE_WITH_ATTRIBUTES: Final = f"""
SELECT device_id, ts, digest, received_at, extra, vendor, codec, latitude, longitude, satellites,
    attributes, named
FROM (
    SELECT *, sum(length(attributes)) OVER (ORDER BY number) - length(attributes) AS before FROM (
        SELECT {_KEYS} AS extra, vendor, codec, latitude, longitude, satellites,
            attributes::text AS attributes, named::text AS named,
            row_number() OVER (ORDER BY device_id, p.ts, digest) AS number
        FROM positions AS p {_NEXT}
    ) AS page
) AS sized WHERE before < {PAGE_LENGTH} ORDER BY number
"""  # noqa: S608 - made of constants

_SAVE_EXTRA: Final = """
UPDATE {table} AS p SET extra = c.extra::json
FROM unnest(%s::text[], %s::timestamptz[], %s::bytea[], %s::text[])
    AS c (device_id, ts, digest, extra)
WHERE p.device_id = c.device_id COLLATE "C" AND p.ts = c.ts AND p.digest = c.digest
    AND p.extra IS NULL
"""
_SAVE_NAMED: Final = """
UPDATE {table} AS p SET named = c.named::jsonb
FROM unnest(%s::text[], %s::timestamptz[], %s::bytea[], %s::text[])
    AS c (device_id, ts, digest, named)
WHERE p.device_id = c.device_id COLLATE "C" AND p.ts = c.ts AND p.digest = c.digest
"""
# Processors lock last positions in the same order, which prevents deadlocks.
_LOCK_DEVICES: Final = """
SELECT FROM last_positions WHERE device_id = ANY (%s::text[]) ORDER BY device_id FOR UPDATE
"""
_SAVE_CONTACTS: Final = """
UPDATE last_positions AS l SET last_contact = c.last_contact
FROM unnest(%s::text[], %s::timestamptz[]) AS c (device_id, last_contact)
WHERE l.device_id = c.device_id COLLATE "C" AND l.last_contact < c.last_contact
"""
_SAVE_ERRORS: Final = """
UPDATE last_positions AS l
SET clock_error = c.error, clock_error_ts = c.ts, clock_error_at = c.received_at
FROM unnest(%s::text[], %s::timestamptz[], %s::timestamptz[], %s::text[])
    AS c (device_id, received_at, ts, error)
WHERE l.device_id = c.device_id COLLATE "C" AND (l.clock_error_at IS NULL
    OR (c.received_at, c.ts) > (l.clock_error_at, l.clock_error_ts))
"""
_SAVE_STATE: Final = """
INSERT INTO repairs AS r (name, done_up_to) VALUES ('rows', %s::jsonb)
ON CONFLICT (name) DO UPDATE SET done_up_to = excluded.done_up_to, finished_at = NULL
"""


def count_wrong(limit: int) -> str:
    """Return the query of the number of last positions that need a repair.

    :param limit: the maximum number.
    """
    return _WRONG.format(limit=limit, **_conditions(DEFAULT_CLOCKS))


def _conditions(clocks: ClockRule) -> dict[str, Any]:
    return {
        "place": postgresql_place(clocks, "l."),
        "place_of_p": postgresql_place(clocks, "p."),
        "tolerance": clocks.clock_tolerance,
    }


class PostgreSQLRepair(RepairedDatabase):
    """The rows of a PostgreSQL database.

    :param dry_run: the database is only read.
    """

    def __init__(self, url: str, clocks: ClockRule, dry_run: bool) -> None:
        """Connect.

        :raises ValueError: if the URL is malformed.
        :raises SinkUnusable: if the tables lack something, or another repair runs.
        :raises SinkDown: if the database cannot be reached.
        """
        address = PostgreSQLAddress.from_url(url)
        parameters = {**address.parameters, "application_name": "tracker-repair"}
        if dry_run:
            parameters["target_session_attrs"] = "any"  # a standby, too
        conditions = _conditions(clocks)
        self._devices = _DEVICES.format_map(conditions)
        self._replace = (_REFRESH, _REPLACE.format_map(conditions), _CONTACT.format_map(conditions))
        self._url = address.url
        try:
            self._connection = connect(evolve(address, parameters=parameters))
        except psycopg.Error as error:
            raise cannot_open(address, error, error_text(error)) from None
        try:
            with self._errors():
                self._prepare(address, dry_run)
        except BaseException:
            self.close()
            raise

    def _prepare(self, address: PostgreSQLAddress, dry_run: bool) -> None:
        self._connection.execute(_SESSION, ("on" if dry_run else "off",))
        is_current(self._connection, address, migrate=False)
        if dry_run:
            return
        try:
            # It waits for the server to notice the end of a repair that was just interrupted.
            self._connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        except psycopg.errors.LockNotAvailable:
            raise SinkUnusable(f"another repair of {address.url} is running") from None

    def close(self) -> None:
        """See RepairedDatabase."""
        self._connection.close()

    def unfinished(self) -> Any:
        """See RepairedDatabase."""
        query = "SELECT done_up_to FROM repairs WHERE name = 'rows' AND finished_at IS NULL"
        rows = self._select(query, ())
        return rows[0][0] if rows else None

    def finish(self) -> None:
        """See RepairedDatabase."""
        with self._errors():
            self._connection.execute("UPDATE repairs SET finished_at = now() WHERE name = 'rows'")

    def devices(self, after: str) -> Sequence[tuple[str, bool]]:
        """See RepairedDatabase."""
        return self._select(self._devices, (after,))

    def repair_device(self, device_id: str) -> None:
        """See RepairedDatabase."""
        with self._errors():
            for statement in self._replace:
                self._connection.execute(statement, (device_id,))

    def page(self, table: str, after: Key, attributes: bool) -> Sequence[Row]:
        """See RepairedDatabase."""
        query = _PAGE_WITH_ATTRIBUTES if attributes else _PAGES[table]
        return [Row(*row) for row in self._select(query, after)]

    def save(self, table: str, changes: Changes, document: Mapping[str, Any]) -> None:
        """See RepairedDatabase."""
        statements: list[str] = []
        values: list[Any] = []

        def add(statement: str, *columns: Any) -> None:
            statements.append(statement.format(table=table))
            values.extend(columns)

        if changes.extra:
            add(_SAVE_EXTRA, *_columns(changes.extra))
        if changes.named:
            add(_SAVE_NAMED, *_columns(changes.named))
        if devices := changes.devices:
            add(_LOCK_DEVICES, devices)
        if changes.named:
            add(_SAVE_NAMED.replace("{table}", "last_positions"), *_columns(changes.named))
        if changes.contacts:
            add(_SAVE_CONTACTS, list(changes.contacts), list(changes.contacts.values()))
        if errors := changes.clock_errors:
            add(_SAVE_ERRORS, list(errors), *map(list, zip(*errors.values(), strict=True)))
        add(_SAVE_STATE, json.dumps(document))
        # One message is one transaction. If this process hangs, it holds no lock.
        with self._errors(), psycopg.ClientCursor(self._connection) as cursor:
            cursor.execute("; ".join(statements), values)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise the errors of the interface."""
        try:
            yield
        except psycopg.Error as error:
            busy = isinstance(error, _BUSY)
            text = f"{self._url}: {error_text(error)}"
            raise (SinkTimedOut if busy else SinkDown)(text) from None

    def _select(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._errors():
            return self._connection.execute(query, values).fetchall()


def _columns(changes: Sequence[tuple[Key, str]]) -> Sequence[list[Any]]:
    return [list(column) for column in zip(*((*key, text) for key, text in changes), strict=True)]
