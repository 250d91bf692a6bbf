"""Settings of the vendor, each an option ``--queclink-NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from tracker.settings import file, parse_zone, parsed
from tracker.vendors.queclink.passwords import parse_passwords

_SACK: Final[Mapping[str, bool]] = {"always": True, "never": False}


def _sack(text: str) -> bool:
    try:
        return _SACK[text]
    except KeyError:
        raise ValueError(f"must be {' or '.join(_SACK)}, not {text!r}") from None


def _zone(text: str) -> int:
    """Return an offset from UTC in seconds."""
    return parse_zone(text) * 60


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
