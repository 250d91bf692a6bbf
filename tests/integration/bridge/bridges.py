"""Services of the bridge between a real Redis and the double of Directus, served over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from random import random
from typing import Any, Final

import valkey
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.protocols.policies import WrappingFactory
from twisted.web.server import Site

from tests.servers import RedisServer
from tests.unit.bridge.double import BRIDGE_TOKEN, DirectusDouble
from tests.waiting import until
from tracker.bridge.devices import DeviceSync
from tracker.bridge.overdue import OverdueCommands
from tracker.bridge.responses import BATCH_SIZE, ResponseWriter
from tracker.bridge.rest import DirectusClient
from tracker.bridge.table import CommandTable
from tracker.keys import DIRECTUS_GROUP
from tracker.log.redis.reader import RedisReader
from tracker.observe.health import Condition
from tracker.redis.connection import RedisConnection
from tracker.runtime.backoff import Backoff

IMEI: Final = "356307042441013"
STREAM: Final = "commands:responses"
FINAL: Final = ("responded", "rejected", "failed", "expired")


class Bridges:
    """A double of Directus that can be stopped and started, and services of the bridge."""

    def __init__(self, redis: RedisServer) -> None:
        self.reactor = _reactor()
        self.redis = redis
        self.double = DirectusDouble()
        self.reports: list[str | None] = []
        self._site: Any = WrappingFactory(Site(self.double))
        self._port: Any = self.reactor.listenTCP(0, self._site, interface="127.0.0.1")
        self.number: int = self._port.getHost().port
        self._open: list[Any] = []
        """Services and connections, which are stopped at the end in reverse order."""

    async def writer(self, name: str = "this") -> ResponseWriter:
        """Start a writer of responses, and return it."""
        waiting, redis = await self._connection(), await self._connection()
        reader = RedisReader(waiting, redis, group=DIRECTUS_GROUP, name=name, entries=BATCH_SIZE)
        table = CommandTable(self._client(), redis)
        writer = ResponseWriter(
            self.reactor,
            reader,
            table,
            backoff=self.backoff,
            condition=Condition(self.reports.append),
        )
        self._open.append(writer)
        writer.startService()
        return writer

    async def devices(self, interval: float = 3600.0) -> DeviceSync:
        """Start a copy of the devices, and return it."""
        redis = await self._connection()
        sync = DeviceSync(
            self.reactor,
            self._client(),
            redis,
            condition=Condition(self.reports.append),
            interval=interval,
            backoff=self.backoff(),
        )
        self._open.append(sync)
        sync.startService()
        return sync

    async def overdue(self) -> OverdueCommands:
        """Start a search for overdue commands, and return it."""
        redis, client = await self._connection(), self._client()
        reader = RedisReader(redis, redis, group=DIRECTUS_GROUP, name="this", entries=BATCH_SIZE)
        table = CommandTable(client, redis)
        overdue = OverdueCommands(
            self.reactor, client, redis, responses=reader, table=table, interval=0.1
        )
        self._open.append(overdue)
        overdue.startService()
        return overdue

    def backoff(self) -> Backoff:
        """Return a backoff with short delays."""
        return Backoff(self.reactor, first_delay=0.02, max_delay=0.2, random=random)

    def rows(self, count: int, status: str = "routed") -> list[str]:
        """Add rows of commands, and return their ids."""
        keys = [f"00000000-0000-4000-8000-{number:012}" for number in range(count)]
        blank = dict.fromkeys(self.double.tables["commands"].columns)
        for key in keys:
            row = {**blank, "id": key, "imei": IMEI, "text": "x", "status": status}
            self.double.rows("commands")[key] = row
        return keys

    def respond(self, key: str, status: str, **more: str) -> None:
        """Append a response."""
        self.respond_all([response(key, status, **more)])

    def respond_all(self, responses: Iterable[dict[str, str]]) -> None:
        """Append many responses in one pipeline."""
        pipeline = self.redis.client.pipeline(transaction=False)
        for one in responses:
            pipeline.xadd(STREAM, one)
        pipeline.execute()

    def statuses(self) -> set[str]:
        return {row["status"] for row in self.double.rows("commands").values()}

    @property
    def last_report(self) -> str | None:
        """The last reason reported by a condition; None after a recovery."""
        return self.reports[-1] if self.reports else None

    @property
    def pending(self) -> int:
        """Number of pending entries of the group."""
        try:
            found: int = self.redis.client.xpending(STREAM, "directus")["pending"]
        except valkey.ResponseError:  # the group does not exist yet
            return 0
        return found

    async def all_written(self) -> None:
        def written() -> bool:
            last = self.redis.client.xinfo_stream(STREAM)["last-generated-id"]
            groups = self.redis.client.xinfo_groups(STREAM)
            return (
                bool(groups) and not groups[0]["pending"] and groups[0]["last-delivered-id"] == last
            )

        await until(written, "all responses are written and acknowledged", timeout=60)

    async def stop_directus(self) -> None:
        """Stop listening, and abort all connections."""
        await self._port.stopListening()
        for connection in list(self._site.protocols):
            connection.abortConnection()

    async def abort_connections(self) -> None:
        """Abort the connections that wait for a response."""
        aborted = set(self.double.unanswered)
        for request in aborted:
            transport: Any = request.transport
            transport.abortConnection()
        await until(lambda: not aborted & set(self.double.unanswered), "connections are aborted")

    def start_directus(self) -> None:
        """Listen again on the same port."""
        self._port = self.reactor.listenTCP(self.number, self._site, interface="127.0.0.1")

    async def end(self) -> None:
        for one in reversed(self._open):
            ended = one.stopService() if hasattr(one, "stopService") else one.close()
            await (ended if isinstance(ended, Deferred) else Deferred.fromCoroutine(ended))
        await maybeDeferred(self._port.stopListening)

    async def _connection(self) -> RedisConnection:
        connection = RedisConnection(
            self.reactor, self.redis.address, Condition(), reply_timeout=10.0
        )
        self._open.append(connection)
        connection.startService()
        await connection.when_connected()
        return connection

    def _client(self) -> DirectusClient:
        client = DirectusClient(self.reactor, f"http://127.0.0.1:{self.number}", BRIDGE_TOKEN)
        self._open.append(client)
        return client


def response(key: str, status: str, **more: str) -> dict[str, str]:
    """Return the fields of a response."""
    fields = {"command_id": key, "device_id": IMEI, "instance_id": "one", "status": status}
    return {**fields, "response": "", "reason": "", "at": "2026-11-22T10:00:00.000Z", **more}


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor
