"""``tracker-admin certs``: the certificates that a control port over TLS takes."""

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
    is_of,
    is_server_name,
    issue_client,
    issue_server,
    make_authority,
    make_key,
    normal,
    pem,
    read_certificate,
    read_key,
    server_names,
    utc_now,
)
from tracker.control.addresses import is_loopback

AUTHORITY: Final = "ca"
SERVER: Final = "server"
DEFAULT_CLIENT: Final = "admin"
#: In the lines that are printed; any other will do.
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
    "localhost, 127.0.0.1, ::1 and the host's name]",
)
@click.option(
    "--client",
    "clients",
    metavar="NAME",
    multiple=True,
    help=f"Make a certificate for this client; may be repeated.  [default: {DEFAULT_CLIENT}]",
)
@click.option(
    "--days",
    type=click.IntRange(1, 825),
    default=365,
    show_default=True,
    help="How long the certificates of server and clients hold.",
)
@click.option(
    "--renew",
    "renewed",
    metavar="NAME",
    multiple=True,
    help="Replace key and certificate of this client, or of the server; may be repeated.",
)
def certs(
    *,
    folder: Path,
    servers: tuple[str, ...],
    clients: tuple[str, ...],
    days: int,
    renewed: tuple[str, ...],
) -> None:
    """Make keys and certificates for the control port in FOLDER.

    These are a small private authority (ca.pem and ca.key), a certificate for the server
    that it vouches for, and one for each client (NAME.pem and NAME.key). What is there
    already is kept. Keep ca.key to yourself: who has it can make clients.
    """
    try:
        _check(servers, clients, renewed)
        # Who renews has named whom: nobody else is let in by the way.
        wanted = clients or (() if renewed else (DEFAULT_CLIENT,))
        made = Folder(folder, days, renewed)
        names = made.make(servers, tuple(dict.fromkeys((*wanted, *renewed))))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    for line in made.told:
        click.echo(line)
    click.echo()
    for line in _usage(folder.absolute(), names[0], (*wanted, *renewed)):
        click.echo(line)


def _check(servers: tuple[str, ...], clients: tuple[str, ...], renewed: tuple[str, ...]) -> None:
    for name in servers:
        if not is_server_name(name):
            raise ValueError(f"--server-name {name!r}: must be a host's name or an IP address")
    for option, names in (("--client", clients), ("--renew", renewed)):
        for name in names:
            if not _CLIENT.fullmatch(name):
                raise ValueError(
                    f"{option} {name!r}: letters, digits, '.', '_' and '-' only, at most 64"
                )
            if name.lower() == AUTHORITY and option == "--renew":
                raise ValueError("--renew ca: would void all certificates: take another folder")
            if name.lower() in (AUTHORITY, SERVER) and option == "--client":
                raise ValueError(f"--client {name}: is what other files are called")


def _usage(folder: Path, name: str, clients: tuple[str, ...]) -> Iterator[str]:
    """The command lines that use what was made."""

    def file(name: str) -> str:
        return _escaped(str(folder / name))

    listen = (
        f"ssl:{PORT}:privateKey={file('server.key')}:certKey={file('server.pem')}"
        f":clientCA={file('ca.pem')}"
    )
    if not (name == "localhost" or is_loopback(name)):
        # On loopback, which is the default, nobody would find it by that name.
        interface = name if _is_address(name) else "0.0.0.0"  # noqa: S104 - as it was asked for
        listen += f":interface={_escaped(interface)}"
    yield shlex.join(["twistd", "tracker", "ingest", "--control", listen])
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
    """What a server is called unless somebody says so."""
    host = socket.gethostname()
    names = ["localhost", "127.0.0.1", "::1", *([host] if is_server_name(host) else [])]
    return list(dict.fromkeys(map(normal, names)))


@define
class Folder:
    """A folder of keys and certificates.

    What is wrong with the files that are there is found before any is written.
    """

    path: Path
    days: int
    renewed: tuple[str, ...] = ()
    told: list[str] = field(factory=list)
    """What was made and what was kept, a line each."""

    def make(self, servers: tuple[str, ...], clients: tuple[str, ...]) -> list[str]:
        """Make what is missing, or to be renewed.

        :param servers: names for the server; () for those it has, or by default.
        :return: the server's names.
        :raises ValueError: with one line that says what to do.
        """
        now = utc_now()
        clients = tuple(name for name in clients if name != SERVER)
        with _told(self.path, "made"):
            self.path.mkdir(parents=True, exist_ok=True)
        authority = self._certificate(AUTHORITY)
        kept = {name: self._kept(name, authority) for name in (SERVER, *clients)}
        names = self._names(servers, kept[SERVER])
        missing = [name for name, found in kept.items() if found is None]
        if missing:
            issuer = self._issuer(authority, now)
            authority = issuer.certificate
            for name in missing:
                self._tell("made", name, self._make(issuer, name, names, now), now)
        elif authority is not None:
            self._tell("kept", AUTHORITY, authority, now)
        for name, found in kept.items():
            if found is not None:
                self._tell("kept", name, found, now)
        return names

    def _issuer(self, authority: x509.Certificate | None, now: datetime) -> Issuer:
        """The authority, made if there is none."""
        file = self.path / f"{AUTHORITY}.key"
        key = self._key(AUTHORITY)
        if authority is None:
            key = key or self._new_key(AUTHORITY)
            authority = make_authority(key, now)
            _store(self._pem(AUTHORITY), pem(authority), 0o644, replace=False)
            self._tell("made", AUTHORITY, authority, now)
            return Issuer(authority, key)
        if key is None:
            raise ValueError(
                f"{file}: is missing, and nothing can be made without it: bring it back, or take "
                "another folder"
            )
        if key.public_key() != authority.public_key():
            raise ValueError(f"{file}: does not belong to ca.pem: bring back the right one")
        if authority.not_valid_after_utc <= now:
            raise ValueError(f"{self._pem(AUTHORITY)}: has expired: take another folder")
        self._tell("kept", AUTHORITY, authority, now)
        return Issuer(authority, key)

    def _make(self, issuer: Issuer, name: str, names: list[str], now: datetime) -> x509.Certificate:
        """A pair in its files: a new one, or a certificate for a key that has none.

        The key is written first, so that what was interrupted can be taken up again.
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
        """The names of the server, which a certificate that is kept must all have."""
        asked = list(dict.fromkeys(map(normal, servers)))
        if kept is not None:
            has = server_names(kept)
            if lacking := [name for name in asked if name not in has]:
                raise ValueError(
                    f"{self._pem(SERVER)}: is there already, and not for {', '.join(lacking)}: "
                    "--renew server replaces it"
                )
            return asked or has
        if asked or SERVER not in self.renewed:
            return asked or default_names()
        former = None
        with suppress(ValueError):  # it may be damaged, and be renewed for that
            former = self._certificate(SERVER)
        return (server_names(former) if former is not None else []) or default_names()

    def _kept(self, name: str, authority: x509.Certificate | None) -> x509.Certificate | None:
        """A certificate that is there, is in order, and stays."""
        if name in self.renewed:
            if not self._pem(name).exists():
                raise ValueError(f"--renew {name}: there is no {self._pem(name)}")
            if authority is None:
                raise self._lost(name)
            return None
        certificate, hint = self._certificate(name), f"--renew {name} replaces it"
        if certificate is None:
            return None
        if authority is None:
            raise self._lost(name)
        key = self._key(name)
        if key is None:
            raise ValueError(f"{self._pem(name)}: its key is missing: {hint}")
        if key.public_key() != certificate.public_key():
            raise ValueError(f"{self._pem(name)}: does not belong to {name}.key: {hint}")
        if not is_of(certificate, authority):
            raise ValueError(f"{self._pem(name)}: is not of this authority: {hint}")
        return certificate

    def _lost(self, name: str) -> ValueError:
        return ValueError(
            f"{self._pem(AUTHORITY)}: is missing, and {name}.pem is of it: bring it back, or take "
            "another folder"
        )

    def _tell(self, what: str, name: str, certificate: x509.Certificate, now: datetime) -> None:
        end = certificate.not_valid_after_utc
        until = f"until {end:%Y-%m-%d}"
        if end <= now:
            until = f"expired {end:%Y-%m-%d}"
            until += "" if name == AUTHORITY else f": --renew {name} replaces it"
        names = f"for {', '.join(server_names(certificate))}, " if name == SERVER else ""
        self.told.append(f"{what} {name}.pem, {name}.key: {names}{until}")

    # Files.

    def _pem(self, name: str) -> Path:
        return self.path / f"{name}.pem"

    def _certificate(self, name: str) -> x509.Certificate | None:
        return _read(self._pem(name), read_certificate)

    def _key(self, name: str) -> ec.EllipticCurvePrivateKey | None:
        return _read(self.path / f"{name}.key", read_key)


def _read(file: Path, parse: Callable[[bytes], T]) -> T | None:
    """What a file holds; None when there is none."""
    with _told(file, "read"):
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
    try:
        return parse(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _store(file: Path, content: bytes, mode: int, replace: bool) -> None:
    """Write a file that is there with all its content and its mode, or not at all.

    :param replace: whether one that is there is replaced; else it is an error.
    """
    with _told(file, "written"):
        # Made for its owner only, under a name that nobody knows.
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
                os.link(name, file)  # unlike a renaming, it replaces nothing
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)


@contextmanager
def _told(file: Path, done: str) -> Iterator[None]:
    """Tells of what the system refuses as of any other mistake."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{file}: cannot be {done}: {error.strerror}") from None
