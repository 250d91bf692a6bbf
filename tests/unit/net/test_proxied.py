"""Connections of named proxies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPushProducer, ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.interfaces import Rejection
from tracker.net.proxied import HEADER_TIMEOUT, ProxiedConnection, ProxiedFactory, proxy_network

PROXY = IPv4Address("TCP", "192.0.2.9", 33_000)
CLIENT = IPv4Address("TCP", "203.0.113.7", 40_000)
CLIENT_6 = IPv6Address("TCP", "2001:db8::7", 40_000)
TEXT = b"PROXY TCP4 203.0.113.7 192.0.2.9 40000 5027\r\n"
TEXT_6 = b"PROXY TCP6 2001:db8::7 2001:db8::9 40000 5027\r\n"
BINARY = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes((203, 0, 113, 7, 192, 0, 2, 9))
    + b"\x9c\x40\x13\xa3"
)  # fmt: skip
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"
UNKNOWN = b"PROXY UNKNOWN\r\n"
DATA = b"\x00\x0f356307042441013"


@define
class FakePort:
    """Has ``free`` slots, and records all reports."""

    free: int = 10
    reserved: int = 0
    checks: int = 0
    rejections: list[tuple[str, str, Rejection]] = field(factory=list)

    def reserve(self, address: IAddress) -> bool:
        if self.reserved >= self.free:
            return False
        self.reserved += 1
        return True

    def release(self) -> None:
        self.reserved -= 1
        assert self.reserved >= 0

    def checked(self) -> None:
        self.checks += 1

    def rejected(self, peer: Any, reason: str, kind: Rejection) -> None:
        assert peer.device_id is None
        self.rejections.append((peer.peer, reason, kind))


@implementer(IPushProducer)
class Device(Protocol):
    """The protocol that serves a client."""

    received = b""
    lost: Failure | None = None
    calls = ""

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = ConnectionDone) -> None:  # type: ignore[assignment]
        self.lost = reason

    def pauseProducing(self) -> None:
        self.calls += "pause "

    def resumeProducing(self) -> None:
        self.calls += "resume "

    def stopProducing(self) -> None:
        self.calls += "stop "


class Devices(Factory):
    """Builds protocols, and records the addresses."""

    def __init__(self) -> None:
        self.full = False
        self.addresses: list[IAddress] = []
        self.built: list[Device] = []

    def buildProtocol(self, addr: IAddress) -> Device | None:  # type: ignore[override]
        self.addresses.append(addr)
        if self.full:
            return None
        self.built.append(Device())
        return self.built[-1]


class Connection:
    """A proxied port with one connection."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.proxied_port = FakePort()
        self.devices = Devices()
        networks = [proxy_network(text) for text in ("192.0.2.8/31", "2001:db8:1::/64")]
        self.factory = ProxiedFactory(self.devices, networks, self.proxied_port, self.clock)
        self.transport = StringTransport(peerAddress=PROXY)
        protocol = self.factory.buildProtocol(PROXY)
        assert protocol is not None
        self.protocol: ProxiedConnection = protocol
        self.protocol.makeConnection(self.transport)  # type: ignore[arg-type]

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def device(self) -> Device:
        (device,) = self.devices.built
        return device

    @property
    def closed(self) -> bool:
        return self.transport.disconnected

    def is_settled(self) -> bool:
        """Return True if the connection holds no slot and no timer."""
        return not self.proxied_port.reserved and not self.clock.getDelayedCalls()


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    assert connection.proxied_port.reserved == 1
    yield connection
    connection.lose()
    assert connection.is_settled()


@pytest.mark.parametrize(
    ("address", "named"),
    [
        (PROXY, True),
        (IPv4Address("TCP", "192.0.2.8", 1), True),
        (IPv4Address("TCP", "192.0.2.10", 1), False),
        (IPv6Address("TCP", "::ffff:192.0.2.9", 1), True),
        (IPv6Address("TCP", "::ffff:192.0.2.10", 1), False),
        (IPv6Address("TCP", "2001:db8:1::5", 1), True),
        (IPv6Address("TCP", "2001:db8:2::5", 1), False),
        (IPv6Address("TCP", "fe80::1%eth0", 1), False),
        (UNIXAddress(b"/run/x"), False),
        (None, False),
    ],
)
def test_only_named_proxies_may_connect(
    connection: Connection, address: IAddress | None, named: bool
) -> None:
    connection.proxied_port.reserved = 0
    built = connection.factory.buildProtocol(address)
    assert (built is not None) is named
    assert connection.proxied_port.reserved == named
    kinds = [kind for _, _, kind in connection.proxied_port.rejections]
    assert kinds == ([] if named else [Rejection.PROXY])
    connection.proxied_port.reserved = 1


def test_connection_without_a_free_slot_is_closed_unread(connection: Connection) -> None:
    connection.proxied_port.free = 1
    assert connection.factory.buildProtocol(PROXY) is None
    assert connection.proxied_port.rejections == []  # reserve() reports the refusal itself


@pytest.mark.parametrize(
    ("header", "client"), [(TEXT, CLIENT), (BINARY, CLIENT), (TEXT_6, CLIENT_6)]
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_client_is_served_under_its_own_address_for_segments_of_any_size(
    connection: Connection, header: bytes, client: IAddress, size: int
) -> None:
    data = header + DATA
    for start in range(0, len(data), size):
        connection.protocol.dataReceived(data[start : start + size])
        assert (start + size < len(header)) == (not connection.devices.built)
    assert connection.devices.addresses == [client]
    device = connection.device
    assert device.received == DATA
    assert device.transport is not None
    assert device.transport.getPeer() == client
    assert connection.is_settled()
    connection.lose()
    assert device.lost is not None


def test_device_protocol_controls_the_transport_to_the_client(connection: Connection) -> None:
    connection.protocol.dataReceived(TEXT)
    assert ITransport.providedBy(connection.device.transport)
    transport: Any = connection.device.transport
    transport.write(b"a")
    transport.writeSequence([b"b", b"c"])
    assert connection.transport.value() == b"abc"
    transport.pauseProducing()
    assert connection.transport.producerState == "paused"
    transport.resumeProducing()
    assert connection.transport.producerState == "producing"
    transport.registerProducer(connection.device, True)
    assert connection.transport.producer is connection.device
    transport.unregisterProducer()
    assert connection.transport.producer is None
    transport.loseConnection()
    assert connection.transport.disconnecting
    transport.abortConnection()
    assert connection.closed


def test_client_that_is_not_admitted_is_closed(connection: Connection) -> None:
    connection.devices.full = True
    connection.protocol.dataReceived(TEXT + DATA)
    assert connection.devices.addresses == [CLIENT]
    assert connection.closed
    assert connection.is_settled()
    connection.protocol.dataReceived(DATA)  # bytes in flight
    assert connection.devices.built == []


def test_reserved_slot_is_released_before_the_client_is_admitted(connection: Connection) -> None:
    seen = []
    build = connection.devices.buildProtocol

    def buildProtocol(addr: IAddress) -> Device | None:
        seen.append(connection.proxied_port.reserved)
        return build(addr)

    connection.devices.buildProtocol = buildProtocol  # type: ignore[method-assign]
    connection.protocol.dataReceived(TEXT)
    assert seen == [0]


@pytest.mark.parametrize(
    "data", [DATA, b"PROXY TCP4 example\r\n", b"\x16\x03\x01\x02", b"PROXY ".ljust(200)]
)
def test_bytes_other_than_a_header_close_the_connection(
    connection: Connection, data: bytes
) -> None:
    connection.protocol.dataReceived(data)
    ((peer, _, kind),) = connection.proxied_port.rejections
    assert (peer, kind) == ("192.0.2.9:33000", Rejection.PROXY)
    assert connection.closed
    assert connection.is_settled()
    assert connection.devices.addresses == []


def test_late_header_closes_the_connection(connection: Connection) -> None:
    for byte in TEXT[:5]:
        connection.protocol.dataReceived(bytes((byte,)))
        connection.clock.advance(HEADER_TIMEOUT / 5)
    ((_, reason, kind),) = connection.proxied_port.rejections
    assert (reason, kind) == ("no PROXY header within 5s", Rejection.PROXY)
    assert connection.closed


@pytest.mark.parametrize("data", [b"", LOCAL, UNKNOWN])
def test_health_check_is_counted_and_not_rejected(connection: Connection, data: bytes) -> None:
    if data:
        connection.protocol.dataReceived(data)
    assert not connection.closed
    connection.lose()
    assert connection.proxied_port.checks == 1
    assert connection.proxied_port.rejections == []
    assert connection.devices.addresses == []
    connection.proxied_port.reserved = 0


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN])
def test_health_check_that_stays_open_is_closed_without_a_rejection(
    connection: Connection, header: bytes
) -> None:
    connection.protocol.dataReceived(header)
    connection.clock.advance(HEADER_TIMEOUT)
    assert connection.closed
    assert connection.is_settled()
    connection.lose()
    assert connection.proxied_port.checks == 1
    assert connection.proxied_port.rejections == []


@pytest.mark.parametrize("header", [LOCAL, UNKNOWN])
@pytest.mark.parametrize("at_once", [True, False])
def test_proxy_is_served_under_its_address_if_the_header_names_no_client(
    connection: Connection, header: bytes, at_once: bool
) -> None:
    for data in [header + DATA] if at_once else [header, DATA]:
        connection.protocol.dataReceived(data)
    assert connection.devices.addresses == [PROXY]
    assert connection.device.received == DATA
    connection.lose()
    assert connection.proxied_port.checks == 0
