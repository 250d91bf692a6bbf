"""Sinks and readers, created from URLs."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.interfaces import IPositionSink
from tracker.reactor import Reactor
from tracker.storage.jsonlines.writer import JSONLinesSink
from tracker.storage.reader import PositionReader
from tracker.storage.repair import RepairedDatabase
from tracker.storage.sqlite import schema as sqlite
from tracker.storage.sqlite.reader import SQLiteReader
from tracker.storage.sqlite.repair import SQLiteRepair
from tracker.storage.sqlite.writer import SQLiteSink

#: Forms of a sink's URL, for messages.
KINDS: Final = "postgresql://…, sqlite:PATH or jsonlines:PATH (jsonlines:- is standard output)"

#: Schemes of PostgreSQL URLs.
POSTGRESQL: Final = ("postgresql", "postgres")


def make_sink(
    reactor: Reactor, url: str, *, migrate: bool = True, clocks: ClockRule = DEFAULT_CLOCKS
) -> IPositionSink:
    """Return the sink of a URL, not opened yet.

    :param url: one of :data:`KINDS`.
    :param clocks: the rule that times of records must meet.
    :param migrate: create and upgrade the tables when the sink is opened.
    :raises ValueError: if the URL is malformed; the text is one line without a password.
    """
    kind, rest = sink_kind(url)
    if kind in POSTGRESQL:
        address, writer, _ = _postgresql(kind)
        sink: IPositionSink = writer.PostgreSQLSink(
            reactor, address.PostgreSQLAddress.from_url(url), migrate=migrate, clocks=clocks
        )
        return sink
    if kind == "sqlite":
        return SQLiteSink(reactor, rest, migrate=migrate, clocks=clocks)
    return JSONLinesSink(reactor, rest)


def migrate_sink(url: str) -> tuple[int, int]:
    """Create or upgrade the tables of a sink; this blocks.

    :return: the versions before and after; zeros for a sink without tables.
    :raises ValueError: if the URL is malformed, see :func:`make_sink`.
    :raises SinkUnusable: if the database cannot be used, or has a newer version.
    :raises SinkDown: if the database cannot be reached.
    """
    kind, rest = sink_kind(url)
    if kind in POSTGRESQL:
        address, _, schema = _postgresql(kind)
        versions: tuple[int, int] = schema.migrate(address.PostgreSQLAddress.from_url(url))
        return versions
    return sqlite.migrate(rest) if kind == "sqlite" else (0, 0)


def open_reader(reactor: Reactor, url: str) -> PositionReader:
    """Return a reader of the sink of a URL, not opened yet.

    :raises ValueError: if the URL is malformed, or its kind cannot be read; the text is one line
        without a password.
    """
    kind, rest = sink_kind(url)
    if kind in POSTGRESQL:
        try:
            from tracker.storage.postgresql.reader import PostgreSQLReader
        except ImportError as error:
            raise _no_psycopg(kind, error) from None
        return PostgreSQLReader(reactor, url)
    if kind == "sqlite":
        return SQLiteReader(reactor, rest)
    raise ValueError(f"positions in {kind} cannot be read; use postgresql://… or sqlite:PATH")


def open_repair(url: str, clocks: ClockRule, dry_run: bool) -> RepairedDatabase:
    """Return the database of a URL for a repair of its rows; this blocks.

    :param dry_run: the database is only read.
    :raises ValueError: if the URL is malformed, or its kind has no rows to repair; the text is one
        line without a password.
    :raises SinkUnusable: if its tables lack something.
    :raises SinkDown: if it cannot be used now.
    """
    kind, rest = sink_kind(url)
    if kind in POSTGRESQL:
        try:
            from tracker.storage.postgresql.repair import PostgreSQLRepair
        except ImportError as error:
            raise _no_psycopg(kind, error) from None
        return PostgreSQLRepair(url, clocks, dry_run)
    if kind == "sqlite":
        return SQLiteRepair(rest, clocks, dry_run)
    raise ValueError(f"lines in {kind} are never changed; use postgresql://… or sqlite:PATH")


def sink_kind(url: str) -> tuple[str, str]:
    """Split the URL of a sink into its kind and the rest.

    :raises ValueError: if the URL is not one of :data:`KINDS`.
    """
    kind, colon, rest = url.partition(":")
    if not colon or kind not in (*POSTGRESQL, "sqlite", "jsonlines"):
        raise ValueError(
            f"unknown sink {kind!r}; use {KINDS}" if colon else f"not a sink; use {KINDS}"
        )
    if kind not in POSTGRESQL and not rest:
        raise ValueError(f"{kind}: requires a path; use {kind}:PATH")
    return kind, rest


def _postgresql(kind: str) -> tuple[ModuleType, ModuleType, ModuleType]:
    # Imported here, since psycopg is required for PostgreSQL only.
    try:
        from tracker.storage.postgresql import address, schema, writer
    except ImportError as error:
        raise _no_psycopg(kind, error) from None
    return address, writer, schema


def _no_psycopg(kind: str, error: ImportError) -> ValueError:
    return ValueError(
        f"{kind}: requires psycopg; run pip install 'tracker-plane[postgresql]' ({error})"
    )
