"""Identification of the peer of a control connection, and its permission."""

from __future__ import annotations

import os
import pwd
import re
import socket
import struct
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal

from attrs import frozen
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import Certificate
from cryptography.x509.oid import NameOID
from twisted.logger import Logger

from tracker.control.addresses import is_loopback
from tracker.net.endpoints import readable

#: unix(7), SO_PEERCRED: struct ucred, of pid, uid and gid.
_CREDENTIALS: Final = struct.Struct("iII")
#: OpenSSL's description of the state after the last message of a handshake.
_ESTABLISHED: Final = b"SSL negotiation finished successfully"

#: Name in a permissions file that stands for all names that are not listed.
ANY_NAME: Final = "*"
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
#: Bytes of the largest permissions file. A thousand names need a fiftieth of it.
MAX_FILE_BYTES: Final = 1 << 20


class Unidentified(Exception):
    """The peer is not identified (yet); the message gives the reason."""


@frozen
class Peer:
    """The peer of a connection."""

    kind: Literal["certificate", "unix", "tcp"]
    """Kind of evidence by which the peer was identified."""
    name: str
    """Common name of the certificate, name (or id) of the user, or address."""
    fingerprint: str = ""
    """SHA-256 of the certificate, in hexadecimal."""
    pid: int | None = None
    """Process that has connected to the Unix socket."""
    uid: int | None = None
    """User of that process."""
    gid: int | None = None
    """Group of that process."""

    def __str__(self) -> str:
        name = self.name if self.name.isprintable() else ascii(self.name)[1:-1]
        match self.kind:
            case "certificate":
                return f"certificate {name} ({self.fingerprint[:16]})"
            case "unix":
                return f"unix user {name}, pid {self.pid}"
            case _:
                return f"tcp {name}"


class Permission(Enum):
    """Set of commands that a peer may send."""

    READ = "read"
    OPERATE = "operate"
    """All commands of ``read``, and those that change something."""


def identify_peer(transport: Any) -> Peer:
    """Return the peer of a transport.

    Over TLS, call it in or after ``IHandshakeListener.handshakeCompleted``; in ``connectionMade``
    the peer is not identified yet. Close the connection of an unidentified peer with
    ``abortConnection``: if an exception is raised instead, Twisted still delivers the bytes that
    arrived together with the last message of the handshake.

    :raises Unidentified: if the peer is not identified.
    """
    if hasattr(transport, "getPeerCertificate"):
        return _by_certificate(transport)
    handle = transport.getHandle()
    if getattr(handle, "family", None) == socket.AF_UNIX:
        return _by_credentials(handle)
    address = transport.getPeer()
    if not getattr(address, "host", None):
        raise Unidentified(f"unknown kind of connection: {type(address).__name__}")
    return Peer("tcp", readable(address))


def _by_certificate(transport: Any) -> Peer:
    # Before the end of the handshake, the client has not proved that it has the private key of
    # the certificate.
    if transport.getHandle().get_state_string() != _ESTABLISHED:
        raise Unidentified("TLS handshake not completed")
    presented = transport.getPeerCertificate()
    if presented is None:
        raise Unidentified("no client certificate presented")
    certificate: Certificate = presented.to_cryptography()
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not (name := str(names[0].value)):
        raise Unidentified("the client certificate must have exactly one common name")
    return Peer("certificate", name, fingerprint=certificate.fingerprint(SHA256()).hex())


def _by_credentials(handle: socket.socket) -> Peer:
    try:
        raw = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError as error:
        raise Unidentified(f"cannot read SO_PEERCRED: {error.strerror}") from None
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Peer("unix", name, pid=pid, uid=uid, gid=gid)


class Permissions:
    """Permissions of peers, from a file that may change while the process runs.

    Each line of the file is ``NAME PERMISSION``: the common name of a certificate, and ``read``
    or ``operate``; ``*`` stands for all names that are not listed, and ``#`` starts a comment.
    Without a file, every client with a certificate has the permission ``read``.

    :param file: the permissions file, or None.
    :param local: the permission of peers on this machine: on plain TCP, and on a Unix socket,
        whose mode controls which users can connect.
    :raises ValueError: if the file cannot be read, or a line is malformed; the text is one line.
    """

    _log = Logger()

    def __init__(self, file: Path | None, local: Permission = Permission.OPERATE) -> None:
        self.local = local
        self._file = file
        self._permissions: dict[str, Permission] = {ANY_NAME: Permission.READ}
        self._version: object = None
        if file is not None:
            self._version = _version(file)
            self._permissions = _read(file)

    def of(self, peer: Peer) -> Permission | None:
        """Return the permission of a peer; None for no access.

        Reloads the file if it has changed. If it is malformed now, the previous permissions stay
        in effect, and one warning is logged for each change.
        """
        match peer.kind:
            case "certificate":
                self._refresh()
                return self._permissions.get(peer.name, self._permissions.get(ANY_NAME))
            case "unix":
                return self.local
            case "tcp":
                return self.local if is_loopback(_host(peer.name)) else None

    def _refresh(self) -> None:
        if self._file is None or (version := _version(self._file)) == self._version:
            return
        self._version = version
        try:
            self._permissions = _read(self._file)
        except ValueError as error:
            self._log.warn(
                "permissions not reloaded, the previous ones stay in effect: {reason}",
                reason=str(error),
                file=str(self._file),
            )
        else:
            self._log.info(
                "permissions reloaded from {file}, names: {count}",
                file=str(self._file),
                count=len(self._permissions),
            )


def _host(name: str) -> str:
    return name.rpartition(":")[0].strip("[]")


def _version(file: Path) -> object:
    """Return a value that changes when the file is written or replaced."""
    try:
        found = os.stat(file)
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _read(file: Path) -> dict[str, Permission]:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{file}: larger than {MAX_FILE_BYTES} bytes")
    permissions: dict[str, Permission] = {}
    # Not splitlines, which also splits at characters that a name may contain.
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            text = _COMMENT.sub("", line.decode("utf-8")).strip()
            if text:
                name, permission = _entry(text)
                if name in permissions:
                    raise ValueError(f"duplicate name {name}")
                permissions[name] = permission
        except UnicodeDecodeError:
            raise ValueError(f"{file}: line {number}: not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"{file}: line {number}: {error}") from None
    return permissions


def _entry(text: str) -> tuple[str, Permission]:
    name, *permission = text.rsplit(maxsplit=1)
    if not permission or not name.isprintable():
        raise ValueError(f"must be NAME PERMISSION, for example admin operate, not {text!r}")
    try:
        return name, Permission(permission[0])
    except ValueError:
        raise ValueError(f"the permission must be read or operate, not {permission[0]!r}") from None
