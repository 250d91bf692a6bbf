"""Pieces of Tracker on a real server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import psycopg
import pytest
import pytest_twisted

from tests.servers import PostgresServer, RedisServer
from tests.waiting import until
from tracker.streams.connection import RedisConnection


class Connected:
    """A connection to the test's server, and what it has reported."""

    def __init__(self, address: Any, reply_timeout: float = 10.0) -> None:
        from twisted.internet import reactor

        self.reports: list[str | None] = []
        self.connection = RedisConnection(reactor, address, self.reports.append, reply_timeout)
        self.connection.startService()

    async def usable(self) -> None:
        await until(lambda: self.connection.connected, "connected to Redis")


@pytest_twisted.async_yield_fixture
async def connected(redis: RedisServer) -> AsyncIterator[Connected]:
    """A usable connection, closed at the end."""
    connected = Connected(redis.address)
    await connected.usable()
    yield connected
    await connected.connection.stopService()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server: the one in TRACKER_TEST_POSTGRES, or one of the tests' own."""
    if url := os.environ.get("TRACKER_TEST_POSTGRES"):
        yield url
        return
    server = PostgresServer()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


_databases = count(1)


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database, for this test alone."""
    name = f"tracker_test_{os.getpid()}_{next(_databases)}"
    base, question, options = postgres_url.partition("?")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{base.rpartition('/')[0]}/{name}{question}{options}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A running server for this test alone, to be killed as it likes."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()
