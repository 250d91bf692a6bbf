"""Where positions can be stored: one module a kind of sink."""

from __future__ import annotations

from typing import Any

from tracker.interfaces import IPositionSink
from tracker.processing.sinks.sqlite import SQLiteSink


def make_sink(reactor: Any, url: str, migrate: bool = True) -> IPositionSink:
    """The sink that a URL names: ``postgresql://…`` or ``sqlite:PATH``. Nothing is opened yet.

    :param migrate: whether it makes and upgrades its tables when it is opened.
    :raises ValueError: with one line that says what is wrong, and holds no password.
    """
    scheme, colon, rest = url.partition(":")
    if scheme in ("postgresql", "postgres") and colon:
        try:
            from tracker.processing.sinks.postgresql.address import PostgreSQLAddress
            from tracker.processing.sinks.postgresql.sink import PostgreSQLSink
        except ImportError as error:
            raise ValueError(
                f"{scheme}: needs psycopg, pip install 'tracker[postgresql]': {error}"
            ) from None
        return PostgreSQLSink(reactor, PostgreSQLAddress.from_url(url), migrate)
    if scheme != "sqlite" or not colon:
        raise ValueError(f"unknown sink {scheme!r}: use postgresql://… or sqlite:PATH")
    if not rest:
        raise ValueError("sqlite: needs the path of a file, sqlite:PATH")
    return SQLiteSink(reactor, rest)
