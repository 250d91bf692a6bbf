"""Tests of the access to a control port (which echoes) over TLS and plain TCP."""

from __future__ import annotations

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from pytest_twisted import ensureDeferred
from service_identity import VerificationError
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionClosed, ConnectionLost
from twisted.internet.ssl import TLSVersion, optionsForClientTLS

from tests.integration.control.echo import Server, ask
from tests.waiting import until
from tracker.admin.cli import main
from tracker.admin.issuing import (
    Issuer,
    issue_client,
    issue_server,
    make_authority,
    make_key,
    pem,
    read_certificate,
    read_key,
    utc_now,
)
from tracker.control.access import Permission, Permissions
from tracker.control.addresses import client_endpoint
from tracker.net.certificates import trust_root
from tracker.net.tls import key_pair

FAR = timedelta(days=10)


def make(folder: Path, *arguments: str) -> Path:
    """Create certificates with ``tracker-admin certs``."""
    result = CliRunner().invoke(main, ["certs", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("ours"), "--client", "admin", "--client", "grafana")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return certificates of another authority."""
    return make(tmp_path_factory.mktemp("theirs"))


def issuer(folder: Path) -> Issuer:
    return Issuer(
        read_certificate((folder / "ca.pem").read_bytes()),
        read_key((folder / "ca.key").read_bytes()),
    )


async def refused(endpoint: Any) -> str:
    """Return OpenSSL's reason for a refused connection."""
    with pytest.raises(SSL.Error) as raised:
        await ask(endpoint)
    return str(raised.value)


def tls(
    folder: Path, port: int, name: str = "admin", host: str = "localhost", rest: str = ""
) -> Any:
    """Return the endpoint of a client with a certificate."""
    from twisted.internet import reactor

    return client_endpoint(
        reactor,
        f"ssl:{host}:{port}:privateKey={folder}/{name}.key:certKey={folder}/{name}.pem"
        f":caCert={folder}/ca.pem{rest}",
    )


def custom_client(folder: Path, port: int, **options: Any) -> Any:
    """Return the endpoint of a client with other TLS options than addresses allow."""
    from twisted.internet import reactor

    trusted = trust_root(folder / "ca.pem")
    return wrapClientTLS(
        optionsForClientTLS("localhost", trusted, extraCertificateOptions=options),
        TCP4ClientEndpoint(reactor, "127.0.0.1", port),
    )


# TLS.


@ensureDeferred
async def test_client_with_a_certificate_is_served_and_identified(
    ours: Path, server: Server, tmp_path: Path
) -> None:
    port = await server.tls(ours)
    permissions = tmp_path / "permissions"
    permissions.write_text("admin operate\n")
    for name, permission in (("admin", Permission.OPERATE), ("grafana", None)):
        assert await ask(tls(ours, port, name)) == b"hello"
        peer = server.protocols[-1].peer
        text = (
            subprocess.run(
                [
                    "openssl",
                    "x509",
                    "-in",
                    ours / f"{name}.pem",
                    "-noout",
                    "-sha256",
                    "-fingerprint",
                ],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            if shutil.which("openssl")
            else ""
        )
        assert (peer.kind, peer.name) == ("certificate", name)
        assert len(peer.fingerprint) == 64
        if text:
            assert text.strip().partition("=")[2].replace(":", "").lower() == peer.fingerprint
        assert Permissions(permissions).of(peer) is permission
        assert Permissions(None).of(peer) is Permission.READ
    await until(lambda: server.happened.count("lost") == 2, "both connections closed")
    assert server.happened[0].startswith("peer certificate admin (")
    assert server.happened[1] == "data hello"


@pytest.mark.parametrize(
    ("host", "rest"),
    [
        ("127.0.0.1", ""),
        ("localhost", ":name=127.0.0.1"),
        ("127.0.0.1", ":name=localhost"),
        ("127.0.0.1", r":name=\:\:1"),
    ],
)
@ensureDeferred
async def test_server_is_accepted_under_each_of_its_names(
    ours: Path, server: Server, host: str, rest: str
) -> None:
    assert await ask(tls(ours, await server.tls(ours), host=host, rest=rest)) == b"hello"


@ensureDeferred
async def test_client_connects_over_ipv6(ours: Path, server: Server) -> None:
    port = await server.tls(ours, r":interface=\:\:1")
    assert await ask(tls(ours, port, host=r"\:\:1")) == b"hello"


@ensureDeferred
async def test_client_without_a_certificate_is_refused(ours: Path, server: Server) -> None:
    assert "certificate required" in await refused(custom_client(ours, await server.tls(ours)))
    await until(lambda: server.happened == ["lost"], "connection closed")


@ensureDeferred
async def test_client_of_another_authority_is_refused(
    ours: Path, theirs: Path, server: Server
) -> None:
    pair = key_pair(theirs / "admin.key", theirs / "admin.pem")
    assert "unknown ca" in await refused(custom_client(ours, await server.tls(ours), **pair))
    await until(lambda: server.happened == ["lost"], "connection closed")


@ensureDeferred
async def test_client_with_a_self_signed_certificate_is_refused(
    ours: Path, server: Server, tmp_path: Path
) -> None:
    key = make_key()
    (tmp_path / "admin.key").write_bytes(pem(key))
    (tmp_path / "admin.pem").write_bytes(pem(make_authority(key, utc_now())))
    pair = key_pair(tmp_path / "admin.key", tmp_path / "admin.pem")
    assert "alert" in await refused(custom_client(ours, await server.tls(ours), **pair))
    await until(lambda: server.happened == ["lost"], "connection closed")


@ensureDeferred
async def test_client_with_a_server_certificate_is_refused(ours: Path, server: Server) -> None:
    pair = key_pair(ours / "server.key", ours / "server.pem")
    assert "alert" in await refused(custom_client(ours, await server.tls(ours), **pair))
    await until(lambda: server.happened == ["lost"], "connection closed")


@pytest.mark.parametrize("begins", [-FAR, FAR], ids=["expired", "not yet valid"])
@ensureDeferred
async def test_client_certificate_outside_its_validity_is_refused(
    ours: Path, server: Server, tmp_path: Path, begins: timedelta
) -> None:
    key = make_key()
    (tmp_path / "admin.key").write_bytes(pem(key))
    made = issue_client(issuer(ours), key, "admin", now=utc_now() + begins, days=1)
    (tmp_path / "admin.pem").write_bytes(pem(made))
    shutil.copy(ours / "ca.pem", tmp_path)
    reason = await refused(tls(tmp_path, await server.tls(ours)))
    assert "certificate expired" in reason if begins < timedelta() else "alert" in reason
    await until(lambda: server.happened == ["lost"], "connection closed")


def renamed(folder: Path, tmp_path: Path, names: list[str], begins: timedelta) -> Path:
    """Return a copy of a server's folder with another certificate of the same authority."""
    shutil.copytree(folder, tmp_path / "renamed")
    key = read_key((folder / "server.key").read_bytes())
    made = issue_server(issuer(folder), key, names, now=utc_now() + begins, days=1)
    (tmp_path / "renamed" / "server.pem").write_bytes(pem(made))
    return tmp_path / "renamed"


@pytest.mark.parametrize("begins", [-FAR, FAR], ids=["expired", "not yet valid"])
@ensureDeferred
async def test_server_certificate_outside_its_validity_is_refused(
    ours: Path, server: Server, tmp_path: Path, begins: timedelta
) -> None:
    port = await server.tls(renamed(ours, tmp_path, ["localhost"], begins))
    assert "certificate verify failed" in await refused(tls(ours, port))
    await until(lambda: server.happened == ["lost"], "connection closed")


@ensureDeferred
async def test_server_of_another_authority_is_refused(
    ours: Path, theirs: Path, server: Server
) -> None:
    port = await server.tls(theirs)
    assert "certificate verify failed" in await refused(tls(ours, port))
    await until(lambda: server.happened == ["lost"], "connection closed")


@pytest.mark.parametrize(
    ("names", "host", "rest"),
    [
        (["tracker.example.org"], "localhost", ""),
        (["tracker.example.org"], "127.0.0.1", ""),
        (["localhost"], "127.0.0.1", ""),
        (["127.0.0.1"], "localhost", ""),
        (["localhost"], "localhost", ":name=tracker.example.org"),
    ],
)
@ensureDeferred
async def test_server_with_another_name_is_refused(
    ours: Path, server: Server, tmp_path: Path, names: list[str], host: str, rest: str
) -> None:
    port = await server.tls(renamed(ours, tmp_path, names, timedelta()))
    # For comparison: the server is accepted under its own name.
    right = r":name=" + names[0]
    assert await ask(tls(ours, port, host=host, rest=right)) == b"hello"
    await until(lambda: server.happened[-1:] == ["lost"], "connection closed")
    server.happened[:] = ["lost"]
    with pytest.raises((SSL.Error, VerificationError)):
        await ask(tls(ours, port, host=host, rest=rest))
    await until(lambda: server.happened == ["lost", "lost"], "connection closed")


@ensureDeferred
async def test_server_with_a_client_certificate_is_refused(
    ours: Path, server: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "posing"
    shutil.copytree(ours, folder)
    for suffix in ("key", "pem"):
        shutil.copy(folder / f"admin.{suffix}", folder / f"server.{suffix}")
    port = await server.tls(folder)
    assert "certificate verify failed" in await refused(tls(ours, port, rest=":name=admin"))


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_0, TLSVersion.TLSv1_1])
@ensureDeferred
async def test_tls_versions_before_1_2_are_refused(
    ours: Path, server: Server, version: Any
) -> None:
    pair = key_pair(ours / "admin.key", ours / "admin.pem")
    endpoint = custom_client(
        ours,
        await server.tls(ours),
        insecurelyLowerMinimumTo=version,
        lowerMaximumSecurityTo=version,
        # OpenSSL offers these versions only at this security level.
        acceptableCiphers=Weak(),
        **pair,
    )
    assert "protocol version" in await refused(endpoint)
    await until(lambda: server.happened == ["lost"], "connection closed")


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
@ensureDeferred
async def test_tls_1_2_and_later_are_served(ours: Path, server: Server, version: Any) -> None:
    pair = key_pair(ours / "admin.key", ours / "admin.pem")
    options = {"lowerMaximumSecurityTo": version, "insecurelyLowerMinimumTo": version}
    assert await ask(custom_client(ours, await server.tls(ours), **options, **pair)) == b"hello"


class Weak:
    """Ciphers of OpenSSL's lowest security level."""

    def selectCiphers(self, available: object) -> list[Any]:
        class Named:
            fullName = "ALL:@SECLEVEL=0"

        return [Named]


@pytest.mark.parametrize(
    "sent",
    [
        b"hello",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\xff" * 70_000,
        b"\x00" * 300,
        b"\x80\x2e\x01\x00\x02" + b"\x00" * 60,
    ],
    ids=["words", "HTTP", "a huge record", "zeros", "SSL 2"],
)
@ensureDeferred
async def test_bytes_that_are_not_tls_close_only_their_connection(
    ours: Path, server: Server, sent: bytes
) -> None:
    from twisted.internet import reactor

    port = await server.tls(ours)
    try:
        reply = await ask(TCP4ClientEndpoint(reactor, "127.0.0.1", port), sent)
    except ConnectionClosed:
        reply = b""
    # At most an alert (RFC 8446, 5.1), but no application data.
    assert reply[:1] in (b"", b"\x15")
    await until(lambda: server.happened == ["lost"], "connection closed")
    assert await ask(tls(ours, port)) == b"hello"


@pytest.mark.parametrize("names", [(), ("admin", "other")])
@ensureDeferred
async def test_client_certificate_without_exactly_one_name_is_refused(
    ours: Path, server: Server, tmp_path: Path, names: tuple[str, ...]
) -> None:
    key, vouching = make_key(), issuer(ours)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]))
        .issuer_name(vouching.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc_now() - timedelta(hours=1))
        .not_valid_after(utc_now() + timedelta(hours=1))
        .sign(vouching.key, hashes.SHA256())
    )
    (tmp_path / "admin.key").write_bytes(pem(key))
    (tmp_path / "admin.pem").write_bytes(pem(made))
    pair = key_pair(tmp_path / "admin.key", tmp_path / "admin.pem")
    with pytest.raises((SSL.Error, ConnectionLost)):
        await ask(custom_client(ours, await server.tls(ours), **pair))
    # Bytes that arrive with the end of the handshake are not delivered.
    reason = "the client certificate must have exactly one common name"
    await until(lambda: server.happened == [f"unidentified: {reason}", "lost"], "connection closed")


# Verification by OpenSSL.


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")
def test_openssl_accepts_each_certificate_only_for_its_purpose(ours: Path, theirs: Path) -> None:
    def verify(purpose: str, name: str, *arguments: str, authority: Path = ours) -> bool:
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, *arguments]
        command += ["-CAfile", str(authority / "ca.pem"), str(ours / f"{name}.pem")]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    assert verify("sslserver", "server")
    assert verify("sslserver", "server", "-verify_hostname", "localhost")
    assert verify("sslserver", "server", "-verify_ip", "127.0.0.1")
    assert verify("sslserver", "server", "-verify_ip", "::1")
    assert verify("sslclient", "admin")
    assert verify("sslclient", "grafana")
    assert not verify("sslserver", "server", "-verify_hostname", "tracker.example.org")
    assert not verify("sslserver", "admin")
    assert not verify("sslclient", "server")
    assert not verify("sslclient", "admin", authority=theirs)


# Plain TCP.


@pytest.mark.parametrize(("interface", "host"), [("127.0.0.1", "127.0.0.1"), (r"\:\:1", r"\:\:1")])
@ensureDeferred
async def test_plain_tcp_is_served_on_loopback(server: Server, interface: str, host: str) -> None:
    from twisted.internet import reactor

    port = (await server.listen(f"tcp:0:plaintext=1:interface={interface}")).getHost().port
    assert await ask(client_endpoint(reactor, f"tcp:{host}:{port}")) == b"hello"
    peer = server.protocols[0].peer
    assert peer.kind == "tcp"
    assert peer.name.startswith(host.replace("\\", "") if ":" not in host else "[::1]:")
    assert Permissions(None).of(peer) is Permission.OPERATE
