"""Helpers to create PostgreSQL sinks and to query their databases."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.writer import PostgreSQLSink

#: Query of columns of last_positions.
LAST: Final = "SELECT {} FROM last_positions ORDER BY device_id"


def sink_to(url: str, **options: Any) -> PostgreSQLSink:
    """Return a sink, not opened yet."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    return PostgreSQLSink(reactor, PostgreSQLAddress.from_url(url), **options)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query, with times in UTC."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else []
