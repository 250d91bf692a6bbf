"""Fixtures that more than one kind of test uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A running server, durable at each append, for this test alone."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.kill()
