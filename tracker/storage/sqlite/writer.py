"""The SQLite sink.

It uses a write-ahead log with ``synchronous=FULL``: a commit is on disk when it returns, and
readers never wait for the writer.
"""

from __future__ import annotations

import os
import sqlite3

from twisted.internet.defer import Deferred
from zope.interface import implementer

from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.interfaces import Batch, BatchRefused, IPositionSink
from tracker.reactor import Reactor
from tracker.storage.sqlite import batch as batches
from tracker.storage.sqlite.connection import cannot_open, connect, is_refusal
from tracker.storage.sqlite.schema import upgrade
from tracker.storage.thread import SinkThread


@implementer(IPositionSink)
class SQLiteSink:
    """Sink that stores positions in the file at ``path``, in its own thread.

    :param migrate: create and upgrade the tables when the sink is opened.
    :param clocks: the rule that times of records must meet.
    """

    def __init__(
        self,
        reactor: Reactor,
        path: str,
        *,
        migrate: bool = True,
        clocks: ClockRule = DEFAULT_CLOCKS,
    ) -> None:
        self._path = path
        self._migrate = migrate
        self._clocks = clocks
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

    # The following methods run in the sink's thread.

    def _open(self) -> None:
        try:
            database = connect(self._path)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                upgrade(database, self._path, self._migrate)
            except BaseException:
                database.close()
                raise
        except sqlite3.Error as error:
            raise cannot_open(self._path, error) from error
        self._database = database
        self._file = _identity(self._path)

    def _check_file(self) -> None:
        # Commits to a deleted or replaced file succeed, but the data is lost.
        if _identity(self._path) != self._file:
            raise RuntimeError(f"{self._path} was deleted or replaced: restart the processor")

    def _store(self, batch: Batch) -> int:
        assert self._database is not None  # noqa: S101 - opened before the first batch
        self._check_file()
        try:
            return batches.store(self._database, batch, self._clocks)
        except Exception as error:
            if is_refusal(error):
                raise BatchRefused(str(error)) from error
            raise

    def _checkpoint(self, stream: str, group: str) -> str | None:
        assert self._database is not None  # noqa: S101 - opened before
        return batches.read_checkpoint(self._database, stream, group)

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
