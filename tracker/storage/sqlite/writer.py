"""SQLite: the whole database in one file, for one processor.

Write-ahead log with ``synchronous=FULL``: a commit is on disk when it returns, and
readers never wait for the writer.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from tracker.interfaces import Batch, BatchRefused, IPositionSink, SinkUnusable, StoredPosition
from tracker.log.entries import entry_order
from tracker.storage.migrations import check_version, scripts
from tracker.storage.rows import encode_json, message_columns
from tracker.storage.thread import SinkThread

#: What may be better at the next attempt to open a database.
_TRANSIENT: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
#: Seconds to wait for another program that holds the file's write lock.
_LOCK_TIMEOUT: Final = 5.0

_INSERT_POSITION: Final = """
INSERT INTO positions (
    device_id, ts, digest, vendor, codec, latitude, longitude, altitude, angle, speed,
    satellites, priority, event, attributes, received_at, generation_type,
    named
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (device_id, ts, digest) DO NOTHING
"""

_INSERT_MESSAGE: Final = """
INSERT INTO messages (
    device_id, ts, digest, vendor, codec, type, message, attributes, received_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
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
    attributes = ?14, received_at = ?15, generation_type = ?16, named = ?17
WHERE device_id = ?1 AND (ts IS NULL OR (?2, ?3) > (ts, digest))
"""

_READ_CHECKPOINT: Final = "SELECT entry_id FROM checkpoints WHERE stream = ? AND group_name = ?"
_WRITE_CHECKPOINT: Final = """
INSERT INTO checkpoints (stream, group_name, entry_id) VALUES (?, ?, ?)
ON CONFLICT (stream, group_name) DO UPDATE SET entry_id = excluded.entry_id
"""


#: What SQLite, or Python on the way to it, says of values that it can never store.
_REFUSALS: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    OverflowError,
    UnicodeEncodeError,
)


@implementer(IPositionSink)
class SQLiteSink:
    """Stores positions in the file at ``path``, from a thread of its own.

    :param migrate: whether to make and upgrade the tables when opened.
    """

    def __init__(self, reactor: Any, path: str, migrate: bool = True) -> None:
        self._path = path
        self._migrate = migrate
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._thread = SinkThread(reactor, "sqlite")

    def open(self) -> Deferred[None]:
        """See IPositionSink."""
        self._thread.start()
        return self._thread.run(self._open)

    def store(self, batch: Batch) -> Deferred[int]:
        """See IPositionSink."""
        return self._thread.run(self._store, batch)

    def checkpoint(self, stream: str, group: str) -> Deferred[str | None]:
        """See IPositionSink."""
        return self._thread.run(self._checkpoint, stream, group)

    def close(self) -> Deferred[None]:
        """See IPositionSink."""
        return self._thread.stop(self._close)

    # From here on everything runs in the sink's thread.

    def _open(self) -> None:
        # Autocommit: transactions are begun and ended below, in so many words.
        try:
            database = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT, isolation_level=None)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                upgrade(database, self._path, self._migrate)
            except BaseException:
                database.close()
                raise
        except sqlite3.Error as error:
            raise _cannot_open(self._path, error) from error
        self._database = database
        self._file = _identity(self._path)

    def _check_file(self) -> None:
        # Commits to a file that has been deleted or replaced succeed, and are gone.
        if _identity(self._path) != self._file:
            raise RuntimeError(f"{self._path} was deleted or replaced: restart the processor")

    def _store(self, batch: Batch) -> int:
        database = self._database
        assert database is not None  # noqa: S101 - opened before the first batch
        self._check_file()
        positions = [one for one in batch.positions if not one.position.is_message]
        messages = [one for one in batch.positions if one.position.is_message]
        try:
            with _transaction(database):
                before = database.total_changes
                database.executemany(_INSERT_POSITION, map(_row, positions))
                database.executemany(_INSERT_MESSAGE, map(_message_row, messages))
                new = database.total_changes - before
                database.executemany(_CONTACT, _latest_contacts(batch.positions))
                database.executemany(_PLACE, _latest_places(positions))
                for (stream, group), entry_id in batch.checkpoints.items():
                    _raise_checkpoint(database, stream, group, entry_id)
        except _REFUSALS as error:
            raise BatchRefused(str(error)) from error
        return new

    def _checkpoint(self, stream: str, group: str) -> str | None:
        assert self._database is not None  # noqa: S101 - opened before
        known = self._database.execute(_READ_CHECKPOINT, (stream, group)).fetchone()
        return None if known is None else known[0]

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def migrate(path: str) -> tuple[int, int]:
    """Bring the tables of a file up to date; make the file if there is none.

    :return: the version before and after.
    :raises SinkUnusable: when that cannot be done.
    """
    try:
        database = sqlite3.connect(path, timeout=_LOCK_TIMEOUT, isolation_level=None)
        try:
            return upgrade(database, path)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise _cannot_open(path, error) from error


def upgrade(
    database: sqlite3.Connection, path: str, allowed: bool = True, target: int | None = None
) -> tuple[int, int]:
    """Bring the tables up to date, or leave all as it is.

    :param target: the version to stop at; the latest if not given.
    :return: the version before and after.
    :raises SinkUnusable: when the database is newer, or older and that is not allowed.
    """
    files = scripts("sqlite")
    with _transaction(database):
        (before,) = database.execute("PRAGMA user_version").fetchone()
        check_version(before, len(files), path, f"sqlite:{path}", allowed)
        for number, script in enumerate(files[before:target], before + 1):
            for statement in _statements(script):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
        (after,) = database.execute("PRAGMA user_version").fetchone()
    return before, after


def _cannot_open(path: str, error: sqlite3.Error) -> Exception:
    text = f"cannot open the database {path}: {error}"
    if getattr(error, "sqlite_errorcode", None) in _TRANSIENT:
        return RuntimeError(text)
    return SinkUnusable(text)


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
        encode_json(position.attributes),
        stored.received_at,
        position.generation_type,
        None if stored.named is None else encode_json(stored.named),
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
    if known is None or entry_order(known[0]) < entry_order(entry_id):
        database.execute(_WRITE_CHECKPOINT, (stream, group, entry_id))
