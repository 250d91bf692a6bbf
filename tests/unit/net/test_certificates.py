"""Certificates and private keys in PEM files."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.ssl import CertificateOptions

from tests.certificates import certify, key_of
from tracker.net.certificates import load_certificates, load_private_key, trust_root


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("authorities")
    return [certify(folder, f"192.0.2.{number}") for number in (1, 2)]


def names(file: Path) -> list[str]:
    loaded = [x509.load_der_x509_certificate(found.dump()) for found in load_certificates(file)]
    return [certificate.subject.rfc4514_string() for certificate in loaded]


def test_all_certificates_of_a_file_are_loaded(authorities: list[Path], tmp_path: Path) -> None:
    one, other = authorities
    assert names(one) == ["CN=test 192.0.2.1"]
    both = tmp_path / "both.pem"
    both.write_bytes(one.read_bytes() + other.read_bytes())
    assert names(both) == ["CN=test 192.0.2.1", "CN=test 192.0.2.2"]


def test_keys_and_comments_in_a_certificate_file_are_ignored(
    authorities: list[Path], tmp_path: Path
) -> None:
    one, _ = authorities
    commented = tmp_path / "commented.pem"
    commented.write_bytes(
        b"# Autorit\xe9s\r\n" + key_of(one).read_bytes() + one.read_bytes() + b"\n# end\n"
    )
    assert names(commented) == ["CN=test 192.0.2.1"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\n"])
def test_error_for_a_file_without_certificates_names_the_file(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=str(file)) as raised:
        load_certificates(file)
    assert str(raised.value).startswith(f"{file} contains ")


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_error_for_a_damaged_certificate_names_the_file(
    authorities: list[Path], keep: int, tmp_path: Path
) -> None:
    one, other = authorities
    file = tmp_path / "ca.pem"
    file.write_bytes(one.read_bytes() + other.read_bytes()[: 27 + keep])
    with pytest.raises(ValueError, match=str(file)) as raised:
        load_certificates(file)
    assert str(raised.value).startswith(f"{file} contains ")


def test_missing_certificate_file_raises_oserror() -> None:
    with pytest.raises(OSError, match="/no/such/file"):
        load_certificates(Path("/no/such/file"))


def test_trust_root_makes_twisted_verify_clients(authorities: list[Path]) -> None:
    options = CertificateOptions(trustRoot=trust_root(authorities[0]))
    assert options.verify
    assert options.requireCertificate
    assert options.getContext()


def test_private_key_is_loaded_from_a_file(authorities: list[Path]) -> None:
    CertificateOptions(
        privateKey=load_private_key(key_of(authorities[0])),
        certificate=load_certificates(authorities[0])[0].original,
    ).getContext()


def test_error_for_a_missing_or_encrypted_key_names_the_file(
    authorities: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=str(authorities[0])):
        load_private_key(authorities[0])
    key = load_pem_private_key(key_of(authorities[0]).read_bytes(), password=None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(ValueError, match=str(locked)) as raised:
        load_private_key(locked)
    assert str(raised.value).startswith(f"{locked} is encrypted")
