"""TLS 1.2 and later on top of endpoints, with keys and certificates from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import frozen
from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tracker.net.certificates import load_certificates, load_private_key, trust_root


@implementer(IStreamServerEndpoint)
@frozen
class TLSEndpoint:
    """Endpoint with TLS on top of another endpoint."""

    below: IStreamServerEndpoint
    options: CertificateOptions

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See IStreamServerEndpoint."""
        bound: Deferred[IListeningPort] = self.below.listen(
            _TLSFactory(self.options, False, factory)
        )
        return bound


class _TLSFactory(TLSMemoryBIOFactory):
    """Closes a connection without a handshake if the wrapped factory refuses it."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)


def server_options(
    key_file: Path,
    certificate_file: Path,
    chain_file: Path | None = None,
    client_authorities: Path | None = None,
) -> CertificateOptions:
    """Return the TLS options of a server.

    :param chain_file: certificates to send after the server's own.
    :param client_authorities: PEM file of authorities. Clients must have a certificate that one
        of them has signed. None: no client certificate is required.
    :raises ValueError: if a file is not usable; the message is one line.
    :raises OSError: if a file cannot be read.
    """
    chain = [] if chain_file is None else load_certificates(chain_file)
    options = CertificateOptions(
        **key_pair(key_file, certificate_file),
        extraCertChain=[link.original for link in chain],
        trustRoot=None if client_authorities is None else trust_root(client_authorities),
    )
    options.getContext()  # created once, and shared by all connections
    return options


def key_pair(key_file: Path, certificate_file: Path) -> dict[str, Any]:
    """Return a private key and its certificate as arguments of CertificateOptions.

    :raises ValueError: if a file is damaged, or they do not match; the message is one line.
    :raises OSError: if a file cannot be read.
    """
    pair = {
        "privateKey": load_private_key(key_file),
        "certificate": load_certificates(certificate_file)[0].original,
    }
    try:
        CertificateOptions(**pair).getContext()
    except (SSL.Error, crypto.Error) as error:
        reason = error.args[0][0][2] if error.args and error.args[0] else "refused by OpenSSL"
        raise ValueError(f"{key_file} and {certificate_file}: {reason}") from None
    return pair
