"""SQLite: the whole database in one file, for one processor.

Write-ahead log with ``synchronous=FULL``: a commit is on disk when it returns, and
readers never wait for the writer.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from tracker.interfaces import Batch, IPositionSink, SinkUnusable, StoredPosition

T = TypeVar("T")

_SCHEMA: Final = "schema/sqlite-{version:04}.sql"
_VERSION: Final = 1
#: Seconds to wait for another program that holds the file's write lock.
_LOCK_TIMEOUT: Final = 5.0

_INSERT_POSITION: Final = """
INSERT INTO positions (
    device_id, ts, digest, vendor, codec, latitude, longitude, altitude, angle, speed,
    satellites, priority, event, attributes, received_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (device_id, ts, digest) DO NOTHING
"""

_CONTACT: Final = """
INSERT INTO last_positions (device_id, last_contact) VALUES (?, ?)
ON CONFLICT (device_id) DO UPDATE SET last_contact = max(last_contact, excluded.last_contact)
"""

# Two records of one millisecond are told apart by digest, so that the outcome is the
# same in whichever order they come. The row is there: _CONTACT has seen to it.
_PLACE: Final = """
UPDATE last_positions SET
    ts = ?2, digest = ?3, vendor = ?4, codec = ?5, latitude = ?6, longitude = ?7,
    altitude = ?8, angle = ?9, speed = ?10, satellites = ?11, priority = ?12, event = ?13,
    attributes = ?14, received_at = ?15
WHERE device_id = ?1 AND (ts IS NULL OR (?2, ?3) > (ts, digest))
"""

_READ_CHECKPOINT: Final = "SELECT entry_id FROM checkpoints WHERE stream = ? AND group_name = ?"
_WRITE_CHECKPOINT: Final = """
INSERT INTO checkpoints (stream, group_name, entry_id) VALUES (?, ?, ?)
ON CONFLICT (stream, group_name) DO UPDATE SET entry_id = excluded.entry_id
"""


@implementer(IPositionSink)
class SQLiteSink:
    """Stores positions in the file at ``path``, from a thread of its own."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._thread = ThreadPool(minthreads=1, maxthreads=1, name="sqlite")

    def open(self) -> Deferred[None]:
        """See IPositionSink."""
        self._thread.start()
        return self._in_thread(self._open)

    def store(self, batch: Batch) -> Deferred[int]:
        """See IPositionSink."""
        return self._in_thread(self._store, batch)

    def checkpoint(self, stream: str, group: str) -> Deferred[str | None]:
        """See IPositionSink."""
        return self._in_thread(self._checkpoint, stream, group)

    def close(self) -> Deferred[None]:
        """See IPositionSink."""
        if not self._thread.started:
            return succeed(None)
        return self._in_thread(self._close).addBoth(lambda _: self._thread.stop())

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._thread, function, *arguments)

    # From here on everything runs in the sink's thread.

    def _open(self) -> None:
        try:
            # Autocommit: transactions are begun and ended below, in so many words.
            database = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT, isolation_level=None)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                self._migrate(database)
            except BaseException:
                database.close()
                raise
        except sqlite3.Error as error:
            raise SinkUnusable(f"cannot open the database {self._path}: {error}") from error
        self._database = database
        self._file = _identity(self._path)

    def _check_file(self) -> None:
        # Commits to a file that has been deleted or replaced succeed, and are gone.
        if _identity(self._path) != self._file:
            raise RuntimeError(f"{self._path} was deleted or replaced: restart the processor")

    def _migrate(self, database: sqlite3.Connection) -> None:
        with _transaction(database):
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise SinkUnusable(
                    f"the database {self._path} has schema {version}, this version of Tracker "
                    f"knows {_VERSION}: upgrade Tracker"
                )
            schemas = resources.files(__package__)
            for number in range(version + 1, _VERSION + 1):
                script = (schemas / _SCHEMA.format(version=number)).read_text(encoding="utf-8")
                for statement in _statements(script):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number}")

    def _store(self, batch: Batch) -> int:
        database = self._database
        assert database is not None  # noqa: S101 - opened before the first batch
        self._check_file()
        rows = [_row(stored) for stored in batch.positions]
        with _transaction(database):
            before = database.total_changes
            database.executemany(_INSERT_POSITION, rows)
            new = database.total_changes - before
            database.executemany(_CONTACT, _latest_contacts(batch.positions))
            database.executemany(_PLACE, _latest_places(batch.positions))
            for (stream, group), entry_id in batch.checkpoints.items():
                _raise_checkpoint(database, stream, group, entry_id)
        return new

    def _checkpoint(self, stream: str, group: str) -> str | None:
        assert self._database is not None  # noqa: S101 - opened before
        known = self._database.execute(_READ_CHECKPOINT, (stream, group)).fetchone()
        return None if known is None else known[0]

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the transaction that it is called in.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


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
        json.dumps(position.attributes, separators=(",", ":")),
        stored.received_at,
    )


def _latest_contacts(positions: Iterable[StoredPosition]) -> Iterable[tuple[str, str]]:
    latest: dict[str, str] = {}
    for stored in positions:
        position = stored.position
        latest[position.device_id] = max(latest.get(position.device_id, ""), position.timestamp)
    return latest.items()


def _latest_places(positions: Iterable[StoredPosition]) -> Iterable[tuple[Any, ...]]:
    latest: dict[str, StoredPosition] = {}
    for stored in positions:
        position = stored.position
        best = latest.get(position.device_id)
        if position.has_fix and (best is None or _moment(stored) > _moment(best)):
            latest[position.device_id] = stored
    return map(_row, latest.values())


def _moment(stored: StoredPosition) -> tuple[str, bytes]:
    return stored.position.timestamp, stored.digest


def _raise_checkpoint(database: sqlite3.Connection, stream: str, group: str, entry_id: str) -> None:
    # Entries that were left pending come again after later ones: never step back.
    known = database.execute(_READ_CHECKPOINT, (stream, group)).fetchone()
    if known is None or _entry_order(known[0]) < _entry_order(entry_id):
        database.execute(_WRITE_CHECKPOINT, (stream, group, entry_id))


def _entry_order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence)
