"""Devices of any vendor at a real gateway and publisher; the test controls the log."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.fakes import FakeRedis
from tests.unit.ingestion.test_gateway import connected_devices
from tests.unit.vendors.lines import LineDialect
from tests.unit.vendors.talk import Transport
from tracker.errors import Refused
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.authority import EveryDevice
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.publisher import StreamPublisher
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition
from tracker.vendors.connection import Connection, ConnectionFactory
from tracker.vendors.dialect import Dialect

ADDRESS = IPv4Address("TCP", "192.0.2.1", 40_000)


class Outage(Enum):
    """A way in which a log does not confirm appends."""

    DOWN = "down"
    REFUSES = "refuses"
    SILENT = "silent"


@define(eq=False)
class Socket:
    """A device's end of a connection."""

    protocol: Connection
    transport: Transport

    def send(self, data: bytes) -> None:
        """Send bytes, unless the connection has ended."""
        if not self.closed:
            self.protocol.dataReceived(data)

    def received(self) -> bytes:
        """Return the bytes that arrived since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def close(self) -> None:
        """Close the connection."""
        if not self.closed:
            self.transport.loseConnection()

    @property
    def closed(self) -> bool:
        """True if the connection has ended."""
        return not self.transport.connected


@define(eq=False)
class Plane:
    """An instance for devices, and its log."""

    limits: Limits = field(factory=Limits)
    build_dialect: Callable[[], Dialect[Any]] = LineDialect
    """Builds the dialect of the devices; by default, they send lines of text."""
    clock: Clock = field(factory=Clock)
    log: FakeRedis = field(factory=FakeRedis)
    outage: Outage | None = None
    stored: list[str] = field(factory=list)
    """Payloads of the confirmed entries, in the order of their appends."""
    gateway: Gateway = field(init=False)
    publisher: StreamPublisher = field(init=False)

    def __attrs_post_init__(self) -> None:
        log: Any = self.log
        other: Any = FakeRedis(replies={})
        self.publisher = StreamPublisher(self.clock, RedisWriter(log, "lines"), Condition())
        self.gateway = Gateway(
            self.clock,
            "lines",
            self.publisher,
            authority=EveryDevice(),
            limiter=ConnectionLimiter(self.clock, self.limits),
            connected=connected_devices(self.clock, other),
            kept=KeptMemory(self.limits.kept_memory),
        )
        self.publisher.startService()
        self.gateway.startService()
        self._factory = ConnectionFactory(self.gateway, self.limits, self.clock, self.build_dialect)

    _factory: ConnectionFactory = field(init=False)

    def connect(self) -> Socket | None:
        """Open a connection; return None if it is not admitted."""
        protocol = self._factory.buildProtocol(ADDRESS)
        if protocol is None:
            return None
        transport = Transport(peerAddress=ADDRESS)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return Socket(protocol, transport)

    def begin(self, outage: Outage) -> None:
        """Begin an outage of the log."""
        self.outage = outage
        if outage is Outage.DOWN:
            self.log.lose()

    def end(self) -> None:
        """End the outage."""
        if self.outage is not Outage.REFUSES:
            self.log.lose()  # a server that is restarted has forgotten the calls under way
            self.log.reconnect()
        self.outage = None

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and the log reply."""
        self.clock.advance(seconds)
        while self.log.commands and self.outage is not Outage.SILENT:
            self.reply()
            self.clock.advance(0)

    def reply(self) -> None:
        """Let the log reply to its first call."""
        arguments, reply = self.log.commands.pop(0)
        _reply(arguments, reply, None if self.outage else self.stored)


def _reply(arguments: tuple[Any, ...], reply: Deferred[Any], stored: list[str] | None) -> None:
    if stored is None:
        reply.errback(Refused("OOM command not allowed when used memory > 'maxmemory'."))
        return
    payloads = _payloads(list(arguments[4:]))
    stored += payloads
    reply.callback(len(payloads))


def _payloads(arguments: list[Any]) -> list[str]:
    # Groups: number of entries, codec, extra; then ts, device_id and payload of each.
    found: list[str] = []
    while arguments:
        end = 3 + 3 * int(arguments[0])
        found += arguments[5:end:3]
        arguments = arguments[end:]
    return found
