"""Repair of rows in SQLite."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.interfaces import SinkDown, SinkTimedOut, SinkUnusable
from tracker.storage.migrations import check_schema, migrations
from tracker.storage.places import sqlite_place
from tracker.storage.repair import (
    PAGE_DEVICES,
    PAGE_LENGTH,
    PAGE_ROWS,
    Changes,
    Key,
    RepairedDatabase,
    Row,
)
from tracker.storage.sqlite.connection import connect, is_transient, transaction
from tracker.storage.sqlite.schema import applied

_SAME_KEY: Final = "(p.device_id, p.ts, p.digest) = (l.device_id, l.ts, l.digest)"
# A version that does not know the column leaves it as it was in an earlier last position.
_STALE: Final = f"""EXISTS (
    SELECT 1 FROM positions AS p WHERE {_SAME_KEY} AND p.extra IS NOT l.extra
)"""  # noqa: S608 - made of constants
_NOT_A_PLACE: Final = "(l.ts IS NOT NULL AND NOT {place})"
_IN_FUTURE: Final = "l.last_contact > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '{tolerance} seconds')"
_DEVICES: Final = f"""
SELECT device_id, {_NOT_A_PLACE} OR {_IN_FUTURE} OR {_STALE}
FROM last_positions AS l WHERE device_id > ? ORDER BY device_id LIMIT {PAGE_DEVICES}
"""  # noqa: S608 - made of constants
_WRONG: Final = f"""
SELECT count(*) FROM (
    SELECT 1 FROM last_positions AS l
    WHERE {_NOT_A_PLACE} OR {_IN_FUTURE} OR {_STALE} LIMIT {{limit}}
) AS wrong
"""  # noqa: S608 - made of constants
_REFRESH: Final = f"""
UPDATE last_positions AS l SET extra = (SELECT p.extra FROM positions AS p WHERE {_SAME_KEY})
WHERE l.device_id = ? AND {_STALE}
"""  # noqa: S608 - made of constants
_RECORD: Final = (
    *("ts", "digest", "vendor", "codec", "latitude", "longitude", "altitude", "angle", "speed"),
    *("satellites", "priority", "event", "attributes", "received_at", "generation_type", "named"),
    "extra",
)
_REPLACE: Final = f"""
UPDATE last_positions AS l SET ({", ".join(_RECORD)}) = (
    SELECT {", ".join(f"p.{column}" for column in _RECORD)} FROM positions AS p
    WHERE p.device_id = l.device_id AND {{place_of_p}} ORDER BY p.ts DESC, p.digest DESC LIMIT 1
)
WHERE l.device_id = ? AND {_NOT_A_PLACE}
"""  # noqa: S608 - made of constants
# With several arguments, max() is NULL if one of them is.
_CONTACT: Final = f"""
UPDATE last_positions AS l SET last_contact = coalesce((
    SELECT max(received_at) FROM (
        SELECT max(received_at) AS received_at FROM positions WHERE device_id = l.device_id
        UNION ALL SELECT max(received_at) FROM messages WHERE device_id = l.device_id
        UNION ALL SELECT l.received_at
    )
), l.last_contact)
WHERE l.device_id = ? AND {_IN_FUTURE}
"""  # noqa: S608 - made of constants

_KEYS: Final = "device_id, ts, digest, received_at, extra"
_NEXT: Final = f"""
WHERE (device_id, ts, digest) > (?, ?, ?) ORDER BY device_id, ts, digest LIMIT {PAGE_ROWS}
"""
_PAGES: Final = {
    table: f"SELECT {_KEYS}{columns} FROM {table} {_NEXT}"  # noqa: S608 - names of ours
    for table, columns in (
        ("positions", ", vendor, codec, latitude, longitude, satellites"),
        ("messages", ""),
    )
}
_ROW: Final = f"{_KEYS}, vendor, codec, latitude, longitude, satellites, attributes, named"
# The length of all attributes up to a row limits the page, which has at least one row.
_PAGE_WITH_ATTRIBUTES: Final = f"""
SELECT {_ROW} FROM (
    SELECT *,
        sum(length(attributes)) OVER (ORDER BY device_id, ts, digest) - length(attributes) AS before
    FROM (SELECT {_ROW} FROM positions {_NEXT})
) WHERE before < {PAGE_LENGTH} ORDER BY device_id, ts, digest
"""  # noqa: S608 - made of constants

_SAVE_EXTRA: Final = """
UPDATE {table} SET extra = ?4
WHERE (device_id, ts, digest) = (?1, ?2, ?3) AND extra IS NULL
"""
_SAVE_NAMED: Final = "UPDATE {table} SET named = ?4 WHERE (device_id, ts, digest) = (?1, ?2, ?3)"
_SAVE_CONTACT: Final = (
    "UPDATE last_positions SET last_contact = ?2 WHERE device_id = ?1 AND last_contact < ?2"
)
_SAVE_ERROR: Final = """
UPDATE last_positions SET clock_error_at = ?2, clock_error_ts = ?3, clock_error = ?4
WHERE device_id = ?1 AND (clock_error_at IS NULL OR (?2, ?3) > (clock_error_at, clock_error_ts))
"""
_SAVE_STATE: Final = """
INSERT INTO repairs (name, done_up_to) VALUES ('rows', ?)
ON CONFLICT (name) DO UPDATE SET done_up_to = excluded.done_up_to, finished_at = NULL
"""
_FINISH: Final = """
UPDATE repairs SET finished_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE name = 'rows'
"""


def count_wrong(limit: int) -> str:
    """Return the query of the number of last positions that need a repair.

    :param limit: the maximum number.
    """
    return _WRONG.format(limit=limit, **_conditions(DEFAULT_CLOCKS))


def _conditions(clocks: ClockRule) -> dict[str, Any]:
    return {
        "place": sqlite_place(clocks, "l."),
        "place_of_p": sqlite_place(clocks, "p."),
        "tolerance": clocks.clock_tolerance,
    }


class SQLiteRepair(RepairedDatabase):
    """The rows of a SQLite database.

    :param dry_run: the database is only read.
    """

    def __init__(self, path: str, clocks: ClockRule, dry_run: bool) -> None:
        """Open the file.

        :raises SinkUnusable: if it does not exist, or its tables lack something.
        :raises SinkDown: if it cannot be opened.
        """
        conditions = _conditions(clocks)
        self._devices = _DEVICES.format_map(conditions)
        self._replace = (_REFRESH, _REPLACE.format_map(conditions), _CONTACT.format_map(conditions))
        if not Path(path).exists():
            raise SinkUnusable(f"file {path} does not exist")
        with _errors():
            self._database = connect(path)
            try:
                if dry_run:
                    self._database.execute("PRAGMA query_only = ON")
                known = migrations("sqlite")
                found = applied(self._database)
                check_schema(found, known, path, url=f"sqlite:{path}", migrate=False)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """See RepairedDatabase."""
        self._database.close()

    def unfinished(self) -> Any:
        """See RepairedDatabase."""
        query = "SELECT done_up_to FROM repairs WHERE name = 'rows' AND finished_at IS NULL"
        rows = self._select(query, ())
        try:
            return json.loads(rows[0][0]) if rows else None
        except (TypeError, ValueError):
            return None

    def finish(self) -> None:
        """See RepairedDatabase."""
        with self._changing():
            self._database.execute(_FINISH)

    def devices(self, after: str) -> Sequence[tuple[str, bool]]:
        """See RepairedDatabase."""
        return self._select(self._devices, (after,))

    def repair_device(self, device_id: str) -> None:
        """See RepairedDatabase."""
        with self._changing():
            for statement in self._replace:
                self._database.execute(statement, (device_id,))

    def page(self, table: str, after: Key, attributes: bool) -> Sequence[Row]:
        """See RepairedDatabase."""
        query = _PAGE_WITH_ATTRIBUTES if attributes else _PAGES[table]
        return [Row(*row) for row in self._select(query, after)]

    def save(self, table: str, changes: Changes, document: Mapping[str, Any]) -> None:
        """See RepairedDatabase."""
        execute = self._database.executemany
        with self._changing():
            execute(_SAVE_EXTRA.format(table=table), ((*key, text) for key, text in changes.extra))
            for one in (table, "last_positions") if changes.named else ():
                statement = _SAVE_NAMED.format(table=one)
                execute(statement, ((*key, text) for key, text in changes.named))
            execute(_SAVE_CONTACT, changes.contacts.items())
            execute(_SAVE_ERROR, ((one, *error) for one, error in changes.clock_errors.items()))
            self._database.execute(_SAVE_STATE, (json.dumps(document),))

    def _select(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with _errors():
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Run the block in a transaction, then give the processor as much time to write."""
        begun = time.monotonic()
        with _errors(), transaction(self._database):
            yield
        time.sleep(time.monotonic() - begun)


@contextmanager
def _errors() -> Iterator[None]:
    """Raise the errors of the interface."""
    try:
        yield
    except sqlite3.Error as error:
        retry = is_transient(error)
        raise (SinkTimedOut if retry else SinkDown)(str(error)) from None
