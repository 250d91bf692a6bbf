"""Endpoints that Twisted's endpoint strings cannot describe.

These are UDP ports, ports with TLS, and ports that several processes share: the kernel then
distributes connections (or datagrams, by the sender's address) over the processes.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorSocket,
    IReactorTCP,
    IReactorUDP,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from tracker.net.endpoints import ip_address, named_arguments, number, refuse_unknown_arguments
from tracker.net.tls import TLSEndpoint, server_options

#: Bytes of the largest possible datagram. Every datagram is read whole, even over a limit.
MAX_DATAGRAM: Final = 65_535

#: Connections that may wait to be accepted. Twisted's 50 overflow when a fleet reconnects.
BACKLOG: Final = "1024"

#: In the order of Twisted's ``ssl:`` endpoint, without its argument ``sslmethod``.
_SSL_ARGUMENTS: Final = ("port", "privateKey", "certKey", "interface", "backlog", "extraCertChain")
_SHARED: Final = "reuseport"


@frozen
class UDPEndpoint:
    """A UDP port, for a :class:`~tracker.net.listener.Listener`."""

    reactor: IReactorUDP
    port: int
    interface: str = ""
    shared: bool = False

    def listen(self, protocol: DatagramProtocol) -> Deferred[IListeningPort]:
        """Listen with one protocol for all datagrams.

        Fails with CannotListenError if the port cannot be bound.
        """
        bound: Deferred[IListeningPort] = execute(
            self._adopt if self.shared else self._open, protocol
        )
        return bound

    def _open(self, protocol: DatagramProtocol) -> Any:
        return self.reactor.listenUDP(
            self.port, protocol, interface=self.interface, maxPacketSize=MAX_DATAGRAM
        )

    def _adopt(self, protocol: DatagramProtocol) -> Any:
        with _shared_socket(socket.SOCK_DGRAM, self.port, self.interface) as bound:
            return IReactorSocket(self.reactor).adoptDatagramPort(
                bound.fileno(), bound.family, protocol, maxPacketSize=MAX_DATAGRAM
            )


@implementer(IStreamServerEndpoint)
@frozen
class SharedTCPEndpoint:
    """A TCP port that several processes share."""

    reactor: IReactorSocket
    port: int
    backlog: int
    interface: str = ""

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        bound: Deferred[IListeningPort] = execute(self._adopt, factory)
        return bound

    def _adopt(self, factory: Any) -> Any:
        with _shared_socket(socket.SOCK_STREAM, self.port, self.interface) as bound:
            bound.listen(self.backlog)
            return self.reactor.adoptStreamPort(bound.fileno(), bound.family, factory)


def _shared_socket(kind: socket.SocketKind, port: int, interface: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    bound = socket.socket(family, kind)
    try:
        bound.setblocking(False)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((interface, port))
    except OSError as error:
        bound.close()
        raise CannotListenError(interface, port, error) from None
    return bound


def udp_endpoint(reactor: IReactorUDP, description: str) -> UDPEndpoint:
    """Return the endpoint of ``udp:PORT[:interface=ADDRESS][:reuseport=1]``.

    :raises ValueError: if the description is not valid; the message is one line.
    """
    given = named_arguments(description, ("port", "interface"))
    port, interface, shared = _pop_address(given)
    refuse_unknown_arguments(given, ("port", "interface", _SHARED))
    return UDPEndpoint(reactor, port, interface, shared)


def tcp_endpoint(reactor: IReactorTCP, description: str) -> IStreamServerEndpoint:
    """Return the endpoint of ``tcp:PORT[:interface=ADDRESS][:backlog=N][:reuseport=1]``.

    ``tcp6:`` has the same arguments.

    :raises ValueError: if the description is not valid; the message is one line.
    """
    given = named_arguments(description, ("port", "interface", "backlog"))
    if description.startswith("tcp6:"):
        given.setdefault("interface", "::")
    backlog = number("backlog", given.pop("backlog", BACKLOG))
    port, interface, shared = _pop_address(given)
    refuse_unknown_arguments(given, ("port", "interface", "backlog", _SHARED))
    return _tcp(reactor, port, backlog, interface=interface, shared=shared)


def _tcp(
    reactor: IReactorTCP, port: int, backlog: int, *, interface: str, shared: bool
) -> IStreamServerEndpoint:
    if shared:
        return SharedTCPEndpoint(IReactorSocket(reactor), port, backlog, interface)
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    endpoint: IStreamServerEndpoint = kind(reactor, port, backlog, interface)
    return endpoint


def tls_endpoint(
    reactor: IReactorTCP, description: str, client_authorities: Path | None = None
) -> IStreamServerEndpoint:
    """Return an endpoint for TLS 1.2 and later.

    :param description: ``ssl:PORT:privateKey=FILE[:certKey=FILE][:extraCertChain=FILE]
        [:interface=ADDRESS][:backlog=N][:reuseport=1]``.
    :param client_authorities: PEM file of authorities. Clients must have a certificate that one
        of them has signed. None: no client certificate is required.
    :raises ValueError: if the description is not valid; the message is one line.
    :raises OSError: if a file cannot be read.
    """
    given = named_arguments(description, _SSL_ARGUMENTS)
    port, interface, shared = _pop_address(given)
    key_file = Path(given.pop("privateKey", "server.pem"))
    certificate_file = Path(given.pop("certKey", str(key_file)))
    chain_file = given.pop("extraCertChain", None)
    backlog = number("backlog", given.pop("backlog", BACKLOG))
    refuse_unknown_arguments(given, (*_SSL_ARGUMENTS, _SHARED))
    options = server_options(
        key_file,
        certificate_file,
        None if chain_file is None else Path(chain_file),
        client_authorities,
    )
    return TLSEndpoint(_tcp(reactor, port, backlog, interface=interface, shared=shared), options)


def _pop_address(given: dict[str, str]) -> tuple[int, str, bool]:
    """Remove port, interface and ``reuseport`` from the arguments, and return them."""
    port = number("port", given.pop("port", ""))
    interface = ip_address("interface", given.pop("interface", ""))
    shared = given.pop(_SHARED, "0")
    if shared not in ("0", "1"):
        raise ValueError(f"{_SHARED} must be 0 or 1, not {shared!r}")
    return port, interface, shared == "1"
