"""Files that hold one secret each."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from secrets import token_urlsafe
from typing import Final

from tracker.bridge.rest import checked_token

#: Bytes of a file of which more cannot be a secret.
_LONGEST: Final = 4096


def read_secret(file: Path) -> str:
    """The secret in a file, without the line's end.

    :raises ValueError: when it holds none; in one line, which does not show it.
    :raises OSError: when it cannot be read.
    """
    with file.open("rb") as opened:
        content = opened.read(_LONGEST + 1)
    try:
        if len(content) > _LONGEST:
            raise ValueError("too long")
        return checked_token(content.decode("ascii").strip())
    except ValueError:
        raise ValueError(f"{file}: must hold one line of printable ASCII without spaces") from None


def make_secret(file: Path) -> str:
    """Write a new secret into a new file that only its owner may read."""
    secret = token_urlsafe(32)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(f"{secret}\n")
    return secret


def is_open_to_all(file: Path) -> bool:
    """Whether others than its owner and its group may read it."""
    return bool(file.stat().st_mode & stat.S_IROTH)
