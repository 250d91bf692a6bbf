"""Ports that an endpoint string alone cannot describe: UDP, and TLS with client certificates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.ssl import CertificateOptions, KeyPair

from tracker.certificates import load_certificates, trust_root
from tracker.endpoints import split

#: Bytes of the largest datagram that is read.
MAX_DATAGRAM: Final = 8192

#: Arguments of Twisted's ``ssl:`` endpoint, in their order.
_SSL_ARGUMENTS: Final = (
    *("port", "privateKey", "certKey", "sslmethod", "interface", "backlog"),
    *("extraCertChain", "dhParameters"),
)


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
    return port, interface


def mutual_tls_endpoint(
    reactor: Any, description: str, client_authorities: Path
) -> IStreamServerEndpoint:
    """An ``ssl:`` endpoint that serves only clients which an authority vouches for.

    :param description: ``ssl:PORT:privateKey=FILE[:certKey=FILE][:extraCertChain=FILE]
        [:interface=ADDRESS][:backlog=N]``, as Twisted has it.
    :param client_authorities: PEM file of the authorities' certificates.
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
        raise ValueError(f"unknown argument {min(given)!r}")
    chain = [] if chain_file is None else load_certificates(Path(chain_file))
    options = CertificateOptions(
        privateKey=_private_key(key_file),
        certificate=load_certificates(certificate_file)[0].original,
        extraCertChain=[link.original for link in chain],
        trustRoot=trust_root(client_authorities),
    )
    try:
        options.getContext()
    except (SSL.Error, crypto.Error):
        raise ValueError(f"{key_file} and {certificate_file} do not match") from None
    endpoint: IStreamServerEndpoint = SSL4ServerEndpoint(
        reactor, port, options, backlog=backlog, interface=interface
    )
    return endpoint


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
