"""Tests of the identity of a client during its TLS handshake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.internet.testing import MemoryReactor, StringTransport

from tracker.admin.cli import main
from tracker.control.access import Unidentified, identify_peer
from tracker.control.addresses import server_endpoint
from tracker.net.certificates import trust_root
from tracker.net.tls import key_pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    assert CliRunner().invoke(main, ["certs", str(folder)]).exit_code == 0
    return folder


class Handshake:
    """A client and a server whose TLS records the test passes on."""

    def __init__(self, folder: Path, version: Any) -> None:
        options = CertificateOptions(
            **key_pair(folder / "admin.key", folder / "admin.pem"),
            trustRoot=trust_root(folder / "ca.pem"),
            insecurelyLowerMinimumTo=version,
            lowerMaximumSecurityTo=version,
        )
        self.client = SSL.Connection(options.getContext(), None)
        self.client.set_connect_state()
        reactor = MemoryReactor()
        server_endpoint(
            reactor,
            f"ssl:0:privateKey={folder}/server.key:certKey={folder}/server.pem"
            f":clientCA={folder}/ca.pem",
        ).listen(Factory.forProtocol(Protocol))
        self.sent = StringTransport()
        factory: Any = reactor.tcpServers[0][1]
        self.server = factory.buildProtocol(None)
        self.server.makeConnection(self.sent)

    def from_client(self) -> Iterator[bytes]:
        """Yield the next TLS records of the client."""
        with suppress(SSL.WantReadError):
            self.client.do_handshake()
        try:
            data = self.client.bio_read(1 << 16)
        except SSL.WantReadError:
            return
        while data:
            end = 5 + int.from_bytes(data[3:5])  # RFC 8446, 5.1
            yield data[:end]
            data = data[end:]

    def to_client(self) -> None:
        if self.sent.value():
            self.client.bio_write(self.sent.value())
            self.sent.clear()


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
def test_client_is_unidentified_until_the_handshake_is_complete(folder: Path, version: Any) -> None:
    handshake = Handshake(folder, version)
    known: list[str | None] = []
    shown: list[bool] = []
    for _ in range(3):
        for record in handshake.from_client():
            handshake.server.dataReceived(record)
            shown.append(handshake.server.getPeerCertificate() is not None)
            try:
                known.append(identify_peer(handshake.server).name)
            except Unidentified as reason:
                assert str(reason) == "TLS handshake not completed"  # noqa: PT017
                known.append(None)
        handshake.to_client()
    assert known[-1] == "admin"
    assert set(known[:-1]) == {None}
    # The certificate is available before the client is identified.
    assert any(shown[:-1])
