"""Settings of the vendor, each an option ``--queclink-NAME``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import frozen

from tracker.settings import file, parsed
from tracker.vendors.queclink.passwords import parse_passwords

_ZONE: Final = re.compile(r"([+-])([0-9]{2}):([0-9]{2})")
#: Most hours between a time zone and UTC.
_MAX_HOURS: Final = 14

_SACK: Final[Mapping[str, bool]] = {"always": True, "never": False}


def _sack(text: str) -> bool:
    try:
        return _SACK[text]
    except KeyError:
        raise ValueError(f"must be {' or '.join(_SACK)}, not {text!r}") from None


def _zone(text: str) -> int:
    """Return an offset from UTC in seconds."""
    found = _ZONE.fullmatch(text)
    if found is None or int(found[2]) > _MAX_HOURS or int(found[3]) > 59:
        raise ValueError(f"must be an offset from UTC such as +02:00, not {text!r}")
    seconds = int(found[2]) * 3600 + int(found[3]) * 60
    return -seconds if found[1] == "-" else seconds


@frozen
class QueclinkSettings:
    """Settings that the protocol leaves to an agreement between the devices and the server."""

    sack: bool = parsed(
        "always",
        _sack,
        "Acknowledge reports (always, or never). A device that waits for no SACK ignores it; one "
        "that waits for it keeps a report until then.",
    )
    zone: int = parsed(
        "+00:00",
        _zone,
        "Time zone of the devices' clocks, for records without a GPS time of their own.",
    )
    password_file: Mapping[str, str] | None = file(
        parse_passwords,
        "File with the passwords for commands: lines of a device ID, or * for all others, and a "
        "password.",
    )
