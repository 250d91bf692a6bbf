"""Who gets through to a control port, over real sockets: here it only echoes."""

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
    """What an operator makes."""
    result = CliRunner().invoke(main, ["certs", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("ours"), "--client", "admin", "--client", "grafana")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of another authority."""
    return make(tmp_path_factory.mktemp("theirs"))


def issuer(folder: Path) -> Issuer:
    return Issuer(
        read_certificate((folder / "ca.pem").read_bytes()),
        read_key((folder / "ca.key").read_bytes()),
    )


async def refused(endpoint: Any) -> str:
    """What OpenSSL gives as the reason."""
    with pytest.raises(SSL.Error) as raised:
        await ask(endpoint)
    return str(raised.value)


def tls(
    folder: Path, port: int, name: str = "admin", host: str = "localhost", rest: str = ""
) -> Any:
    """A client with a certificate of its own."""
    from twisted.internet import reactor

    return client_endpoint(
        reactor,
        f"ssl:{host}:{port}:privateKey={folder}/{name}.key:certKey={folder}/{name}.pem"
        f":caCert={folder}/ca.pem{rest}",
    )


def careless(folder: Path, port: int, **options: Any) -> Any:
    """A client that has no certificate, or another one than an address would take."""
    from twisted.internet import reactor

    trusted = trust_root(folder / "ca.pem")
    return wrapClientTLS(
        optionsForClientTLS("localhost", trusted, extraCertificateOptions=options),
        TCP4ClientEndpoint(reactor, "127.0.0.1", port),
    )


# TLS.


@ensureDeferred
async def test_a_client_with_a_certificate_is_served_and_known(
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
    await until(lambda: server.happened.count("lost") == 2, "both gone")
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
async def test_a_server_is_known_by_each_of_its_names(
    ours: Path, server: Server, host: str, rest: str
) -> None:
    assert await ask(tls(ours, await server.tls(ours), host=host, rest=rest)) == b"hello"


@ensureDeferred
async def test_a_server_is_found_over_ipv6(ours: Path, server: Server) -> None:
    port = await server.tls(ours, r":interface=\:\:1")
    assert await ask(tls(ours, port, host=r"\:\:1")) == b"hello"


@ensureDeferred
async def test_a_client_without_a_certificate_is_refused(ours: Path, server: Server) -> None:
    assert "certificate required" in await refused(careless(ours, await server.tls(ours)))
    await until(lambda: server.happened == ["lost"], "nothing but the end")


@ensureDeferred
async def test_a_client_of_another_authority_is_refused(
    ours: Path, theirs: Path, server: Server
) -> None:
    pair = key_pair(theirs / "admin.key", theirs / "admin.pem")
    assert "unknown ca" in await refused(careless(ours, await server.tls(ours), **pair))
    await until(lambda: server.happened == ["lost"], "nothing but the end")


@ensureDeferred
async def test_a_client_that_vouches_for_itself_is_refused(
    ours: Path, server: Server, tmp_path: Path
) -> None:
    key = make_key()
    (tmp_path / "admin.key").write_bytes(pem(key))
    (tmp_path / "admin.pem").write_bytes(pem(make_authority(key, utc_now())))
    pair = key_pair(tmp_path / "admin.key", tmp_path / "admin.pem")
    assert "alert" in await refused(careless(ours, await server.tls(ours), **pair))
    await until(lambda: server.happened == ["lost"], "nothing but the end")


@ensureDeferred
async def test_the_servers_certificate_is_none_of_a_client(ours: Path, server: Server) -> None:
    pair = key_pair(ours / "server.key", ours / "server.pem")
    assert "alert" in await refused(careless(ours, await server.tls(ours), **pair))
    await until(lambda: server.happened == ["lost"], "nothing but the end")


@pytest.mark.parametrize("begins", [-FAR, FAR], ids=["expired", "not yet valid"])
@ensureDeferred
async def test_a_client_out_of_its_time_is_refused(
    ours: Path, server: Server, tmp_path: Path, begins: timedelta
) -> None:
    key = make_key()
    (tmp_path / "admin.key").write_bytes(pem(key))
    made = issue_client(issuer(ours), key, "admin", now=utc_now() + begins, days=1)
    (tmp_path / "admin.pem").write_bytes(pem(made))
    shutil.copy(ours / "ca.pem", tmp_path)
    reason = await refused(tls(tmp_path, await server.tls(ours)))
    assert "certificate expired" in reason if begins < timedelta() else "alert" in reason
    await until(lambda: server.happened == ["lost"], "nothing but the end")


def renamed(folder: Path, tmp_path: Path, names: list[str], begins: timedelta) -> Path:
    """A server's folder, with another certificate of the same authority."""
    shutil.copytree(folder, tmp_path / "renamed")
    key = read_key((folder / "server.key").read_bytes())
    made = issue_server(issuer(folder), key, names, now=utc_now() + begins, days=1)
    (tmp_path / "renamed" / "server.pem").write_bytes(pem(made))
    return tmp_path / "renamed"


@pytest.mark.parametrize("begins", [-FAR, FAR], ids=["expired", "not yet valid"])
@ensureDeferred
async def test_a_server_out_of_its_time_is_not_talked_to(
    ours: Path, server: Server, tmp_path: Path, begins: timedelta
) -> None:
    port = await server.tls(renamed(ours, tmp_path, ["localhost"], begins))
    assert "certificate verify failed" in await refused(tls(ours, port))
    await until(lambda: server.happened == ["lost"], "nothing but the end")


@ensureDeferred
async def test_a_server_of_another_authority_is_not_talked_to(
    ours: Path, theirs: Path, server: Server
) -> None:
    port = await server.tls(theirs)
    assert "certificate verify failed" in await refused(tls(ours, port))
    await until(lambda: server.happened == ["lost"], "nothing but the end")


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
async def test_a_server_of_another_name_is_not_talked_to(
    ours: Path, server: Server, tmp_path: Path, names: list[str], host: str, rest: str
) -> None:
    port = await server.tls(renamed(ours, tmp_path, names, timedelta()))
    # The control: under a name that it has, it is talked to.
    right = r":name=" + names[0]
    assert await ask(tls(ours, port, host=host, rest=right)) == b"hello"
    await until(lambda: server.happened[-1:] == ["lost"], "gone")
    server.happened[:] = ["lost"]
    with pytest.raises((SSL.Error, VerificationError)):
        await ask(tls(ours, port, host=host, rest=rest))
    await until(lambda: server.happened == ["lost", "lost"], "nothing but the end")


@ensureDeferred
async def test_a_clients_certificate_is_none_of_a_server(
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
async def test_older_versions_than_tls_1_2_are_refused(
    ours: Path, server: Server, version: Any
) -> None:
    pair = key_pair(ours / "admin.key", ours / "admin.pem")
    endpoint = careless(
        ours,
        await server.tls(ours),
        insecurelyLowerMinimumTo=version,
        lowerMaximumSecurityTo=version,
        # OpenSSL offers such versions at this level only.
        acceptableCiphers=Weak(),
        **pair,
    )
    assert "protocol version" in await refused(endpoint)
    await until(lambda: server.happened == ["lost"], "nothing but the end")


@pytest.mark.parametrize("version", [TLSVersion.TLSv1_2, TLSVersion.TLSv1_3])
@ensureDeferred
async def test_tls_1_2_and_later_are_served(ours: Path, server: Server, version: Any) -> None:
    pair = key_pair(ours / "admin.key", ours / "admin.pem")
    options = {"lowerMaximumSecurityTo": version, "insecurelyLowerMinimumTo": version}
    assert await ask(careless(ours, await server.tls(ours), **options, **pair)) == b"hello"


class Weak:
    """Ciphers of the lowest level that OpenSSL has."""

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
async def test_what_is_no_tls_ends_the_connection_and_nothing_else(
    ours: Path, server: Server, sent: bytes
) -> None:
    from twisted.internet import reactor

    port = await server.tls(ours)
    try:
        answer = await ask(TCP4ClientEndpoint(reactor, "127.0.0.1", port), sent)
    except ConnectionClosed:
        answer = b""
    # An alert at most (RFC 8446, 5.1), nothing of an application's.
    assert answer[:1] in (b"", b"\x15")
    await until(lambda: server.happened == ["lost"], "nothing but the end")
    assert await ask(tls(ours, port)) == b"hello"


@pytest.mark.parametrize("names", [(), ("admin", "other")])
@ensureDeferred
async def test_without_one_clear_name_nobody_is_let_in(
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
        await ask(careless(ours, await server.tls(ours), **pair))
    # What came along with the end of the handshake is not delivered either.
    await until(
        lambda: (
            server.happened == ["unidentified: the certificate must have one common name", "lost"]
        ),
        "nothing but the end",
    )


# What has been made, to others.


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")
def test_openssl_takes_what_is_made_for_what_it_is(ours: Path, theirs: Path) -> None:
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
async def test_plain_tcp_on_loopback_is_served_where_it_is_asked_for(
    server: Server, interface: str, host: str
) -> None:
    from twisted.internet import reactor

    port = (await server.listen(f"tcp:0:plaintext=1:interface={interface}")).getHost().port
    assert await ask(client_endpoint(reactor, f"tcp:{host}:{port}")) == b"hello"
    peer = server.protocols[0].peer
    assert peer.kind == "tcp"
    assert peer.name.startswith(host.replace("\\", "") if ":" not in host else "[::1]:")
    assert Permissions(None).of(peer) is Permission.OPERATE
