"""Certificates for tests, in PEM files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certify(folder: Path, address: str, issuer: Path | None = None) -> Path:
    """Create a certificate for an address, with its key in a file beside it.

    :param issuer: the certificate of the CA; None: self-signed. A new certificate may be a CA, too.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"test {address}")])
    issuer_name, issuer_key = name, key
    if issuer is not None:
        issuer_name = x509.load_pem_x509_certificate(issuer.read_bytes()).subject
        loaded = serialization.load_pem_private_key(key_of(issuer).read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        issuer_key = loaded
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    path = folder / f"{address}.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_of(path).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def key_of(certificate: Path) -> Path:
    """Return the path of a certificate's key."""
    return certificate.with_suffix(".key")
