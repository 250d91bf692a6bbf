"""Settings of the vendor; each is an option ``--concox-…``."""

from __future__ import annotations

import re
from typing import Any, Final

from attrs import Attribute, field, frozen

#: Maximum distance of a zone from UTC in minutes.
MAX_ZONE: Final = 14 * 60
#: Text of the setting for the zone of the login.
FROM_LOGIN: Final = "login"

_ZONE: Final = re.compile(r"([+-])(\d\d):(\d\d)", re.ASCII)


def read_zone(text: str) -> int | None:
    """Return a time zone in minutes east of UTC; None for that of the login.

    :raises ValueError: if it is neither ``login`` nor of the form ``+08:00``; one line.
    """
    if text == FROM_LOGIN:
        return None
    match = _ZONE.fullmatch(text)
    if match is None:
        raise ValueError(f"must be {FROM_LOGIN}, or a time zone such as +08:00, not {text!r}")
    sign, hours, minutes = match.groups()
    if int(minutes) > 59:
        raise ValueError(f"must have minutes of 00 to 59, not {text!r}")
    east = int(hours) * 60 + int(minutes)
    return -east if sign == "-" else east


def _check(instance: Any, attribute: Attribute[Any], value: int | None) -> None:
    if value is not None and not -MAX_ZONE <= value <= MAX_ZONE:
        raise ValueError("must be between -14:00 and +14:00")


@frozen
class ConcoxSettings:
    """Settings for the devices of a port."""

    zone: int | None = field(
        default=None,
        validator=_check,
        metadata={
            "help": "Time zone in which devices write the dates of the old frames 0x10, 0x12, "
            "0x16, 0x18 and 0x24: one such as +08:00, or login for the zone that the device gives "
            "at its login, and UTC if it gives none. Newer frames are in UTC.",
            "read": read_zone,
            "shown": FROM_LOGIN,
        },
    )
    """Minutes east of UTC; None for the zone of the login."""
