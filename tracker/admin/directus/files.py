"""Files that contain one secret each."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

from tracker.bridge.rest import checked_token

#: Maximum size of a file with a secret.
_MAX_BYTES: Final = 4096


def read_secret(file: Path) -> str:
    """Return the secret in a file, without the line break at the end.

    :raises ValueError: if the file does not contain a secret; the text does not quote it.
    :raises OSError: if the file cannot be read.
    """
    with file.open("rb") as opened:
        content = opened.read(_MAX_BYTES + 1)
    try:
        if len(content) > _MAX_BYTES:
            raise ValueError("too long")
        return checked_token(content.decode("ascii").strip())
    except ValueError:
        raise ValueError(
            f"{file}: must contain one line of printable ASCII without spaces"
        ) from None


def make_secret(file: Path) -> str:
    """Write a new secret to a new file that only its owner may read, and return the secret.

    :raises OSError: if the file exists or cannot be written.
    """
    secret = token_urlsafe(32)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(f"{secret}\n")
    return secret


def is_readable_by_all(file: Path) -> bool:
    """Return True if users other than the owner and the group may read a file."""
    return bool(file.stat().st_mode & stat.S_IROTH)
