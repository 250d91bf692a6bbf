"""Identify the peer of a control connection, and look up its permission."""

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
#: OpenSSL's name for the state after the last message of a handshake.
_ESTABLISHED: Final = b"SSL negotiation finished successfully"

#: The name in a file of permissions that stands for all names that are not listed.
ANY_NAME: Final = "*"
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
#: Bytes of the largest file of permissions. A thousand people need a fiftieth.
MAX_FILE_BYTES: Final = 1 << 20


class Unidentified(Exception):
    """The peer is not identified, or not yet; the text gives the reason."""


@frozen
class Peer:
    """The peer of a connection."""

    kind: Literal["certificate", "unix", "tcp"]
    """The way in which it was identified."""
    name: str
    """The certificate's common name, the user's name (or id), or the address."""
    fingerprint: str = ""
    """SHA-256 of the certificate, in hexadecimal."""
    pid: int | None = None
    """Of the process that has opened a Unix socket; so are the next two."""
    uid: int | None = None
    gid: int | None = None

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
    """The commands that a peer may give."""

    READ = "read"
    OPERATE = "operate"
    """All that ``read`` may, and the commands that change something."""


def identify_peer(transport: Any) -> Peer:
    """Return the peer of a transport.

    Over TLS, it is identified by the end of the handshake: in or after
    ``IHandshakeListener.handshakeCompleted``, but not in ``connectionMade``. Close the connection
    of an unidentified peer by ``abortConnection``: after a mere exception, Twisted delivers what
    came along with the handshake's last message.

    :raises Unidentified: if it is not identified.
    """
    if hasattr(transport, "getPeerCertificate"):
        return _by_certificate(transport)
    handle = transport.getHandle()
    if getattr(handle, "family", None) == socket.AF_UNIX:
        return _by_credentials(handle)
    address = transport.getPeer()
    if not getattr(address, "host", None):
        raise Unidentified(f"a connection of an unknown kind: {type(address).__name__}")
    return Peer("tcp", readable(address))


def _by_certificate(transport: Any) -> Peer:
    # Before the handshake's end, a client may have shown another's certificate, and has not yet
    # had to prove that it has the key.
    if transport.getHandle().get_state_string() != _ESTABLISHED:
        raise Unidentified("the TLS handshake is not over")
    shown = transport.getPeerCertificate()
    if shown is None:
        raise Unidentified("no certificate was shown")
    certificate: Certificate = shown.to_cryptography()
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1 or not (name := str(names[0].value)):
        raise Unidentified("the certificate must have one common name")
    return Peer("certificate", name, fingerprint=certificate.fingerprint(SHA256()).hex())


def _by_credentials(handle: socket.socket) -> Peer:
    try:
        raw = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError as error:
        raise Unidentified(f"the kernel does not tell: {error.strerror}") from None
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Peer("unix", name, pid=pid, uid=uid, gid=gid)


class Permissions:
    """The permissions of peers, from a file that may change while the process runs.

    A line of the file is ``NAME PERMISSION``: a certificate's common name, and ``read`` or
    ``operate``; ``*`` stands for all names that are not listed, and ``#`` begins a comment.
    Without a file, every client with a certificate may read.

    :param file: the file of permissions, or None.
    :param local: the permission of peers on this machine: those on a Unix socket, whose mode says
        which users can connect, and on plain TCP.
    :raises ValueError: if the file cannot be read, or a line is malformed; in one line.
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

        Reads the file again if it has changed. If it has become malformed, the former permissions
        hold, and a warning is logged, once a change.
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
                "permissions not read again, the former hold: {reason}",
                reason=str(error),
                file=str(self._file),
            )
        else:
            self._log.info(
                "permissions read again: {file}, {count} names",
                file=str(self._file),
                count=len(self._permissions),
            )


def _host(name: str) -> str:
    return name.rpartition(":")[0].strip("[]")


def _version(file: Path) -> object:
    """Return a value that changes when a file is written to, or replaced."""
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
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{file}: is larger than {MAX_FILE_BYTES} bytes")
    permissions: dict[str, Permission] = {}
    # Not splitlines: other characters that end a line there may stand in a name.
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            text = _COMMENT.sub("", line.decode("utf-8")).strip()
            if text:
                name, permission = _entry(text)
                if name in permissions:
                    raise ValueError(f"{name} is there twice")
                permissions[name] = permission
        except UnicodeDecodeError:
            raise ValueError(f"{file}: line {number}: is not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"{file}: line {number}: {error}") from None
    return permissions


def _entry(text: str) -> tuple[str, Permission]:
    name, *permission = text.rsplit(maxsplit=1)
    if not permission or not name.isprintable():
        raise ValueError(f"must be NAME PERMISSION, as admin operate, not {text!r}")
    try:
        return name, Permission(permission[0])
    except ValueError:
        raise ValueError(f"the permission must be read or operate, not {permission[0]!r}") from None
