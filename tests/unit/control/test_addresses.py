"""Tests of the addresses of control ports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor

from tests.certificates import certify, key_of
from tracker.control.addresses import (
    advertised,
    client_endpoint,
    is_loopback,
    server_endpoint,
)
from tracker.net.socketpaths import MAX_SOCKET_PATH
from tracker.net.unixsocket import UnixEndpoint


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the files that replace the names in braces in the addresses."""
    folder = tmp_path_factory.mktemp("files")
    certificate, other = certify(folder, "192.0.2.1"), certify(folder, "192.0.2.2")
    junk = folder / "junk.pem"
    junk.write_bytes(b"hello")
    return {
        "cert": certificate,
        "key": key_of(certificate),
        "ca": other,
        "other_key": key_of(other),
        "junk": junk,
        "folder": folder,
    }


SERVER = "ssl:5099:privateKey={key}:certKey={cert}:clientCA={ca}"
CLIENT = "ssl:localhost:5099:privateKey={key}:certKey={cert}:caCert={ca}"


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("tcp:5099:plaintext=1", (5099, "127.0.0.1")),
        ("tcp:5099:plaintext=1:interface=127.0.0.1", (5099, "127.0.0.1")),
        (r"tcp:5099:plaintext=1:interface=\:\:1", (5099, "::1")),
        ("tcp:port=0:plaintext=1", (0, "127.0.0.1")),
        (SERVER, (5099, "127.0.0.1")),
        (SERVER + ":interface=192.0.2.1", (5099, "192.0.2.1")),
        (SERVER + ":interface=0.0.0.0", (5099, "0.0.0.0")),
        (SERVER + r":interface=\:\::extraCertChain={ca}", (5099, "::")),
    ],
)
def test_server_listens_on_loopback_by_default(
    files: dict[str, Path], description: str, expected: tuple[int, str]
) -> None:
    reactor = MemoryReactor()
    server_endpoint(reactor, description.format(**files)).listen(Factory())
    ((port, _, _, interface),) = reactor.tcpServers
    assert (port, interface) == expected


def test_server_requires_client_certificates(files: dict[str, Path]) -> None:
    endpoint: Any = server_endpoint(MemoryReactor(), SERVER.format(**files))
    assert endpoint.options.verify
    assert endpoint.options.requireCertificate


@pytest.mark.parametrize(
    ("rest", "mode"), [("", 0o660), (":mode=0600", 0o600), (":mode=666", 0o666)]
)
def test_unix_socket_is_for_owner_and_group_by_default(
    tmp_path: Path, rest: str, mode: int
) -> None:
    endpoint = server_endpoint(MemoryReactor(), f"unix:{tmp_path}/control.sock{rest}")
    assert isinstance(endpoint, UnixEndpoint)
    assert (endpoint.path, endpoint.mode) == (tmp_path / "control.sock", mode)


def test_path_of_a_unix_socket_may_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    endpoint: Any = server_endpoint(MemoryReactor(), "unix:control.sock")
    assert endpoint.path == tmp_path / "control.sock"


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("", "must be like 5027"),
        ("unix", "must be like 5027"),
        ("tls:5099", "must begin with"),
        ("systemd:domain=INET:index=0", "must begin with"),
        ("tcp6:5099:plaintext=1", "must begin with"),
        # Plain TCP.
        ("tcp:5099", "add plaintext=1"),
        ("tcp:5099:plaintext=0", "add plaintext=1"),
        ("tcp:5099:plaintext=yes", "add plaintext=1"),
        ("tcp:5099:plaintext=1:interface=0.0.0.0", "for this machine only, not for 0.0.0.0"),
        ("tcp:5099:plaintext=1:interface=192.0.2.1", "use ssl:"),
        (r"tcp:5099:plaintext=1:interface=\:\:", "for this machine only"),
        (r"tcp:5099:plaintext=1:interface=\:\:ffff\:192.0.2.1", "for this machine only"),
        ("tcp:5099:plaintext=1:interface=localhost", "must be an IP address"),
        ("tcp:plaintext=1", "the port must be a number"),
        ("tcp:65536:plaintext=1", "the port must be a number"),
        ("tcp:5099:127.0.0.1:plaintext=1", "too many arguments"),
        ("tcp:5099:plaintext=1:interface=::1", "write a colon within an argument"),
        ("tcp:5099:plaintext=1:mode=0660", "unknown argument 'mode'"),
        # Unix sockets.
        ("unix:", "the path is missing"),
        ("unix:mode=0660", "the path is missing"),
        ("unix:{folder}/", "the path is missing"),
        ("unix:/no/such/folder/control.sock", "/no/such/folder: no such directory"),
        ("unix:{cert}/control.sock", "no such directory"),
        ("unix:{folder}/a.sock:mode=rw", "the mode must be octal like 0660, not 'rw'"),
        ("unix:{folder}/a.sock:mode=0999", "the mode must be octal"),
        ("unix:{folder}/a.sock:mode=4755", "the mode must be octal"),
        ("unix:{folder}/a.sock:mode=", "the mode must be octal"),
        ("unix:{folder}/a.sock:mode=0660:mode=0666", "the mode is given twice"),
        ("unix:{folder}/a.sock:0660", "too many arguments"),
        ("unix:{folder}/" + "a" * MAX_SOCKET_PATH, "at most 107 bytes"),
        # TLS.
        ("ssl:5099", "privateKey=FILE is missing"),
        ("ssl:5099:privateKey={key}:clientCA={ca}", "certKey=FILE is missing"),
        ("ssl:5099:privateKey={key}:certKey={cert}", "clientCA=FILE is missing"),
        ("ssl:5099:privateKey={key}:certKey={cert}:clientCA=", "clientCA=FILE is missing"),
        (SERVER + ":extraCertChain=", "extraCertChain=FILE is missing"),
        (SERVER + ":plaintext=1", "unknown argument 'plaintext'"),
        (SERVER + ":clientCA={cert}", "the clientCA is given twice"),
        (SERVER + ":interface=example.org", "must be an IP address"),
        ("ssl:5099:privateKey={other_key}:certKey={cert}:clientCA={ca}", "mismatch"),
        ("ssl:5099:privateKey={junk}:certKey={cert}:clientCA={ca}", "junk.pem contains no private"),
        ("ssl:5099:privateKey={key}:certKey={junk}:clientCA={ca}", "junk.pem contains no cert"),
        ("ssl:5099:privateKey={key}:certKey={cert}:clientCA={junk}", "junk.pem contains no cert"),
        ("ssl:5099:privateKey=/no/file:certKey={cert}:clientCA={ca}", "/no/file cannot be read"),
        ("ssl:5099:privateKey={key}:certKey=/no/file:clientCA={ca}", "/no/file cannot be read"),
        ("ssl:5099:privateKey={key}:certKey={cert}:clientCA=/no/file", "/no/file cannot be read"),
        (SERVER + ":extraCertChain={folder}", "cannot be read: Is a directory"),
    ],
)
def test_invalid_server_address_is_reported_in_one_line(
    files: dict[str, Path], description: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        server_endpoint(MemoryReactor(), description.format(**files))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("tcp:127.0.0.1:5099", ("127.0.0.1", 5099)),
        ("tcp:127.9.9.9:5099", ("127.9.9.9", 5099)),
        ("tcp:localhost:5099", ("127.0.0.1", 5099)),
        (r"tcp:\:\:1:5099", ("::1", 5099)),
        ("tcp:port=5099:host=127.0.0.1", ("127.0.0.1", 5099)),
    ],
)
def test_client_connects_to_the_given_tcp_address(
    description: str, expected: tuple[str, int]
) -> None:
    reactor = MemoryReactor()
    client_endpoint(reactor, description).connect(Factory())
    assert reactor.tcpClients[0][:2] == expected


def test_client_connects_to_a_unix_socket(tmp_path: Path) -> None:
    reactor = MemoryReactor()
    client_endpoint(reactor, f"unix:{tmp_path}/control.sock").connect(Factory())
    assert reactor.unixClients[0][0] == f"{tmp_path}/control.sock"


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("", "must be like localhost:5027"),
        ("http://localhost:5099", "must be like localhost:5027"),
        ("unix:", "the path is missing"),
        ("unix:/run/a.sock:mode=0660", "unknown argument 'mode'"),
        ("unix:/" + "a" * MAX_SOCKET_PATH, "at most 107 bytes"),
        ("tcp:5099", "the host is missing"),
        ("tcp::5099", "the host is missing"),
        ("tcp:localhost:0", "the port must not be 0"),
        ("tcp:192.0.2.1:5099", "for this machine only, not for 192.0.2.1; use ssl:"),
        ("tcp:example.org:5099", "for this machine only"),
        ("tcp:127.0.0.1.example.org:5099", "for this machine only"),
        ("tcp:0.0.0.0:5099", "for this machine only"),
        ("tcp:::1:5099", "too many arguments"),
        ("tcp:localhost:5099:plaintext=1", "unknown argument 'plaintext'"),
        ("ssl:localhost:5099", "privateKey=FILE is missing"),
        ("ssl:localhost:5099:privateKey={key}:certKey={cert}", "caCert=FILE is missing"),
        ("ssl:localhost:5099:privateKey={key}:caCert={ca}", "certKey=FILE is missing"),
        ("ssl:localhost:5099:privateKey={other_key}:certKey={cert}:caCert={ca}", "mismatch"),
        ("ssl:localhost:5099:privateKey={key}:certKey={cert}:caCert={junk}", "contains no cert"),
        ("ssl:localhost:5099:privateKey={key}:certKey={cert}:caCert=/no/file", "/no/file"),
        (CLIENT + ":name=", "the name must be a host name"),
        (CLIENT + ":name=a b", "the name must be a host name"),
        (CLIENT + ":name=*.example.org", "the name must be a host name"),
        (CLIENT + ":clientCA={ca}", "unknown argument 'clientCA'"),
    ],
)
def test_invalid_client_address_is_reported_in_one_line(
    files: dict[str, Path], description: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        client_endpoint(MemoryReactor(), description.format(**files))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("localhost", False)],
)
def test_loopback_addresses_are_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("description", "address"),
    [
        ("tcp:5099:plaintext=1", "tcp:127.0.0.1:5099"),
        (r"tcp:5099:plaintext=1:interface=\:\:1", r"tcp:\:\:1:5099"),
        (f"{SERVER}", "ssl:127.0.0.1:5099"),
        (f"{SERVER}:interface=192.0.2.1", "ssl:192.0.2.1:5099"),
        (f"{SERVER}:interface=0.0.0.0", "ssl:vm1.example:5099"),
        (rf"{SERVER}:interface=\:\:", "ssl:vm1.example:5099"),
        ("unix:/run/tracker/control.sock:mode=0600", "unix:/run/tracker/control.sock"),
    ],
)
def test_advertised_address_contains_no_file_paths_of_the_server(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], description: str, address: str
) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "vm1.example")
    assert advertised(description.format(**files)) == address
