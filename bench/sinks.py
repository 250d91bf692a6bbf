"""The databases of the benchmark of processing, with the limit of each.

The limit is the rate at which the database stores the same rows without any other work: without
decoding, without a transaction per batch (PostgreSQL), without the table of last positions and
without checkpoints.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg
from attrs import frozen

from bench.common import Usage, Window
from tests.servers import PostgresServer
from tracker.storage.sinks import migrate_sink

#: Names in windows: all processes of the server, and this process.
POSTGRESQL: Final = "postgresql"
SQLITE: Final = "sqlite"

#: Durable commits and the memory of a small server; all other settings have their defaults.
_SETTINGS: Final = {"fsync": "on", "synchronous_commit": "on", "shared_buffers": "256MB"}

Key = tuple[str, str]
"""device_id and ts of the stream, unique for each measured entry."""


@frozen
class Inserted:
    """Rows that a database has stored."""

    rows: int
    window: Window

    @property
    def per_second(self) -> float:
        """Rows per second."""
        return self.rows / self.window.seconds


class Sink(Protocol):
    """A database without tables."""

    @property
    def url(self) -> str:
        """Value of ``--sink``."""

    @property
    def parents(self) -> Mapping[str, int]:
        """Processes of the server, for :meth:`Usage.now`."""

    def count(self) -> int:
        """Return the number of positions."""

    def limit(self, order: Mapping[Key, int], batch: int) -> Inserted:
        """Insert the positions into an equal table, as fast as possible.

        :param order: key of each position → its index in the stream.
        :param batch: rows per transaction; PostgreSQL uses one transaction for all.
        """


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """Run a server with durable commits."""
    server = PostgresServer(*(word for pair in _SETTINGS.items() for word in _option(*pair)))
    try:
        server.start()
        yield PostgreSQL(server)
    finally:
        server.remove()


def _option(name: str, value: str) -> tuple[str, str]:
    return "-c", f"{name}={value}"


class PostgreSQL:
    """A server that creates empty databases."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._numbers = count(1)
        with self._connect() as connection:
            for name, value in _SETTINGS.items():
                if (actual := _value(connection, f"SHOW {name}")) != value:
                    raise RuntimeError(f"PostgreSQL has {name} {actual!r} instead of {value!r}")
            self.version: str = _value(connection, "SHOW server_version")
            self.folder = Path(_value(connection, "SHOW data_directory"))
            pid = int(_value(connection, "SELECT pg_read_file('postmaster.pid')").split()[0])
        self.parents: Mapping[str, int] = {POSTGRESQL: pid}

    @contextmanager
    def database(self) -> Iterator[PostgreSQLSink]:
        """Create a database without tables; it is dropped at the end."""
        name = f"bench_{next(self._numbers)}"
        with self._connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
            # Otherwise earlier changes could be written to disk during the measurement.
            connection.execute("CHECKPOINT")
        try:
            yield PostgreSQLSink(self, self._server.url_of(name))
        finally:
            with self._connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._server.url, autocommit=True)


@frozen
class PostgreSQLSink:
    """A database of the server. The limit is COPY of all rows from a file on the server."""

    server: PostgreSQL
    url: str

    @property
    def parents(self) -> Mapping[str, int]:
        """See :class:`Sink`."""
        return self.server.parents

    def count(self) -> int:
        """See :class:`Sink`."""
        with psycopg.connect(self.url) as connection:
            found: int = _value(connection, "SELECT count(*) FROM positions")
            return found

    def limit(self, order: Mapping[Key, int], batch: int) -> Inserted:
        """Return the median of three runs, each with a new database.

        Rows have the order in which they were stored: batches in the order of the stream.
        """
        file = self.server.folder / "positions.copy"
        with psycopg.connect(self.url) as connection:
            connection.execute(f"COPY positions TO '{file}'".encode())
        try:
            runs = sorted((self._copy(file) for _ in range(3)), key=lambda run: run.per_second)
        finally:
            file.unlink()
        return runs[1]

    def _copy(self, file: Path) -> Inserted:
        with self.server.database() as other:
            migrate_sink(other.url)
            with psycopg.connect(other.url, autocommit=True) as connection:
                connection.execute("CHECKPOINT")
                before = Usage.now({}, self.parents)
                rows = connection.execute(f"COPY positions FROM '{file}'".encode()).rowcount
                return Inserted(rows, Window.between(before, Usage.now({}, self.parents)))


class SQLiteSink:
    """A database file. The limit is executemany of rows in memory, a transaction per batch."""

    parents: Mapping[str, int] = {}

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = folder / "positions.sqlite"
        self._other = folder / "limit.sqlite"
        self.url = f"sqlite:{self._file}"

    def count(self) -> int:
        """See :class:`Sink`."""
        with closing(sqlite3.connect(self._file)) as database:
            (found,) = database.execute("SELECT count(*) FROM positions").fetchone()
            return int(found)

    def limit(self, order: Mapping[Key, int], batch: int) -> Inserted:
        """Return the rate of inserts in the order of the stream."""
        with closing(sqlite3.connect(self._file)) as database:
            (journal,) = database.execute("PRAGMA journal_mode").fetchone()
            cursor = database.execute("SELECT device_id, ts, * FROM positions")
            rows = sorted(cursor, key=lambda row: order[row[:2]])
        batches = [[row[2:] for row in rows[at : at + batch]] for at in range(0, len(rows), batch)]
        migrate_sink(f"sqlite:{self._other}")
        with closing(sqlite3.connect(self._other, isolation_level=None)) as database:
            database.execute(f"PRAGMA journal_mode = {journal}")
            database.execute("PRAGMA synchronous = FULL")
            return _insert(database, batches)


def _insert(database: sqlite3.Connection, batches: Sequence[Sequence[tuple[Any, ...]]]) -> Inserted:
    marks = ", ".join("?" * len(batches[0][0]))
    insert = f"INSERT INTO positions VALUES ({marks})"  # noqa: S608 - placeholders only
    myself = {SQLITE: os.getpid()}
    before = Usage.now(myself)
    for batch in batches:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(insert, batch)
        database.execute("COMMIT")
    return Inserted(sum(map(len, batches)), Window.between(before, Usage.now(myself)))


def _value(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    if row is None:
        raise RuntimeError(f"query without a result: {query}")
    return row[0]
