"""UDP, shared and TLS endpoints: their arguments and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.internet.testing import MemoryReactor

from tests.certificates import certify, key_of
from tracker.net.listener import Listener
from tracker.net.ports import (
    MAX_DATAGRAM,
    UDPEndpoint,
    tcp_endpoint,
    tls_endpoint,
    udp_endpoint,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the certificate of a server."""
    return certify(tmp_path_factory.mktemp("server"), "192.0.2.1")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the certificate of an authority for clients."""
    return certify(tmp_path_factory.mktemp("authority"), "192.0.2.2")


# UDP endpoints.

NO_REACTOR: Any = None


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("udp:5027", (5027, "")),
        ("udp:0", (0, "")),
        ("udp:65535", (65_535, "")),
        ("udp:port=5027", (5027, "")),
        ("udp:5027:interface=127.0.0.1", (5027, "127.0.0.1")),
        ("udp:interface=127.0.0.1:port=5027", (5027, "127.0.0.1")),
        ("udp:5027:127.0.0.1", (5027, "127.0.0.1")),
        (r"udp:5027:interface=\:\:1", (5027, "::1")),
        (r"udp:5027:\:\:", (5027, "::")),
    ],
)
def test_udp_endpoint_has_port_and_interface(description: str, expected: tuple[int, str]) -> None:
    endpoint = udp_endpoint(NO_REACTOR, description)
    assert (endpoint.port, endpoint.interface, endpoint.shared) == (*expected, False)


@pytest.mark.parametrize(
    ("description", "error"),
    [
        ("udp:", "not ''"),
        ("udp:interface=127.0.0.1", "not ''"),
        ("udp:port", "not 'port'"),
        ("udp:port=", "not ''"),
        ("udp:65536", "not '65536'"),
        ("udp:-1", "not '-1'"),
        ("udp:5027.0", "not '5027.0'"),
        ("udp: 5027", "not ' 5027'"),
        ("udp:٣", "a number up to 65535"),
        ("udp:²", "a number up to 65535"),
        ("udp:5027:backlog=5", "unknown argument 'backlog'"),
        ("udp:5027:port=5028", "the port is given twice"),
        ("udp:5027:127.0.0.1:x", "too many arguments"),
        ("udp:5027:127.0.0.1:interface=127.0.0.2", "the interface is given twice"),
        ("udp:5027:::1", "too many arguments"),
        ("udp:5027:interface=localhost", "must be an IP address, not 'localhost'"),
    ],
)
def test_invalid_udp_endpoint_is_reported_in_one_line(description: str, error: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        udp_endpoint(NO_REACTOR, description)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("tcp:5027", (5027, 1024, "")),
        ("tcp:port=5027:backlog=7", (5027, 7, "")),
        ("tcp:5027:127.0.0.1:50", (5027, 50, "127.0.0.1")),
        (r"tcp:5027:interface=\:\:1", (5027, 1024, "::1")),
        ("tcp6:5027", (5027, 1024, "::")),
        ("tcp:5027:reuseport=0", (5027, 1024, "")),
    ],
)
def test_tcp_endpoint_has_port_backlog_and_interface(
    description: str, expected: tuple[int, int, str]
) -> None:
    reactor = MemoryReactor()
    tcp_endpoint(reactor, description).listen(Factory())
    ((port, _, backlog, interface),) = reactor.tcpServers
    assert (port, backlog, interface) == expected


@pytest.mark.parametrize(
    ("description", "error"),
    [
        ("tcp:", "not ''"),
        ("tcp:port", "not 'port'"),
        ("tcp:5027:127.0.0.1:50:7", "too many arguments"),
        ("tcp:5027:backlog=many", "not 'many'"),
        ("tcp:5027:interface=localhost", "must be an IP address"),
        ("tcp:5027:reuseport=yes", "must be 0 or 1, not 'yes'"),
        ("tcp:5027:reuse=1", "unknown argument 'reuse'; known are port, interface, backlog"),
    ],
)
def test_invalid_tcp_endpoint_is_reported_in_one_line(description: str, error: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        tcp_endpoint(MemoryReactor(), description)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


# Shared ports.


@pytest.mark.parametrize("interface", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest_twisted.ensureDeferred
async def test_port_can_be_shared_only_with_reuseport_on_both_sides(
    kind: str, interface: str
) -> None:
    make: Any = {"tcp": tcp_endpoint, "udp": udp_endpoint}[kind]
    factory: Any = {"tcp": Factory, "udp": DatagramProtocol}[kind]
    escaped = interface.replace(":", r"\:")

    from twisted.internet import reactor

    def endpoint(port: int, shared: int) -> Any:
        return make(reactor, f"{kind}:{port}:interface={escaped}:reuseport={shared}")

    ports = [await endpoint(0, 1).listen(factory())]
    try:
        number = ports[0].getHost().port
        ports.append(await endpoint(number, 1).listen(factory()))
        assert ports[1].getHost() == ports[0].getHost()
        with pytest.raises(CannotListenError, match="in use"):
            await endpoint(number, 0).listen(factory())
    finally:
        for port in ports:
            await port.stopListening()


# Datagram listeners.


@define
class UDPReactor:
    """Records its listeners; fails to listen if ``failure`` is set."""

    listening: list[tuple[int, object, str, int]] = field(factory=list)
    stopping: Deferred[None] = field(factory=Deferred)
    failure: Exception | None = None

    def listenUDP(self, port: int, protocol: object, interface: str = "", **size: int) -> Any:
        if self.failure is not None:
            raise self.failure
        self.listening.append((port, protocol, interface, size["maxPacketSize"]))
        return self

    def getHost(self) -> IPv4Address:
        return IPv4Address("UDP", "127.0.0.1", self.listening[-1][0])

    def stopListening(self) -> Deferred[None]:
        self.listening.clear()
        return self.stopping


class Bound:
    """A datagram listener, its reactor, and the reasons of its aborts."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.reactor = UDPReactor(failure=failure)
        self.protocol = DatagramProtocol()
        self.aborts: list[str] = []
        self.listener = Listener(
            "teltonika=udp:5027",
            UDPEndpoint(cast(Any, self.reactor), 5027, "127.0.0.1"),
            self.protocol,
            self.aborts.append,
        )


def test_datagram_listener_binds_once_before_privileges_are_dropped() -> None:
    bound = Bound()
    assert bound.reactor.listening == []
    bound.listener.privilegedStartService()
    bound.listener.startService()
    assert bound.reactor.listening == [(5027, bound.protocol, "127.0.0.1", MAX_DATAGRAM)]
    assert bound.aborts == []


def test_datagram_listener_binds_at_a_start_without_privileges() -> None:
    bound = Bound()
    bound.listener.startService()
    assert len(bound.reactor.listening) == 1


def test_stop_waits_until_the_port_is_closed() -> None:
    bound = Bound()
    bound.listener.startService()
    stopped: list[object] = []
    bound.listener.stopService().addCallback(stopped.append)
    assert bound.reactor.listening == []
    assert stopped == []
    bound.reactor.stopping.callback(None)
    assert stopped == [None]


def test_stop_before_the_start_ends_at_once() -> None:
    bound = Bound()
    stopped: list[object] = []
    bound.listener.stopService().addCallback(stopped.append)
    assert stopped == [None]


def test_port_in_use_aborts_with_a_reason() -> None:
    taken = CannotListenError("127.0.0.1", 5027, OSError(98, "Address already in use"))
    bound = Bound(taken)
    bound.listener.privilegedStartService()
    assert bound.aborts == [
        "cannot listen on teltonika=udp:5027: address already in use. "
        "Stop the process that uses it, or choose another port."
    ]


# TLS endpoints.


def described(server: Path, rest: str = "") -> str:
    return f"ssl:5027:privateKey={key_of(server)}:certKey={server}{rest}"


@pytest.mark.parametrize(
    ("rest", "interface", "backlog"),
    [
        ("", "", 1024),
        (":interface=127.0.0.1", "127.0.0.1", 1024),
        (r":interface=\:\:1:backlog=7", "::1", 7),
    ],
)
def test_tls_endpoint_has_port_backlog_and_interface(
    server: Path, authority: Path, rest: str, interface: str, backlog: int
) -> None:
    reactor = MemoryReactor()
    tls_endpoint(reactor, described(server, rest), authority).listen(Factory())
    ((port, _, given_backlog, given_interface),) = reactor.tcpServers
    assert (port, given_backlog, given_interface) == (5027, backlog, interface)


@pytest.mark.parametrize("required", [True, False])
def test_client_certificate_is_required_only_with_authorities(
    server: Path, authority: Path, required: bool
) -> None:
    endpoint: Any = tls_endpoint(
        MemoryReactor(), described(server), authority if required else None
    )
    assert bool(endpoint.options.verify) is required
    assert bool(endpoint.options.requireCertificate and endpoint.options.verify) is required


def test_refused_connection_gets_no_handshake(server: Path) -> None:
    class RefusingFactory(Factory):
        def buildProtocol(self, addr: object) -> None:
            return None

    reactor = MemoryReactor()
    tls_endpoint(reactor, described(server)).listen(RefusingFactory())
    encrypted = reactor.tcpServers[0][1]
    assert encrypted.buildProtocol(IPv4Address("TCP", "192.0.2.1", 40_000)) is None


def test_port_of_a_tls_endpoint_can_be_a_named_argument(server: Path, authority: Path) -> None:
    reactor = MemoryReactor()
    description = f"ssl:privateKey={key_of(server)}:port=5028:certKey={server}"
    tls_endpoint(reactor, description, authority).listen(Factory())
    assert reactor.tcpServers[0][0] == 5028


def test_key_and_certificate_can_be_in_one_file(
    server: Path, authority: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(key_of(server).read_bytes() + server.read_bytes())
    tls_endpoint(MemoryReactor(), f"ssl:5027:privateKey={both}", authority)


def test_chain_is_sent_with_the_certificate(server: Path, authority: Path, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(authority.read_bytes() + server.read_bytes())
    described_ = described(server, f":extraCertChain={chain}")
    endpoint: Any = tls_endpoint(MemoryReactor(), described_, authority)
    assert len(endpoint.options.extraCertChain) == 2


@pytest.mark.parametrize(
    ("description", "error"),
    [
        ("ssl:port:privateKey={key}:certKey={cert}", "not 'port'"),
        ("ssl:65536:privateKey={key}:certKey={cert}", "not '65536'"),
        ("ssl:privateKey={key}:certKey={cert}", "not ''"),
        ("ssl:5027:privateKey={key}:certKey={cert}:tls=1", "unknown argument 'tls'"),
        ("ssl:5027:privateKey={key}:certKey={cert}:port=1", "the port is given twice"),
        ("ssl:5027:privateKey={key}:certKey={cert}:backlog=many", "many"),
        ("ssl:5027:privateKey={key}:certKey={cert}:extraCertChain={key}", "no certificate"),
    ],
)
def test_invalid_tls_endpoint_is_reported_in_one_line(
    server: Path, authority: Path, description: str, error: str
) -> None:
    filled = description.format(key=key_of(server), cert=server)
    with pytest.raises(ValueError, match=r".") as raised:
        tls_endpoint(MemoryReactor(), filled, authority)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "description",
    [
        "ssl:5027:privateKey=/no/such/file:certKey={cert}",
        "ssl:5027:privateKey={key}:certKey=/no/such/file",
        "ssl:5027:privateKey={key}:certKey={cert}:extraCertChain=/no/such/file",
    ],
)
def test_error_names_the_missing_file(server: Path, authority: Path, description: str) -> None:
    filled = description.format(key=key_of(server), cert=server)
    with pytest.raises(OSError, match="/no/such/file"):
        tls_endpoint(MemoryReactor(), filled, authority)


def test_error_names_the_missing_file_of_authorities(server: Path) -> None:
    with pytest.raises(OSError, match="/no/such/file"):
        tls_endpoint(MemoryReactor(), described(server), Path("/no/such/file"))


def test_file_without_authorities_is_reported(server: Path) -> None:
    with pytest.raises(ValueError, match="contains no certificate"):
        tls_endpoint(MemoryReactor(), described(server), key_of(server))
