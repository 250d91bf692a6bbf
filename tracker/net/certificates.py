"""Certificates and private keys in PEM files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import crypto
from twisted.internet.ssl import Certificate, trustRootFromCertificates

_MARK = "-----BEGIN CERTIFICATE-----"


def load_certificates(file: Path) -> list[Certificate]:
    """Return the certificates in a PEM file.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if it contains no certificate, or a damaged one; the message is one line.
    """
    blocks = file.read_text(encoding="ascii", errors="replace").split(_MARK)[1:]
    if not blocks:
        raise ValueError(f"{file} contains no certificate in PEM form")
    try:
        return [Certificate.loadPEM((_MARK + block).encode()) for block in blocks]
    except crypto.Error:
        raise ValueError(f"{file} contains a damaged certificate") from None


def trust_root(file: Path) -> Any:
    """Return the authorities in a PEM file as a trust root of Twisted.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if it contains no certificate, or a damaged one; the message is one line.
    """
    return trustRootFromCertificates(load_certificates(file))


def load_private_key(file: Path) -> crypto.PKey:
    """Return the private key in a PEM file.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if it contains no private key, or an encrypted one; the message is one line.
    """
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except TypeError:
        raise ValueError(f"{file} is encrypted; remove its passphrase") from None
    except ValueError:
        raise ValueError(f"{file} contains no private key in PEM form") from None
    return crypto.PKey.from_cryptography_key(key)  # type: ignore[arg-type]
