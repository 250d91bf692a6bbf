"""Ports that an endpoint string alone cannot describe: UDP, and TLS with client certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.ssl import Certificate, CertificateOptions, KeyPair, PrivateCertificate
from twisted.logger import Logger

from tracker.certificates import load_certificates, trust_root
from tracker.endpoints import readable, split
from tracker.lifecycle import Abort

#: Bytes of the largest datagram that is read.
MAX_DATAGRAM = 8192


class DatagramListener(Service):
    """Listens on one UDP port from start to stop.

    :param name: how a person names the port.
    :param abort: told when it cannot be had.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        name: str,
        port: int,
        interface: str,
        protocol: DatagramProtocol,
        abort: Abort,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._port = port
        self._interface = interface
        self._protocol = protocol
        self._abort = abort
        self._listening: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        """Begin to listen."""
        super().privilegedStartService()
        try:
            self._listening = self._reactor.listenUDP(
                self._port, self._protocol, interface=self._interface, maxPacketSize=MAX_DATAGRAM
            )
        except CannotListenError as error:
            self._abort(f"cannot listen on {self._name}: {error.socketError}")
            return
        self._log.info(
            "listening: {name} on {address}",
            name=self._name,
            address=readable(self._listening.getHost()),
        )

    def startService(self) -> None:
        """Begin to listen, unless done before."""
        super().startService()
        if self._listening is None:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Stop listening."""
        super().stopService()
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        stopped: Deferred[Any] = maybeDeferred(listening.stopListening)
        return stopped.addCallback(lambda _: None)


def udp_port(description: str) -> tuple[int, str]:
    """Port and interface of ``udp:5027[:interface=ADDRESS]``.

    :raises ValueError: with one line that says what is wrong.
    """
    _, positional, named = split(description)
    port, *others = positional or [named.pop("port", "")]
    interface = others[0] if others else named.pop("interface", "")
    if named or len(others) > 1:
        raise ValueError("must be udp:PORT[:interface=ADDRESS]")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"the port must be a number up to 65535, not {port!r}")
    return int(port), interface


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
    _, positional, named = split(description)
    port = positional[0] if positional else named.pop("port", "")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"the port must be a number up to 65535, not {port!r}")
    key_file = named.pop("privateKey", "server.pem")
    certificate_file = named.pop("certKey", key_file)
    chain_file = named.pop("extraCertChain", None)
    interface = named.pop("interface", "")
    backlog = int(named.pop("backlog", "50"))
    if named:
        raise ValueError(f"unknown argument {min(named)!r}")
    key = KeyPair.load(Path(key_file).read_bytes(), 1)
    own = PrivateCertificate.load(
        Certificate.loadPEM(Path(certificate_file).read_bytes()).dump(), key
    )
    chain = [] if chain_file is None else load_certificates(Path(chain_file))
    options = CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        extraCertChain=[link.original for link in chain],
        trustRoot=trust_root(client_authorities),
    )
    endpoint: IStreamServerEndpoint = SSL4ServerEndpoint(
        reactor, int(port), options, backlog=backlog, interface=interface
    )
    return endpoint
