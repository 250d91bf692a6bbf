"""The command ``certs``, which creates keys and certificates for control ports over TLS."""

from __future__ import annotations

import os
import re
import shlex
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

import click
from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tracker.admin.issuing import (
    Issuer,
    is_issued_by,
    is_server_name,
    issue_client,
    issue_server,
    make_authority,
    make_key,
    normalised,
    pem,
    read_certificate,
    read_key,
    server_names,
    utc_now,
)
from tracker.control.addresses import is_loopback
from tracker.errors import RunFailed

AUTHORITY: Final = "ca"
SERVER: Final = "server"
DEFAULT_CLIENT: Final = "admin"
#: Port in the command lines that are printed; any other can be used.
PORT: Final = 5099

#: A common name has at most 64 characters (RFC 5280, appendix A: ub-common-name).
_CLIENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

T = TypeVar("T")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--server-name",
    "servers",
    metavar="NAME",
    multiple=True,
    help="Host name or IP address that clients connect to; may be repeated.  [default: "
    "localhost, 127.0.0.1, ::1 and the name of this host]",
)
@click.option(
    "--client",
    "clients",
    metavar="NAME",
    multiple=True,
    help=f"Create a certificate for this client; may be repeated.  [default: {DEFAULT_CLIENT}]",
)
@click.option(
    "--days",
    type=click.IntRange(1, 825),
    default=365,
    show_default=True,
    help="Validity of the certificates of server and clients, in days.",
)
@click.option(
    "--renew",
    "renewed",
    metavar="NAME",
    multiple=True,
    help="Replace the key and certificate of this client, or of the server if NAME is server; may "
    "be repeated.",
)
def certs(
    *,
    folder: Path,
    servers: tuple[str, ...],
    clients: tuple[str, ...],
    days: int,
    renewed: tuple[str, ...],
) -> None:
    """Create keys and certificates for the control port.

    FOLDER gets a private certificate authority (ca.pem and ca.key), a certificate for the server
    (server.pem and server.key) and one for each client (NAME.pem and NAME.key). Existing files
    are kept. Keep ca.key secret: anyone who has it can issue client certificates.
    """
    try:
        _check(servers, clients, renewed)
        # --renew names its targets; do not also issue the default client's certificate.
        wanted = clients or (() if renewed else (DEFAULT_CLIENT,))
        created = CertificateFolder(folder, days, renewed)
        names = created.create(servers, tuple(dict.fromkeys((*wanted, *renewed))))
    except ValueError as error:
        raise RunFailed(str(error)) from None
    for line in created.lines:
        click.echo(line)
    click.echo()
    for line in _usage(folder.absolute(), names[0], (*wanted, *renewed)):
        click.echo(line)


def _check(servers: tuple[str, ...], clients: tuple[str, ...], renewed: tuple[str, ...]) -> None:
    for name in servers:
        if not is_server_name(name):
            raise ValueError(f"--server-name {name!r}: must be a host name or an IP address")
    for option, names in (("--client", clients), ("--renew", renewed)):
        for name in names:
            if not _CLIENT.fullmatch(name):
                raise ValueError(
                    f"{option} {name!r}: must be 1 to 64 letters, digits, '.', '_' or '-', and "
                    "begin with a letter or a digit"
                )
            if name.lower() == AUTHORITY and option == "--renew":
                raise ValueError("--renew ca: would void all certificates; use another folder")
            if name.lower() in (AUTHORITY, SERVER) and option == "--client":
                raise ValueError(f"--client {name}: the name is reserved")


def _usage(folder: Path, name: str, clients: tuple[str, ...]) -> Iterator[str]:
    """Yield the command lines that use the files, for the server and the first client."""

    def file(name: str) -> str:
        return _escaped(str(folder / name))

    listen = (
        f"ssl:{PORT}:privateKey={file('server.key')}:certKey={file('server.pem')}"
        f":clientCA={file('ca.pem')}"
    )
    if not (name == "localhost" or is_loopback(name)):
        # The default is loopback, where clients cannot connect to this name.
        interface = name if _is_address(name) else "0.0.0.0"  # noqa: S104 - a name was given
        listen += f":interface={_escaped(interface)}"
    yield shlex.join(["tracker", "ingest", "--control", listen])
    for client in dict.fromkeys(clients):
        if client != SERVER:
            connect = (
                f"ssl:{_escaped(name)}:{PORT}:privateKey={file(f'{client}.key')}"
                f":certKey={file(f'{client}.pem')}:caCert={file('ca.pem')}"
            )
            yield shlex.join(["tracker-admin", "--control", connect])
            break


def _is_address(name: str) -> bool:
    return ":" in name or name.rpartition(".")[2].isdigit()


def _escaped(argument: str) -> str:
    return argument.replace(":", r"\:")


def default_names() -> list[str]:
    """Return the names of the server if none are given."""
    host = socket.gethostname()
    names = ["localhost", "127.0.0.1", "::1", *([host] if is_server_name(host) else [])]
    return list(dict.fromkeys(map(normalised, names)))


@define
class CertificateFolder:
    """A folder of keys and certificates.

    All existing files are checked before any file is written.
    """

    path: Path
    days: int
    renewed: tuple[str, ...] = ()
    lines: list[str] = field(factory=list)
    """A line for each pair of files that was created or kept."""

    def create(self, servers: tuple[str, ...], clients: tuple[str, ...]) -> list[str]:
        """Create the files that are missing, and replace those to be renewed.

        :param servers: names of the server; () for those in its certificate, or the default ones.
        :return: the server's names.
        :raises ValueError: if a file cannot be used or written; the text is one line that says
            what to do.
        """
        now = utc_now()
        clients = tuple(name for name in clients if name != SERVER)
        with _os_errors(self.path, "created"):
            self.path.mkdir(parents=True, exist_ok=True)
        authority = self._certificate(AUTHORITY)
        kept = {name: self._kept_certificate(name, authority) for name in (SERVER, *clients)}
        names = self._names(servers, kept[SERVER])
        missing = [name for name, found in kept.items() if found is None]
        if missing:
            issuer = self._issuer(authority, now)
            authority = issuer.certificate
            for name in missing:
                self._report("created", name, self._create(issuer, name, names, now), now)
        elif authority is not None:
            self._report("kept", AUTHORITY, authority, now)
        for name, found in kept.items():
            if found is not None:
                self._report("kept", name, found, now)
        return names

    def _issuer(self, authority: x509.Certificate | None, now: datetime) -> Issuer:
        """Return the authority, which is created if the folder has none."""
        file = self.path / f"{AUTHORITY}.key"
        key = self._key(AUTHORITY)
        if authority is None:
            key = key or self._new_key(AUTHORITY)
            authority = make_authority(key, now)
            _store(self._pem(AUTHORITY), pem(authority), 0o644, replace=False)
            self._report("created", AUTHORITY, authority, now)
            return Issuer(authority, key)
        if key is None:
            raise ValueError(
                f"{file} is missing, and no certificate can be issued without it. Restore it, or "
                "use another folder"
            )
        if key.public_key() != authority.public_key():
            raise ValueError(f"{file} does not belong to ca.pem. Restore the right file")
        if authority.not_valid_after_utc <= now:
            raise ValueError(f"{self._pem(AUTHORITY)} has expired. Use another folder")
        self._report("kept", AUTHORITY, authority, now)
        return Issuer(authority, key)

    def _create(
        self, issuer: Issuer, name: str, names: list[str], now: datetime
    ) -> x509.Certificate:
        """Create a key and its certificate, or the certificate of a key that has none.

        The key is written first, so that the command can be repeated after an interruption.
        """
        renew = name in self.renewed
        key = (None if renew else self._key(name)) or self._new_key(name)
        if name == SERVER:
            certificate = issue_server(issuer, key, names, now=now, days=self.days)
        else:
            certificate = issue_client(issuer, key, name, now=now, days=self.days)
        _store(self._pem(name), pem(certificate), 0o644, replace=renew)
        return certificate

    def _new_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        key = make_key()
        _store(self.path / f"{name}.key", pem(key), 0o600, replace=name in self.renewed)
        return key

    def _names(self, servers: tuple[str, ...], kept: x509.Certificate | None) -> list[str]:
        """Return the names of the server.

        :raises ValueError: if the certificate is kept and lacks one of them.
        """
        requested = list(dict.fromkeys(map(normalised, servers)))
        if kept is not None:
            has = server_names(kept)
            if lacking := [name for name in requested if name not in has]:
                raise ValueError(
                    f"{self._pem(SERVER)} is not valid for {', '.join(lacking)}. "
                    "Replace it with --renew server"
                )
            return requested or has
        if requested or SERVER not in self.renewed:
            return requested or default_names()
        former = None
        with suppress(ValueError):  # a damaged certificate can be renewed
            former = self._certificate(SERVER)
        return (server_names(former) if former is not None else []) or default_names()

    def _kept_certificate(
        self, name: str, authority: x509.Certificate | None
    ) -> x509.Certificate | None:
        """Return the certificate that is kept; None if one is to be created."""
        if name in self.renewed:
            if not self._pem(name).exists():
                raise ValueError(f"--renew {name}: {self._pem(name)} does not exist")
            if authority is None:
                raise self._missing_authority(name)
            return None
        certificate, hint = self._certificate(name), f"Replace it with --renew {name}"
        if certificate is None:
            return None
        if authority is None:
            raise self._missing_authority(name)
        key = self._key(name)
        if key is None:
            raise ValueError(f"{self._pem(name)} has no key ({name}.key is missing). {hint}")
        if key.public_key() != certificate.public_key():
            raise ValueError(f"{self._pem(name)} does not belong to {name}.key. {hint}")
        if not is_issued_by(certificate, authority):
            raise ValueError(f"{self._pem(name)} was issued by another authority. {hint}")
        return certificate

    def _missing_authority(self, name: str) -> ValueError:
        return ValueError(
            f"{self._pem(AUTHORITY)}, which issued {name}.pem, is missing. Restore it, or use "
            "another folder"
        )

    def _report(self, action: str, name: str, certificate: x509.Certificate, now: datetime) -> None:
        end = certificate.not_valid_after_utc
        until = f"valid until {end:%Y-%m-%d}"
        if end <= now:
            until = f"expired {end:%Y-%m-%d}"
            until += "" if name == AUTHORITY else f" (replace it with --renew {name})"
        names = f"for {', '.join(server_names(certificate))}, " if name == SERVER else ""
        self.lines.append(f"{action} {name}.pem, {name}.key: {names}{until}")

    def _pem(self, name: str) -> Path:
        return self.path / f"{name}.pem"

    def _certificate(self, name: str) -> x509.Certificate | None:
        return _read(self._pem(name), read_certificate)

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey | None:
        return _read(self.path / f"{name}.key", read_key)


def _read(file: Path, parse: Callable[[bytes], T]) -> T | None:
    """Return the content of a file; None if it does not exist."""
    with _os_errors(file, "read"):
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
    try:
        return parse(content)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from None


def _store(file: Path, content: bytes, mode: int, replace: bool) -> None:
    """Write a file with all its content and its mode, or not at all.

    :param replace: True to replace an existing file, which is an error otherwise.
    """
    with _os_errors(file, "written"):
        # mkstemp creates a file that only its owner can read, under an unpredictable name.
        number, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        try:
            with os.fdopen(number, "wb") as opened:
                opened.write(content)
                opened.flush()
                os.fchmod(number, mode)
                os.fsync(number)
            if replace:
                os.replace(name, file)
            else:
                os.link(name, file)  # unlike os.rename, replaces nothing
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)


@contextmanager
def _os_errors(file: Path, done: str) -> Iterator[None]:
    """Raise errors of the operating system as ValueError, like those in the files."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{file} cannot be {done}: {error.strerror}") from None
