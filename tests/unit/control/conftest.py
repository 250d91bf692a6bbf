"""Fixtures: a control port and its clients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from twisted.logger import LogEvent, capturedLogs

from tests.unit.control.client_bench import Bench
from tests.unit.control.wire import Client, Port


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.fixture
def client(port: Port) -> Client:
    """Return a client that has sent Hello."""
    return port.client()


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


@pytest.fixture
def bench() -> Bench:
    """Return a connected client and its control port."""
    bench = Bench()
    bench.endpoint.succeed()
    return bench
