"""Fixtures with the double of Directus; requests are made in memory, without sockets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from attrs import frozen
from treq.testing import RequestTraversalAgent
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs

from tests.unit.bridge.double import (
    ADMIN_TOKEN,
    BRIDGE_TOKEN,
    OPERATOR_TOKEN,
    UNPRIVILEGED_TOKEN,
    DirectusDouble,
)
from tracker.bridge.rest import DirectusClient

pytest.register_assert_rewrite("tests.unit.bridge.behaviour")


@frozen
class Doubled:
    """The double, and clients of it."""

    double: DirectusDouble
    clock: Clock
    agent: RequestTraversalAgent

    def client(self, token: str) -> DirectusClient:
        """Return a client with a token."""
        return DirectusClient(self.clock, "http://directus.example:8055", token, agent=self.agent)

    @property
    def admin(self) -> DirectusClient:
        return self.client(ADMIN_TOKEN)

    @property
    def bridge(self) -> DirectusClient:
        return self.client(BRIDGE_TOKEN)

    @property
    def operator(self) -> DirectusClient:
        return self.client(OPERATOR_TOKEN)

    @property
    def unprivileged(self) -> DirectusClient:
        return self.client(UNPRIVILEGED_TOKEN)

    @property
    def unknown(self) -> DirectusClient:
        return self.client("an-invalid-token")


def doubled() -> Doubled:
    """Return a double without rows, and clients of it."""
    double = DirectusDouble()
    return Doubled(double, Clock(), RequestTraversalAgent(double))


@pytest.fixture
def subject() -> Doubled:
    """Return a double of Directus without rows."""
    return doubled()


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    """Yield the events that are logged during the test."""
    with capturedLogs() as events:
        yield events
