"""Where positions can be stored: one module a kind of sink."""

from __future__ import annotations

from typing import Any

from tracker.interfaces import IPositionSink
from tracker.processing.sinks.sqlite import SQLiteSink


def make_sink(reactor: Any, url: str) -> IPositionSink:
    """The sink that a URL names: ``sqlite:PATH``. Nothing is opened yet.

    :raises ValueError: with one line that says what is wrong.
    """
    scheme, colon, rest = url.partition(":")
    if scheme != "sqlite" or not colon:
        raise ValueError(f"unknown sink {scheme!r}: use sqlite:PATH")
    if not rest:
        raise ValueError("sqlite: needs the path of a file, sqlite:PATH")
    return SQLiteSink(reactor, rest)
