"""Fixtures of sinks, which are closed at the end of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import pytest_twisted

from tests.integration.storage.postgres import sink_to
from tracker.storage.postgresql.writer import PostgreSQLSink

S = TypeVar("S")


class Closing(Protocol):
    """Function that registers a sink to be closed at the end of the test, and returns it."""

    def __call__(self, sink: S) -> S:
        """Register and return the sink."""


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
    """Return an open PostgreSQL sink; modules of other sinks override this fixture."""
    sink = closing(sink_to(database))
    await sink.open()
    return sink
