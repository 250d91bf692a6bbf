"""Connections to PostgreSQL, and the classification of their errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from tracker.interfaces import SinkDown, SinkUnusable
from tracker.storage.postgresql.address import PostgreSQLAddress

Connection = psycopg.Connection[Any]

#: SQLSTATE classes of errors about data: data exception, integrity constraint violation,
#: program limit exceeded. Source: PostgreSQL documentation, appendix A.
_REFUSALS: Final = ("22", "23", "54")
#: query_canceled (statement_timeout), lock_not_available (lock_timeout), and
#: idle_in_transaction_session_timeout. Source: PostgreSQL documentation, appendix A.
_TIMEOUTS: Final = ("57014", "55P03", "25P03")
#: Errors of a connection attempt that a retry does not fix. They have no SQLSTATE.
_PERMANENT: Final = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba\.conf entry"
    r"|certificate|does not support SSL|permission denied for database|invalid .*value"
)
#: Tables with one row for many records.
_SUMMARIES: Final = ("last_positions", "checkpoints")
#: What psycopg writes before the text of libpq.
_PREFIX: Final = re.compile(r"^connection (failed|is bad): ")
_COLUMN: Final = re.compile(r"^COPY tracker_batch, line \d+, column (\w+)", re.MULTILINE)


def connect(address: PostgreSQLAddress) -> Connection:
    """Return a connection in autocommit mode.

    :raises psycopg.OperationalError: if the connection fails.
    """
    return psycopg.connect(**address.parameters, autocommit=True)


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Run the block in a transaction, and commit it, or roll it back after an exception."""
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    try:
        yield
    except BaseException:
        if not connection.broken:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def error_text(error: psycopg.Error) -> str:
    """Return the text of an error in one line, without the data that the server quotes."""
    primary = error.diag.message_primary
    if primary is None:
        # libpq adds hints as lines of their own.
        lines = (line.strip() for line in _PREFIX.sub("", str(error)).splitlines())
        return "; ".join(filter(None, lines)) or type(error).__name__
    column = _COLUMN.search(error.diag.context or "")
    return f"{column[1]}: {primary}" if column else primary


def is_refusal(error: psycopg.Error) -> bool:
    """Return True if the data caused the error, so that a retry would fail again."""
    if error.diag.table_name in _SUMMARIES:
        return False  # caused by a constraint that was added to the table, not by a record
    return (error.sqlstate or "").startswith(_REFUSALS)


def is_timeout(error: psycopg.Error) -> bool:
    """Return True if a timeout of the server for a statement, a lock or the client expired."""
    return error.sqlstate in _TIMEOUTS


def cannot_open(address: PostgreSQLAddress, error: psycopg.Error, text: str) -> Exception:
    """Return the exception for a database that cannot be opened.

    :param text: the text of the error, in one line.
    """
    temporary = isinstance(error, psycopg.OperationalError) and not _PERMANENT.search(text)
    kind = SinkDown if temporary else SinkUnusable
    return kind(f"cannot use the database {address.url}: {text}")
