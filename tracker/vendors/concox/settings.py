"""Settings of the vendor; each is an option ``--concox-…``."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from tracker.settings import parse_zone, parsed

#: Text of the setting for the zone of the login.
FROM_LOGIN: Final = "login"


def read_zone(text: str) -> int | None:
    """Return a time zone in minutes east of UTC; None for that of the login.

    :raises ValueError: if it is neither ``login`` nor a time zone such as ``+08:00``; one line.
    """
    if text == FROM_LOGIN:
        return None
    try:
        return parse_zone(text)
    except ValueError as error:
        raise ValueError(f"{error}; or {FROM_LOGIN}") from None


@frozen
class ConcoxSettings:
    """Settings for the devices of a port."""

    zone: int | None = parsed(
        FROM_LOGIN,
        read_zone,
        "Time zone in which devices write the dates of the old frames 0x10, 0x12, 0x16, 0x18 and "
        "0x24: one such as +08:00, or login for the zone that the device gives at its login, and "
        "UTC if it gives none. Newer frames are in UTC.",
    )
    """Minutes east of UTC; None for the zone of the login."""
