"""The passwords that devices check in commands, from a file.

Each line is a device ID, or ``*`` for all other devices, and a password. Empty lines, and lines
that begin with ``#``, have no meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tracker.vendors.queclink.ids import checked_device_id

#: Stands for the devices that have no line of their own.
OTHERS: Final = "*"
_PASSWORD: Final = re.compile(r"[!-#%-+\--~]{1,32}")


def parse_passwords(text: str) -> Mapping[str, str]:
    """Return device ID, or :data:`OTHERS`, → password.

    :raises ValueError: for the first invalid line. The message is one line without a password.
    """
    passwords: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise ValueError(f"line {number} must be a device ID, or *, and a password")
        try:
            device_id = OTHERS if words[0] == OTHERS else checked_device_id(words[0])
        except ValueError as error:
            raise ValueError(f"line {number}: the device ID {error}") from None
        if not _PASSWORD.fullmatch(words[1]):
            raise ValueError(
                f"line {number}: the password must be 1 to 32 ASCII characters without , and $"
            )
        if device_id in passwords:
            raise ValueError(f"line {number}: a second password of {device_id}")
        passwords[device_id] = words[1]
    return passwords
