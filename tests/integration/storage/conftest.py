"""Sinks that are closed at the end of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import pytest_twisted

from tests.integration.storage.postgres import sink_to
from tracker.storage.postgresql.writer import PostgreSQLSink

S = TypeVar("S")


class Closing(Protocol):
    """Closes a sink at the end of the test."""

    def __call__(self, sink: S) -> S:
        """Return the sink."""


@pytest_twisted.async_yield_fixture
async def closing() -> AsyncIterator[Closing]:
    sinks: list[Any] = []

    def close(sink: S) -> S:
        sinks.append(sink)
        return sink

    yield close
    for sink in sinks:
        await sink.close()


@pytest_twisted.async_fixture
async def sink(database: str, closing: Closing) -> PostgreSQLSink:
    """An open PostgreSQL sink; modules about other sinks have their own."""
    sink = closing(sink_to(database))
    await sink.open()
    return sink
