"""A private certificate authority, and the certificates that it issues.

Their contents follow RFC 5280: section 4.2.1 for extensions, section 4.1.2.5 for times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS: Final = 3650

#: Time by which a certificate's validity begins before its issue, since clocks differ.
_CLOCK_TOLERANCE: Final = timedelta(hours=1)

_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
#: Maximum number of characters of a host's name. Source: RFC 1035, section 2.3.4.
_MAX_NAME: Final = 253

#: All arguments of x509.KeyUsage.
_USAGES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@frozen
class Issuer:
    """An authority that can issue certificates."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def make_authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """Return the certificate of a new authority."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Clients mistake two authorities with the same name for each other.
    name = _name(f"Tracker control CA {identifier.digest.hex()[:8]}")
    builder = (
        _builder(name, key, now, now + timedelta(days=AUTHORITY_DAYS))
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(_key_identifier(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def issue_server(
    issuer: Issuer,
    key: ec.EllipticCurvePrivateKey,
    names: Iterable[str],
    *,
    now: datetime,
    days: int,
) -> x509.Certificate:
    """Return the certificate of a server.

    :param names: host names and IP addresses that clients connect to.
    """
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    return _issue(
        issuer,
        key,
        "Tracker control port",
        ExtendedKeyUsageOID.SERVER_AUTH,
        now=now,
        days=days,
        alternatives=alternatives,
    )


def issue_client(
    issuer: Issuer, key: ec.EllipticCurvePrivateKey, name: str, *, now: datetime, days: int
) -> x509.Certificate:
    """Return the certificate of a client.

    :param name: the common name, by which the control port identifies the client.
    """
    return _issue(issuer, key, name, ExtendedKeyUsageOID.CLIENT_AUTH, now=now, days=days)


def _issue(
    issuer: Issuer,
    key: ec.EllipticCurvePrivateKey,
    name: str,
    usage: x509.ObjectIdentifier,
    *,
    now: datetime,
    days: int,
    alternatives: x509.SubjectAlternativeName | None = None,
) -> x509.Certificate:
    # A certificate is useless once its authority has expired.
    end = min(now + timedelta(days=days), issuer.certificate.not_valid_after_utc)
    builder = (
        _builder(_name(name), key, now, end)
        .issuer_name(issuer.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(_key_identifier(issuer.key.public_key()), critical=False)
    )
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def _builder(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_TOLERANCE)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*true: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in true for usage in _USAGES})


def _key_identifier(key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def is_server_name(name: str) -> bool:
    """Return True if a name is a host name (RFC 1123, section 2.1) or an IP address."""
    try:
        # A certificate cannot contain an address with a scope.
        return "%" not in name and bool(ip_address(name))
    except ValueError:
        pass
    labels = name.split(".")
    # Browsers treat a name that ends in a number as an IP address.
    return (
        len(name) <= _MAX_NAME
        and not labels[-1].isdigit()
        and all(_LABEL.fullmatch(label) for label in labels)
    )


def normalised(name: str) -> str:
    """Return a server's name or address in the form that certificates use."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name.lower()


def server_names(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses in a server's certificate."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found.value]


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return True if an authority has issued a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def pem(value: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    """Return a certificate or a private key in PEM form."""
    if isinstance(value, x509.Certificate):
        return value.public_bytes(Encoding.PEM)
    return value.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_certificate(content: bytes) -> x509.Certificate:
    """Return the certificate in a PEM file.

    :raises ValueError: if there is none; the text follows the name of the file.
    """
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError:
        raise ValueError("contains no certificate in PEM form") from None


def read_key(content: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key in a PEM file.

    :raises ValueError: if there is none that can be used; the text follows the name of the file.
    """
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise ValueError("is encrypted; remove its passphrase") from None
    except ValueError:
        raise ValueError("contains no private key in PEM form") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("contains no elliptic-curve key")
    return key


def utc_now() -> datetime:
    """Return the time in whole seconds, the resolution of certificates."""
    return datetime.now(UTC).replace(microsecond=0)
