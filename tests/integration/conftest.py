"""Fixtures for parts of Tracker on a real Redis server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from tests.integration.commands.ledgers import clock_of
from tests.integration.control.bench import ControlBench
from tests.integration.control.echo import Server
from tests.servers import RedisServer
from tests.waiting import until
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection

if TYPE_CHECKING:
    from tests.integration.bridge.bridges import Bridges
    from tests.integration.commands.instances import Instances


class Connected:
    """A connection to the Redis server of the test, and the reports of its condition."""

    def __init__(self, address: Any, reply_timeout: float = 10.0) -> None:
        from twisted.internet import reactor as installed

        reactor: Any = installed

        self.reports: list[str | None] = []
        usable = Condition(self.reports.append)
        self.connection = RedisConnection(reactor, address, usable, reply_timeout=reply_timeout)
        self.connection.startService()

    async def usable(self) -> None:
        await until(lambda: self.connection.connected, "connected to Redis")


@pytest_twisted.async_yield_fixture
async def connected(redis: RedisServer) -> AsyncIterator[Connected]:
    """Provide a usable connection, closed at the end."""
    connected = Connected(redis.address)
    await connected.usable()
    yield connected
    await connected.connection.stopService()


@pytest_twisted.async_yield_fixture
async def bench(redis: RedisServer, connected: Connected) -> AsyncIterator[ControlBench]:
    """Return a client of a control port; check at the end that no timer is left."""
    bench = ControlBench(redis, connected.connection)
    yield bench
    bench.client.leave()
    assert bench.port.timers == 0


@pytest_twisted.async_yield_fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    await server.close()


@pytest.fixture
def clock(redis: RedisServer) -> Clock:
    """Provide a stopped clock with the time of Redis."""
    return clock_of(redis)


@pytest_twisted.async_yield_fixture
async def instances(redis: RedisServer) -> AsyncIterator[Instances]:
    """Provide a starter of ingest instances without sockets, which ends them."""
    from tests.integration.commands.instances import Instances

    instances = Instances(redis)
    yield instances
    if not redis.is_up():
        redis.start()
    await instances.end()


@pytest_twisted.async_yield_fixture
async def bridges(redis: RedisServer) -> AsyncIterator[Bridges]:
    """Provide a starter of parts of the bridge with a double of Directus, which ends them."""
    from tests.integration.bridge.bridges import Bridges

    bridges = Bridges(redis)
    yield bridges
    if not redis.is_up():
        redis.start()
    await bridges.end()
