"""A control port and a client, for each test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from twisted.logger import LogEvent, capturedLogs

from tests.unit.control.reached import Bench
from tests.unit.control.wire import Client, Port


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def client(port: Port) -> Client:
    """One that has said Hello."""
    return port.client()


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


@pytest.fixture
def bench() -> Bench:
    """Return a client that is connected, and its port."""
    bench = Bench()
    bench.endpoint.succeed()
    return bench
