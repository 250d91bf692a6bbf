"""Bridges between a real Redis and a double of Directus."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_twisted

from tests.integration.bridge.bridges import Bridges
from tests.servers import RedisServer
from tracker.bridge import devices, responses


@pytest_twisted.async_yield_fixture
async def bridges(redis: RedisServer) -> AsyncIterator[Bridges]:
    bridges = Bridges(redis)
    yield bridges
    await bridges.end()


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less than in production."""
    monkeypatch.setattr(responses, "READ_WAIT", 0.2)
    monkeypatch.setattr(responses, "RETRY", 0.1)
    monkeypatch.setattr(devices, "SETTLES", 0.1)
