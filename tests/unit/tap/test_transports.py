"""Mistakes about transports and numbers that have to be told in one clear line."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.testing import MemoryReactor

from tests.certificates import certify, key_of
from tests.unit.tap.test_devices import mistake
from tracker.net.ports import tls_endpoint


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return certify(tmp_path, "192.0.2.1")


def test_a_key_of_another_certificate_is_told(certificate: Path, tmp_path: Path) -> None:
    other = certify(tmp_path, "192.0.2.2")
    endpoint = f"teltonika=ssl:5027:privateKey={key_of(other)}:certKey={certificate}"
    assert "mismatch" in mistake(
        "ingest", "--listen", endpoint, "--tls-client-ca", str(certificate)
    )


def test_an_encrypted_key_is_told_and_nobody_is_asked(certificate: Path) -> None:
    key = load_pem_private_key(key_of(certificate).read_bytes(), password=None)
    locked = certificate.with_name("locked.key")
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    endpoint = f"teltonika=ssl:5027:privateKey={locked}:certKey={certificate}"
    assert "is encrypted" in mistake("ingest", "--listen", endpoint)


@pytest.mark.parametrize("kind", ["key", "certificate"])
def test_a_file_that_holds_no_key_or_certificate_is_told_in_words(
    certificate: Path, tmp_path: Path, kind: str
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"hello")
    key = junk if kind == "key" else key_of(certificate)
    cert = junk if kind == "certificate" else certificate
    endpoint = f"teltonika=ssl:5027:privateKey={key}:certKey={cert}"
    message = mistake("ingest", "--listen", endpoint, "--tls-client-ca", str(certificate))
    assert "routines" not in message


def test_arguments_by_their_place_mean_what_twisted_takes_them_for(certificate: Path) -> None:
    description = f"ssl:5027:{key_of(certificate)}:{certificate}"
    tls_endpoint(MemoryReactor(), description, certificate)


def test_client_certificates_without_a_tls_endpoint_are_told(certificate: Path) -> None:
    assert "--tls-client-ca" in mistake(
        "ingest", "--listen", "teltonika=tcp:5027", "--tls-client-ca", str(certificate)
    )


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("udp:5027:interface=localhost", "must be an IP address"),
        ("haproxy:tcp:5027", "no proxy is named. Add --proxy ADDRESS"),
        ("haproxy:udp:5027", "haproxy: goes before tcp, tcp6, ssl, systemd, not 'udp'"),
        ("haproxy:unix:/tmp/x", "not 'unix'"),
        ("haproxy:haproxy:tcp:5027", "not 'haproxy'"),
        ("haproxy:", "not ''"),
        ("ssl:5027:privateKey={key}:certKey={cert}:sslmethod=TLSv1_2", "unknown argument"),
    ],
)
def test_what_cannot_be_listened_on_is_told(certificate: Path, endpoint: str, told: str) -> None:
    filled = endpoint.format(key=key_of(certificate), cert=certificate)
    assert told in mistake("ingest", "--listen", f"teltonika={filled}")


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ("haproxy:tcp:port", "the port must be a number"),
        ("haproxy:ssl:5027", "server.pem"),
        ("haproxy:systemd:domain=INET:name=no", "systemd has passed no such socket"),
    ],
)
def test_a_malformed_endpoint_behind_haproxy_is_reported_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)  # where no server.pem is
    message = mistake("ingest", "--listen", f"teltonika={endpoint}", "--proxy", "192.0.2.9")
    assert f"--listen teltonika={endpoint}: " in message
    assert told in message


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("lb.example", "must be an IP address or ADDRESS/BITS"),
        ("192.0.2.9/33", "must be an IP address or ADDRESS/BITS"),
        ("192.0.2.9/24", "bits are set behind its prefix"),
        ("0.0.0.0/0", "covers every address"),
        ("::/0", "covers every address"),
        ("", "must be an IP address"),
    ],
)
def test_a_malformed_proxy_is_reported(proxy: str, told: str) -> None:
    arguments = ("--listen", "teltonika=haproxy:tcp:5027", "--proxy", "192.0.2.9")
    message = mistake("ingest", *arguments, "--proxy", proxy)
    assert f"--proxy {proxy}: " in message
    assert told in message


def test_a_proxy_without_a_haproxy_endpoint_is_reported() -> None:
    assert "--proxy requires a haproxy: endpoint" in mistake(
        "ingest", "--listen", "teltonika=tcp:5027", "--proxy", "192.0.2.9"
    )


def test_serving_unknown_devices_needs_a_list_of_known_ones() -> None:
    assert "--device-authority redis" in mistake("ingest", "--unknown-devices", "accept")


def test_a_limit_of_open_files_that_leaves_none_for_devices_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert "64 open files" in mistake("ingest")


@pytest.mark.parametrize(
    ("option", "value"), [("--frame-bytes", "8k"), ("--login-timeout", "soon")]
)
def test_what_is_no_number_is_told_with_its_option(option: str, value: str) -> None:
    assert option.lstrip("-") in mistake("ingest", option, value)
