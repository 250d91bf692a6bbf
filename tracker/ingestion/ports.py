"""Ports that Twisted's endpoint strings do not describe, or not well enough.

These are UDP ports, ports for TLS, and ports that several processes share: the kernel
then spreads connections (or datagrams, by their sender's address) over the processes.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tracker.certificates import load_certificates, trust_root
from tracker.endpoints import split

#: Bytes of the largest datagram there is. What is over a limit is known only when it is whole.
MAX_DATAGRAM: Final = 65_535

#: Connections that may wait to be accepted. Twisted's 50 overflow when a fleet reconnects.
BACKLOG: Final = "1024"

#: In the order of Twisted's ``ssl:`` endpoint, of which the protocol's version is left out.
_SSL_ARGUMENTS: Final = ("port", "privateKey", "certKey", "interface", "backlog", "extraCertChain")
_SHARED: Final = "reuseport"


@frozen
class UDPEndpoint:
    """A UDP port, for a :class:`~tracker.lifecycle.Listener`."""

    reactor: Any
    port: int
    interface: str = ""
    shared: bool = False

    def listen(self, protocol: DatagramProtocol) -> Deferred[IListeningPort]:
        """Listen with one protocol for all that comes; fails as a stream endpoint does."""
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
            return self.reactor.adoptDatagramPort(
                bound.fileno(), bound.family, protocol, maxPacketSize=MAX_DATAGRAM
            )


@implementer(IStreamServerEndpoint)
@frozen
class SharedTCPEndpoint:
    """A TCP port that other processes listen on, too."""

    reactor: Any
    port: int
    backlog: int
    interface: str = ""

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        bound: Deferred[IListeningPort] = execute(self._adopt, factory)
        return bound

    def _adopt(self, factory: IProtocolFactory) -> Any:
        with _shared_socket(socket.SOCK_STREAM, self.port, self.interface) as bound:
            bound.listen(self.backlog)
            return self.reactor.adoptStreamPort(bound.fileno(), bound.family, factory)


def _shared_socket(kind: socket.SocketKind, port: int, interface: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    made = socket.socket(family, kind)
    try:
        made.setblocking(False)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((interface, port))
    except OSError as error:
        made.close()
        raise CannotListenError(interface, port, error) from None
    return made


def udp_endpoint(reactor: Any, description: str) -> UDPEndpoint:
    """The endpoint of ``udp:PORT[:interface=ADDRESS][:reuseport=1]``.

    :raises ValueError: with one line that says what is wrong.
    """
    given = _named(description, ("port", "interface"))
    port, interface, shared = _place(given)
    _no_more(given, ("port", "interface", _SHARED))
    return UDPEndpoint(reactor, port, interface, shared)


def tcp_endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:
    """The endpoint of ``tcp:PORT[:interface=ADDRESS][:backlog=N][:reuseport=1]``, or ``tcp6:``.

    :raises ValueError: with one line that says what is wrong.
    """
    given = _named(description, ("port", "interface", "backlog"))
    if description.startswith("tcp6:"):
        given.setdefault("interface", "::")
    backlog = _number("backlog", given.pop("backlog", BACKLOG))
    port, interface, shared = _place(given)
    _no_more(given, ("port", "interface", "backlog", _SHARED))
    return _tcp(reactor, port, backlog, interface, shared)


def _tcp(
    reactor: Any, port: int, backlog: int, interface: str, shared: bool
) -> IStreamServerEndpoint:
    if shared:
        return SharedTCPEndpoint(reactor, port, backlog, interface)
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    endpoint: IStreamServerEndpoint = kind(reactor, port, backlog, interface)
    return endpoint


def tls_endpoint(
    reactor: Any, description: str, client_authorities: Path | None = None
) -> IStreamServerEndpoint:
    """An endpoint for TLS 1.2 and later.

    :param description: ``ssl:PORT:privateKey=FILE[:certKey=FILE][:extraCertChain=FILE]
        [:interface=ADDRESS][:backlog=N][:reuseport=1]``.
    :param client_authorities: PEM file of authorities; only clients are served that one
        of them vouches for. No certificate is asked for without it.
    :raises ValueError: with one line that says what is wrong.
    :raises OSError: when a file cannot be read.
    """
    given = _named(description, _SSL_ARGUMENTS)
    port, interface, shared = _place(given)
    key_file = Path(given.pop("privateKey", "server.pem"))
    certificate_file = Path(given.pop("certKey", str(key_file)))
    chain_file = given.pop("extraCertChain", None)
    backlog = _number("backlog", given.pop("backlog", BACKLOG))
    _no_more(given, (*_SSL_ARGUMENTS, _SHARED))
    chain = [] if chain_file is None else load_certificates(Path(chain_file))
    options = CertificateOptions(
        privateKey=_private_key(key_file),
        certificate=load_certificates(certificate_file)[0].original,
        extraCertChain=[link.original for link in chain],
        trustRoot=None if client_authorities is None else trust_root(client_authorities),
    )
    try:
        options.getContext()
    except (SSL.Error, crypto.Error) as error:
        reason = error.args[0][0][2] if error.args and error.args[0] else "refused by OpenSSL"
        raise ValueError(f"{key_file} and {certificate_file}: {reason}") from None
    return TLSEndpoint(_tcp(reactor, port, backlog, interface, shared), options)


@implementer(IStreamServerEndpoint)
@frozen
class TLSEndpoint:
    """TLS on top of another endpoint."""

    below: IStreamServerEndpoint
    options: CertificateOptions

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        bound: Deferred[IListeningPort] = self.below.listen(
            _TLSFactory(self.options, False, factory)
        )
        return bound


class _TLSFactory(TLSMemoryBIOFactory):
    """Leaves connections alone that the factory on top does not want, as TCP does."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)


def _named(description: str, names: Sequence[str]) -> dict[str, str]:
    """The arguments of an endpoint string by name, whether they were given so or by place."""
    _, positional, named = split(description)
    if len(positional) > len(names):
        raise ValueError("too many arguments")
    if twice := set(names[: len(positional)]) & set(named):
        raise ValueError(f"the {min(twice)} is given twice")
    return dict(zip(names, positional, strict=False)) | named


def _place(given: dict[str, str]) -> tuple[int, str, bool]:
    """Port, interface and whether the port is shared, taken out of the arguments."""
    port = _number("port", given.pop("port", ""))
    interface = given.pop("interface", "")
    if interface and not (isIPAddress(interface) or isIPv6Address(interface)):
        raise ValueError(f"the interface must be an IP address, not {interface!r}")
    shared = given.pop(_SHARED, "0")
    if shared not in ("0", "1"):
        raise ValueError(f"{_SHARED} must be 0 or 1, not {shared!r}")
    return port, interface, shared == "1"


def _no_more(given: dict[str, str], known: Sequence[str]) -> None:
    if given:
        raise ValueError(f"unknown argument {min(given)!r}; there are {', '.join(known)}")


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ValueError(f"the {name} must be a number up to 65535, not {text!r}")
    return int(text)


def _private_key(file: Path) -> crypto.PKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except TypeError:
        raise ValueError(f"{file}: is encrypted, and nobody is there to unlock it") from None
    except ValueError:
        raise ValueError(f"{file}: holds no private key in PEM form") from None
    return crypto.PKey.from_cryptography_key(key)  # type: ignore[arg-type]
