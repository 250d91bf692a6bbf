"""Ports that Twisted's endpoint strings do not describe, or not well enough: UDP and TLS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.ssl import CertificateOptions, KeyPair
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tracker.certificates import load_certificates, trust_root
from tracker.endpoints import split

#: Bytes of the largest datagram there is. What is over a limit is known only when it is whole.
MAX_DATAGRAM: Final = 65_535

#: In the order of Twisted's ``ssl:`` endpoint, of which the protocol's version is left out.
_SSL_ARGUMENTS: Final = ("port", "privateKey", "certKey", "interface", "backlog", "extraCertChain")


@frozen
class UDPEndpoint:
    """A UDP port, for a :class:`~tracker.lifecycle.Listener`."""

    reactor: Any
    port: int
    interface: str = ""

    def listen(self, protocol: DatagramProtocol) -> Deferred[IListeningPort]:
        """Listen with one protocol for all that comes; fails as a stream endpoint does."""
        bound: Deferred[IListeningPort] = execute(
            self.reactor.listenUDP,
            self.port,
            protocol,
            interface=self.interface,
            maxPacketSize=MAX_DATAGRAM,
        )
        return bound


def udp_port(description: str) -> tuple[int, str]:
    """Port and interface of ``udp:5027[:interface=ADDRESS]``.

    :raises ValueError: with one line that says what is wrong.
    """
    try:
        given = _named(description, ("port", "interface"))
    except ValueError as error:
        raise ValueError(f"must be udp:PORT[:interface=ADDRESS]: {error}") from None
    port = _number("port", given.pop("port", ""))
    interface = given.pop("interface", "")
    if given:
        raise ValueError("must be udp:PORT[:interface=ADDRESS]")
    if interface and not (isIPAddress(interface) or isIPv6Address(interface)):
        raise ValueError(f"the interface must be an IP address, not {interface!r}")
    return port, interface


def tls_endpoint(
    reactor: Any, description: str, client_authorities: Path | None = None
) -> IStreamServerEndpoint:
    """An endpoint for TLS 1.2 and later.

    :param description: ``ssl:PORT:privateKey=FILE[:certKey=FILE][:extraCertChain=FILE]
        [:interface=ADDRESS][:backlog=N]``, as Twisted has it.
    :param client_authorities: PEM file of authorities; only clients are served that one
        of them vouches for. No certificate is asked for without it.
    :raises ValueError: with one line that says what is wrong.
    :raises OSError: when a file cannot be read.
    """
    given = _named(description, _SSL_ARGUMENTS)
    port = _number("port", given.pop("port", ""))
    key_file = Path(given.pop("privateKey", "server.pem"))
    certificate_file = Path(given.pop("certKey", str(key_file)))
    chain_file = given.pop("extraCertChain", None)
    interface = given.pop("interface", "")
    backlog = _number("backlog", given.pop("backlog", "50"))
    if given:
        raise ValueError(f"unknown argument {min(given)!r}; there are {', '.join(_SSL_ARGUMENTS)}")
    chain = [] if chain_file is None else load_certificates(Path(chain_file))
    options = CertificateOptions(
        privateKey=_private_key(key_file),
        certificate=load_certificates(certificate_file)[0].original,
        extraCertChain=[link.original for link in chain],
        trustRoot=None if client_authorities is None else trust_root(client_authorities),
    )
    try:
        options.getContext()
    except (SSL.Error, crypto.Error):
        raise ValueError(f"{key_file} and {certificate_file} do not match") from None
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    return TLSEndpoint(kind(reactor, port, backlog, interface), options)


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


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ValueError(f"the {name} must be a number up to 65535, not {text!r}")
    return int(text)


def _private_key(file: Path) -> crypto.PKey:
    try:
        key: crypto.PKey = KeyPair.load(file.read_bytes(), crypto.FILETYPE_PEM).original
    except (crypto.Error, ValueError):
        raise ValueError(f"{file}: holds no private key in PEM form") from None
    return key
