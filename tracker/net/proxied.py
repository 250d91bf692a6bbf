"""Serve connections from a named proxy under the addresses of the proxy's clients.

:class:`ProxiedFactory` sits between a port and the factory that serves it. It reads the PROXY
header of each connection, and then builds the protocol for the address in the header. Only
proxies that are named in the options may send such headers, since a header can claim any address.

TLS begins after the header: the wrapped factory is that of TLS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Protocol

from attrs import frozen
from twisted.internet.address import IPv4Address as TwistedIPv4
from twisted.internet.address import IPv6Address as TwistedIPv6
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from tracker.durations import format_duration
from tracker.interfaces import IPeer, Rejection
from tracker.net.endpoints import readable
from tracker.net.proxyheader import ProxiedClient, decode_proxy_header
from tracker.outcomes import Fatal, Incomplete

#: Seconds for the header to arrive. A proxy sends it first and at once; the specification
#: recommends at least 3 seconds to cover a retransmission.
HEADER_TIMEOUT: Final = 5.0

Network = IPv4Network | IPv6Network


class IProxiedPort(Protocol):
    """Counts and logs the connections of a proxied port."""

    def reserve(self, address: IAddress) -> bool:
        """Reserve a slot for a connection whose client is not known yet.

        :return: False if no slot is free.
        """

    def release(self) -> None:
        """Free a slot that :meth:`reserve` has reserved."""

    def checked(self) -> None:
        """Count a health check: a connection that named no client and sent nothing."""

    def rejected(self, peer: Any, reason: str, kind: Rejection) -> None:
        """Count and log a rejected connection. See IGateway."""


def proxy_network(text: str) -> Network:
    """Return the network of ``ADDRESS[/BITS]``, the addresses of one or more proxies.

    :raises ValueError: if ``text`` is not a network, or covers all addresses; the message
        is one line.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        hint = ": it has bits set outside its prefix" if "host bits" in str(error) else ""
        raise ValueError(f"must be an IP address or ADDRESS/BITS{hint}") from None
    if not network.prefixlen:
        raise ValueError("covers all addresses: any client could forge its address")
    return network


@implementer(IPeer)
@frozen
class _Peer:
    peer: str
    device_id: str | None = None


class _State(Enum):
    HEADER = auto()
    """The header is not complete."""
    NAMELESS = auto()
    """The header named no client; no bytes have followed."""
    SERVED = auto()
    CLOSED = auto()


class ProxiedConnection(ProtocolWrapper):
    """Connection of a proxy, and transport of the protocol that serves the client."""

    factory: ProxiedFactory
    transport: ITCPTransport

    def __init__(self, factory: ProxiedFactory) -> None:
        super().__init__(factory, None)  # type: ignore[arg-type]
        self._buffer = bytearray()
        self._state = _State.HEADER
        self._deadline: IDelayedCall | None = None
        self._client: IAddress | None = None

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return type(self).__name__

    def makeConnection(self, transport: ITCPTransport) -> None:
        """Wait for the header, after which the client's protocol is built."""
        directlyProvides(self, providedBy(transport))
        self.transport = transport
        self.connected = 1
        self._deadline = self.factory.clock.callLater(self.factory.timeout, self._overdue)

    def getPeer(self) -> IAddress:
        """Return the address of the client, or that of the proxy before the header."""
        return self._client or self.transport.getPeer()

    def dataReceived(self, data: bytes) -> None:
        """Read the header, and pass the following bytes to the client's protocol."""
        if self._state is _State.SERVED:
            self.wrappedProtocol.dataReceived(data)
        elif self._state is _State.HEADER:
            self._buffer += data
            self._read_header()
        elif self._state is _State.NAMELESS:
            self._serve(self.transport.getPeer(), data)

    def _read_header(self) -> None:
        outcome = decode_proxy_header(self._buffer)
        if isinstance(outcome, Incomplete):
            return
        if isinstance(outcome, Fatal):
            self._reject(outcome.reason)
            return
        rest, self._buffer = bytes(self._buffer[outcome.used :]), bytearray()
        if outcome.value is not None:
            self._serve(_address(outcome.value), rest)
        elif rest:
            # The header names no client: the proxy itself is the client.
            self._serve(self.transport.getPeer(), rest)
        else:
            self._state = _State.NAMELESS

    def _serve(self, client: IAddress, data: bytes) -> None:
        self._end_waiting()
        self._client = client
        protocol = self.factory.wrappedFactory.buildProtocol(client)
        if protocol is None:
            self._close()
            return
        self._state = _State.SERVED
        self.wrappedProtocol = protocol
        protocol.makeConnection(self)
        if data:
            protocol.dataReceived(data)

    def _overdue(self) -> None:
        if self._state is _State.NAMELESS:
            self._end_waiting()
            self.factory.proxied_port.checked()
            self._close()
        else:
            self._reject(f"no PROXY header within {format_duration(self.factory.timeout)}")

    def _reject(self, reason: str) -> None:
        self._end_waiting()
        peer = _Peer(readable(self.transport.getPeer()))
        self.factory.proxied_port.rejected(peer, reason, Rejection.PROXY)
        self._close()

    def _close(self) -> None:
        self._state = _State.CLOSED
        self._buffer.clear()
        self.transport.abortConnection()

    def _end_waiting(self) -> None:
        """Cancel the deadline, and free the slot that was reserved for the unknown client."""
        if self._deadline is not None:
            if self._deadline.active():
                self._deadline.cancel()
            self._deadline = None
            self.factory.proxied_port.release()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Notify the client's protocol, if there is one."""
        state, self._state = self._state, _State.CLOSED
        self._end_waiting()
        if state is _State.NAMELESS or (state is _State.HEADER and not self._buffer):
            self.factory.proxied_port.checked()
        elif state is _State.SERVED:
            protocol, self.wrappedProtocol = self.wrappedProtocol, None  # type: ignore[assignment]
            protocol.connectionLost(reason)


class ProxiedFactory(WrappingFactory[ProxiedConnection]):
    """Builds a :class:`ProxiedConnection` for each connection of a named proxy.

    :param wrapped: builds the protocols that serve the clients.
    :param proxies: networks of the named proxies.
    :param proxied_port: counts and logs the connections.
    :param timeout: seconds for the header to arrive.
    """

    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        proxies: Iterable[Network],
        proxied_port: IProxiedPort,
        clock: IReactorTime,
        *,
        timeout: float = HEADER_TIMEOUT,
    ) -> None:
        super().__init__(wrapped)
        self.proxied_port = proxied_port
        self.clock = clock
        self.timeout = timeout
        self._proxies = tuple(proxies)

    # The base class cannot return None here, although IProtocolFactory allows it.
    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> ProxiedConnection | None:
        """Return a connection that waits for its header; None to close it unread."""
        if addr is None or not self._is_named(getattr(addr, "host", "")):
            self.proxied_port.rejected(
                _Peer(readable(addr)), "not a proxy named by --proxy", Rejection.PROXY
            )
            return None
        return ProxiedConnection(self) if self.proxied_port.reserve(addr) else None

    def _is_named(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:  # a Unix socket has no IP address
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._proxies)


@implementer(IStreamServerEndpoint)
@frozen
class ProxiedEndpoint:
    """An endpoint for named proxies. Its arguments are those of :class:`ProxiedFactory`."""

    below: IStreamServerEndpoint
    proxies: Sequence[Network]
    proxied_port: IProxiedPort
    clock: IReactorTime
    timeout: float = HEADER_TIMEOUT

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        bound: Deferred[IListeningPort] = self.below.listen(
            ProxiedFactory(
                factory, self.proxies, self.proxied_port, self.clock, timeout=self.timeout
            )
        )
        return bound


def _address(client: ProxiedClient) -> IAddress:
    kind = TwistedIPv6 if ":" in client.host else TwistedIPv4
    address: IAddress = kind("TCP", client.host, client.port)
    return address
