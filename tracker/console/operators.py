"""Who may log in to the console: a file of names, permissions and scrypt hashes.

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

#: What an operator may do: look, or look and send commands.
PERMISSIONS: Final = ("read", "operate")
#: Characters of a password.
SHORTEST: Final = 12
LONGEST: Final = 256
#: Bytes of the file.
MOST_BYTES: Final = 1 << 20

#: 32 MiB and about a quarter of a second: OWASP's Password Storage Cheat Sheet, "scrypt".
_LOG2_N: Final = 15
_R: Final = 8
_P: Final = 3
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32

_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


class BadOperators(ValueError):
    """The file cannot be used; the text is one line that says why."""


@frozen
class PasswordHash:
    """What is kept of a password."""

    log2_n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    @classmethod
    def of(cls, password: str) -> PasswordHash:
        """Hash a password; takes a while, and is best done in a thread."""
        salt = os.urandom(_SALT_BYTES)
        return cls(_LOG2_N, _R, _P, salt, _scrypt(password, log2_n=_LOG2_N, r=_R, p=_P, salt=salt))

    @classmethod
    def from_text(cls, text: str) -> PasswordHash:
        """Read one.

        :raises ValueError: when it is none, or would take too much memory or time.
        """
        kind, log2_n, r, p, salt, key = text.split(":")
        made = cls(int(log2_n), int(r), int(p), b64decode(salt, validate=True), b64decode(key))
        bounds = (14 <= made.log2_n <= 18, 1 <= made.r <= 16, 1 <= made.p <= 16)
        if kind != "scrypt" or not all(bounds) or len(made.salt) < 8 or len(made.key) < 16:
            raise ValueError("no scrypt hash")
        return made

    def to_text(self) -> str:
        """As it stands in the file."""
        salt, key = b64encode(self.salt).decode(), b64encode(self.key).decode()
        return f"scrypt:{self.log2_n}:{self.r}:{self.p}:{salt}:{key}"

    def fits(self, password: str) -> bool:
        """Whether this is the password; takes a while either way."""
        made = _scrypt(password, log2_n=self.log2_n, r=self.r, p=self.p, salt=self.salt)
        return hmac.compare_digest(made[: len(self.key)], self.key)

    @property
    def stamp(self) -> str:
        """Tells this hash from any other, and nothing of the password."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()[:16]


@frozen
class Operator:
    """Somebody who may log in."""

    name: str
    permission: str
    password: PasswordHash


class Operators:
    """The file, read again whenever it has changed.

    :raises BadOperators: when it cannot be used now. Later on, what was read last holds.
    """

    _log = Logger()

    def __init__(self, path: Path) -> None:
        self._path = path
        self._status = _status(path)
        self._known = read_operators(path)
        if not self._known:
            raise BadOperators(
                f"{path}: nobody is in it: tracker-admin console-operator add --file {path} NAME"
            )
        # Where a name is unknown the same work is done as for one that is known.
        self._nobody = PasswordHash(_LOG2_N, _R, _P, os.urandom(_SALT_BYTES), bytes(_KEY_BYTES))

    def get(self, name: str) -> Operator | None:
        """The operator of this name."""
        status = _status(self._path)
        if status != self._status:
            self._status = status
            try:
                self._known = read_operators(self._path)
            except BadOperators as error:
                self._log.error("operators stay as they were: {error}", error=error)
        return self._known.get(name)

    def hash_of(self, name: str) -> PasswordHash:
        """What a password has to fit; for an unknown name one that nothing fits."""
        operator = self.get(name)
        return self._nobody if operator is None else operator.password


def read_operators(path: Path) -> dict[str, Operator]:
    """Name → operator.

    :raises BadOperators: when the file cannot be read, or others may read it.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IRWXO:
                raise BadOperators(f"{path}: everybody may read or write it: chmod o= {path}")
            text = file.read(MOST_BYTES + 1).decode()
    except OSError as error:
        raise BadOperators(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadOperators(f"{path}: not UTF-8") from None
    if len(text) > MOST_BYTES:
        raise BadOperators(f"{path}: longer than {MOST_BYTES:,} bytes")
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
            raise BadOperators(f"{path}: line {number} is not NAME PERMISSION HASH") from None
        if name in found:
            raise BadOperators(f"{path}: line {number}: {name} is there twice")
        found[name] = operator
    return found


def write_operators(path: Path, operators: Mapping[str, Operator]) -> None:
    """Replace the file at once; only its owner, and the group it had, may read it.

    :raises OSError: when that cannot be done.
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
    """:raises ValueError: when it cannot be the name of an operator; in one line."""
    if not _NAME.fullmatch(name):
        raise ValueError("a name has letters, digits and . _ @ - only, at most 64")
    return name


def checked_permission(permission: str) -> str:
    """:raises ValueError: when there is no such permission; in one line."""
    if permission not in PERMISSIONS:
        raise ValueError(f"a permission is {' or '.join(PERMISSIONS)}")
    return permission


def checked_password(password: str) -> str:
    """:raises ValueError: when it is too short or too long; in one line."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
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
