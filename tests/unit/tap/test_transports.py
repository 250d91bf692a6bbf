"""One-line errors for wrong transports, certificates, proxies and numbers."""

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
from tests.unit.tap.test_devices import usage_error
from tracker.net.ports import tls_endpoint


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return certify(tmp_path, "192.0.2.1")


def test_key_of_another_certificate_is_reported(certificate: Path, tmp_path: Path) -> None:
    other = certify(tmp_path, "192.0.2.2")
    endpoint = f"teltonika=ssl:5027:privateKey={key_of(other)}:certKey={certificate}"
    assert "mismatch" in usage_error(
        "ingest", "--listen", endpoint, "--tls-client-ca", str(certificate)
    )


def test_encrypted_key_is_reported_without_a_prompt(certificate: Path) -> None:
    key = load_pem_private_key(key_of(certificate).read_bytes(), password=None)
    locked = certificate.with_name("locked.key")
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    endpoint = f"teltonika=ssl:5027:privateKey={locked}:certKey={certificate}"
    assert "is encrypted" in usage_error("ingest", "--listen", endpoint)


@pytest.mark.parametrize("kind", ["key", "certificate"])
def test_error_for_a_file_without_key_or_certificate_has_no_openssl_terms(
    certificate: Path, tmp_path: Path, kind: str
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"hello")
    key = junk if kind == "key" else key_of(certificate)
    cert = junk if kind == "certificate" else certificate
    endpoint = f"teltonika=ssl:5027:privateKey={key}:certKey={cert}"
    message = usage_error("ingest", "--listen", endpoint, "--tls-client-ca", str(certificate))
    assert "routines" not in message


def test_positional_tls_arguments_have_the_order_of_twisted(certificate: Path) -> None:
    description = f"ssl:5027:{key_of(certificate)}:{certificate}"
    tls_endpoint(MemoryReactor(), description, certificate)


def test_client_authority_requires_a_tls_endpoint(certificate: Path) -> None:
    assert "--tls-client-ca" in usage_error(
        "ingest", "--listen", "teltonika=tcp:5027", "--tls-client-ca", str(certificate)
    )


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("udp:5027:interface=localhost", "must be an IP address"),
        ("haproxy:tcp:5027", "no proxy is named. Add --proxy ADDRESS"),
        ("haproxy:udp:5027", "haproxy: must be followed by tcp, tcp6, ssl or systemd, not 'udp'"),
        ("haproxy:unix:/tmp/x", "not 'unix'"),
        ("haproxy:haproxy:tcp:5027", "not 'haproxy'"),
        ("haproxy:", "not ''"),
        ("ssl:5027:privateKey={key}:certKey={cert}:sslmethod=TLSv1_2", "unknown argument"),
    ],
)
def test_invalid_endpoint_is_reported(certificate: Path, endpoint: str, expected: str) -> None:
    filled = endpoint.format(key=key_of(certificate), cert=certificate)
    assert expected in usage_error("ingest", "--listen", f"teltonika={filled}")


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("haproxy:tcp:port", "the port must be a number"),
        ("haproxy:ssl:5027", "server.pem"),
        ("haproxy:systemd:domain=INET:name=no", "systemd has passed no such socket"),
    ],
)
def test_malformed_endpoint_after_haproxy_is_reported_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a folder without server.pem
    message = usage_error("ingest", "--listen", f"teltonika={endpoint}", "--proxy", "192.0.2.9")
    assert f"--listen teltonika={endpoint}: " in message
    assert expected in message


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ("lb.example", "must be an IP address or ADDRESS/BITS"),
        ("192.0.2.9/33", "must be an IP address or ADDRESS/BITS"),
        ("192.0.2.9/24", "bits set outside its prefix"),
        ("0.0.0.0/0", "covers all addresses"),
        ("::/0", "covers all addresses"),
        ("", "must be an IP address"),
    ],
)
def test_malformed_proxy_is_reported(proxy: str, expected: str) -> None:
    arguments = ("--listen", "teltonika=haproxy:tcp:5027", "--proxy", "192.0.2.9")
    message = usage_error("ingest", *arguments, "--proxy", proxy)
    assert f"--proxy {proxy}: " in message
    assert expected in message


def test_proxy_requires_a_haproxy_endpoint() -> None:
    assert "--proxy requires a haproxy: endpoint" in usage_error(
        "ingest", "--listen", "teltonika=tcp:5027", "--proxy", "192.0.2.9"
    )


def test_accepting_unknown_devices_requires_an_allow_list() -> None:
    assert "--device-authority redis" in usage_error("ingest", "--unknown-devices", "accept")


def test_too_low_limit_of_open_files_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert "open-file limit of 64" in usage_error("ingest")


@pytest.mark.parametrize(
    ("option", "value"), [("--frame-bytes", "8k"), ("--login-timeout", "soon")]
)
def test_value_that_is_not_a_number_is_reported_with_its_option(option: str, value: str) -> None:
    assert option.lstrip("-") in usage_error("ingest", option, value)
