"""The operators of the console: a file of names, permissions and scrypt hashes.

A line is ``NAME PERMISSION HASH``; a HASH is ``scrypt:LOG2N:R:P:SALT:KEY`` (RFC 7914), the last
two in base64. ``tracker-admin console-operator`` writes it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen
from twisted.logger import Logger

#: Permissions of an operator; ``operate`` allows commands, too.
PERMISSIONS: Final = ("read", "operate")
#: Length of a password, in characters.
MIN_PASSWORD_LENGTH: Final = 12
MAX_PASSWORD_LENGTH: Final = 256
#: Maximum size of the file, in bytes.
MAX_FILE_BYTES: Final = 1 << 20

#: Parameters of scrypt (OWASP, Password Storage Cheat Sheet, "scrypt"): a hash takes 32 MiB, and
#: about 0.25 s.
_LOG2_N: Final = 15
_R: Final = 8
_P: Final = 3
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32

_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class InvalidOperatorsFile(ValueError):
    """Error in the operators file. The message gives the reason in one line."""


@frozen
class PasswordHash:
    """A salted scrypt hash of a password."""

    log2_n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    @classmethod
    def of(cls, password: str) -> PasswordHash:
        """Hash a password, which takes about 0.25 s: call it in a thread."""
        salt = os.urandom(_SALT_BYTES)
        return cls(_LOG2_N, _R, _P, salt, _scrypt(password, log2_n=_LOG2_N, r=_R, p=_P, salt=salt))

    @classmethod
    def from_text(cls, text: str) -> PasswordHash:
        """Parse a hash.

        :raises ValueError: if it is malformed, or its check would take too much memory or time.
        """
        kind, log2_n, r, p, salt, key = text.split(":")
        made = cls(int(log2_n), int(r), int(p), b64decode(salt, validate=True), b64decode(key))
        bounds = (14 <= made.log2_n <= 18, 1 <= made.r <= 16, 1 <= made.p <= 16)
        if kind != "scrypt" or not all(bounds) or len(made.salt) < 8 or len(made.key) < 16:
            raise ValueError("not a scrypt hash within the limits")
        return made

    def to_text(self) -> str:
        """Return the hash in the format of the file."""
        salt, key = b64encode(self.salt).decode(), b64encode(self.key).decode()
        return f"scrypt:{self.log2_n}:{self.r}:{self.p}:{salt}:{key}"

    def matches(self, password: str) -> bool:
        """Return True if the password is right; takes about 0.25 s either way."""
        made = _scrypt(password, log2_n=self.log2_n, r=self.r, p=self.p, salt=self.salt)
        return hmac.compare_digest(made[: len(self.key)], self.key)

    @property
    def stamp(self) -> str:
        """Identifier of this hash, from which the password cannot be guessed."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()[:16]


@frozen
class Operator:
    """A user who may log in."""

    name: str
    permission: str
    password: PasswordHash


class Operators:
    """The operators of a file, which is read again when it changes.

    A changed file that is not valid is ignored, and logged.

    :raises InvalidOperatorsFile: if the file is not valid, or names no operator.
    """

    _log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._status = _status(path)
        self._known = read_operators(path)
        if not self._known:
            raise InvalidOperatorsFile(
                f"{path}: no operators. Add one with tracker-admin console-operator add "
                f"--file {path} NAME"
            )
        # For unknown names: the time that a login takes must not reveal which names exist.
        self._unmatchable = PasswordHash(
            _LOG2_N, _R, _P, os.urandom(_SALT_BYTES), bytes(_KEY_BYTES)
        )

    def get(self, name: str) -> Operator | None:
        """Return the operator with this name, or None."""
        status = _status(self._path)
        if status != self._status:
            self._status = status
            try:
                self._known = read_operators(self._path)
            except InvalidOperatorsFile as error:
                self._log.error("operators file not reloaded: {error}", error=error)
        return self._known.get(name)

    def hash_of(self, name: str) -> PasswordHash:
        """Return an operator's hash; for an unknown name one that no password matches."""
        operator = self.get(name)
        return self._unmatchable if operator is None else operator.password


def read_operators(path: Path) -> dict[str, Operator]:
    """Return name → operator.

    :raises InvalidOperatorsFile: if the file cannot be read or is malformed, or if users other
        than its owner and group can access it.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IRWXO:
                raise InvalidOperatorsFile(
                    f"{path}: other users can access it; run chmod o= {path}"
                )
            text = file.read(MAX_FILE_BYTES + 1).decode()
    except OSError as error:
        raise InvalidOperatorsFile(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidOperatorsFile(f"{path}: not UTF-8") from None
    if len(text) > MAX_FILE_BYTES:
        raise InvalidOperatorsFile(f"{path}: longer than {MAX_FILE_BYTES:,} bytes")
    found: dict[str, Operator] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, permission, hashed = line.split()
            operator = Operator(
                checked_name(name), checked_permission(permission), PasswordHash.from_text(hashed)
            )
        except ValueError:
            raise InvalidOperatorsFile(
                f"{path}: line {number} is not NAME PERMISSION HASH"
            ) from None
        if name in found:
            raise InvalidOperatorsFile(f"{path}: line {number}: duplicate name {name}")
        found[name] = operator
    return found


def write_operators(path: Path, operators: Mapping[str, Operator]) -> None:
    """Replace the file atomically; keep its owner, and its mode except the rights of others.

    :raises OSError: if the file cannot be written.
    """
    lines = [
        f"{one.name} {one.permission} {one.password.to_text()}\n"
        for _, one in sorted(operators.items())
    ]
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(lines)
            if path.exists():
                before = path.stat()
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode) & ~stat.S_IRWXO)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def checked_name(name: str) -> str:
    """Return the name of an operator.

    :raises ValueError: if it is not valid, with the reason in one line.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 letters, digits or . _ @ -")
    return name


def checked_permission(permission: str) -> str:
    """Return the permission of an operator.

    :raises ValueError: if it is not valid, with the reason in one line.
    """
    if permission not in PERMISSIONS:
        raise ValueError(f"a permission is {' or '.join(PERMISSIONS)}")
    return permission


def checked_password(password: str) -> str:
    """Return a new password.

    :raises ValueError: if it is too short or too long, with the reason in one line.
    """
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise ValueError(
            f"a password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters"
        )
    return password


def _scrypt(password: str, *, log2_n: int, r: int, p: int, salt: bytes) -> bytes:
    n = 1 << log2_n
    return hashlib.scrypt(
        password.encode(errors="surrogatepass"),
        salt=salt,
        n=n,
        r=r,
        p=p,
        maxmem=256 * n * r,
        dklen=_KEY_BYTES,
    )


def _status(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
