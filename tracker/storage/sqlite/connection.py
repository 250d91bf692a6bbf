"""Connections, and the meaning of their errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tracker.interfaces import SinkUnusable

#: Errors after which another attempt to open a database may succeed.
_TRANSIENT: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
#: Seconds to wait for another program that holds the file's write lock.
_LOCK_TIMEOUT: Final = 5.0
#: Errors of values that SQLite can never store, raised by it or by Python's driver.
_REFUSALS: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    OverflowError,
    UnicodeEncodeError,
)


def connect(path: str) -> sqlite3.Connection:
    """Return a connection that autocommits; the file is created if missing.

    :raises sqlite3.Error: if the file cannot be opened.
    """
    return sqlite3.connect(path, timeout=_LOCK_TIMEOUT, isolation_level=None)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Commit at the end, or roll back on an exception. The connection autocommits otherwise."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def is_refusal(error: Exception) -> bool:
    """Return whether the data is at fault, so that a retry would fail, too."""
    return isinstance(error, _REFUSALS)


def cannot_open(path: str, error: sqlite3.Error) -> Exception:
    """Return the exception to raise if a database cannot be opened."""
    text = f"cannot open the database {path}: {error}"
    if getattr(error, "sqlite_errorcode", None) in _TRANSIENT:
        return RuntimeError(text)
    return SinkUnusable(text)
