"""The double of Directus, asked in memory: no test here opens a socket."""

from __future__ import annotations

import pytest
from attrs import frozen
from treq.testing import RequestTraversalAgent
from twisted.internet.task import Clock

from tests.unit.bridge.double import (
    ADMIN_TOKEN,
    BRIDGE_TOKEN,
    NOBODY_TOKEN,
    OPERATOR_TOKEN,
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
        """Of the user who has this token."""
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
    def nobody(self) -> DirectusClient:
        return self.client(NOBODY_TOKEN)

    @property
    def stranger(self) -> DirectusClient:
        return self.client("a-token-that-nobody-has")


def doubled() -> Doubled:
    """One without rows."""
    double = DirectusDouble()
    return Doubled(double, Clock(), RequestTraversalAgent(double))


@pytest.fixture
def subject() -> Doubled:
    """A Directus without rows."""
    return doubled()
