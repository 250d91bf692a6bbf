"""Connections to SQLite, and the classification of their errors."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tracker.interfaces import SinkUnusable

#: Errors after which another attempt to open a database may succeed.
_TRANSIENT: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
#: Beginnings of errors for a table or column that the schema lacks; their code is the general one.
UNDEFINED: Final = ("no such table", "no such column")
#: Seconds to wait for another program that holds the file's write lock.
_LOCK_TIMEOUT: Final = 5.0
#: Errors about values that cannot be stored, raised by SQLite or by Python's driver.
_REFUSALS: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    OverflowError,
    UnicodeEncodeError,
)


def connect(path: str) -> sqlite3.Connection:
    """Return a connection in autocommit mode; a missing file is created.

    :raises sqlite3.Error: if the file cannot be opened.
    """
    return sqlite3.connect(path, timeout=_LOCK_TIMEOUT, isolation_level=None)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Run the block in a transaction, and commit it, or roll it back after an exception."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def is_refusal(error: Exception) -> bool:
    """Return True if the data caused the error, so that a retry would fail again."""
    return isinstance(error, _REFUSALS)


def is_transient(error: Exception) -> bool:
    """Return True if another attempt to open the database may succeed."""
    return _code(error) in _TRANSIENT


def cannot_open(path: str, error: sqlite3.Error) -> Exception:
    """Return the exception for a database that cannot be opened."""
    reason = _obstacle(path) if _code(error) == sqlite3.SQLITE_CANTOPEN else None
    text = f"cannot open the database {path}: {reason or error}"
    if is_transient(error):
        return RuntimeError(text)
    return SinkUnusable(text)


def _code(error: Exception) -> int | None:
    # Extended codes, such as SQLITE_BUSY_RECOVERY, have the general one in their lowest byte.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _obstacle(path: str) -> str | None:
    """Return why a file cannot be opened, which SQLite does not say; None if that is unknown."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.stat(os.path.join(folder, ""))  # fails if it is a file
        if os.path.isdir(path):
            return os.strerror(errno.EISDIR)
    except FileNotFoundError:
        return f"{folder}: no such directory; create it first"
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        return os.strerror(errno.EACCES)
    return None
