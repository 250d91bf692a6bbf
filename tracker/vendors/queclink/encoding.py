"""Frames of a device in the ASCII encoding, for simulated devices and tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from tracker.vendors.queclink.text import (
    ACKNOWLEDGEMENT,
    BUFFERED,
    HEARTBEAT,
    RESPONSE,
)

#: Protocol version of a GV300.
VERSION: Final = "060100"
#: Maximum number of positions in a GTFRI.
MAX_PLACES: Final = 15

_COMMAND: Final = re.compile(rb"AT\+(GT[A-Z0-9]{3})=([^$]*),([0-9A-Fa-f]{4})\$")
_SACK: Final = re.compile(rb"\+SACK:(?:(GTHBD),[0-9A-Fa-f]*,)?([0-9A-Fa-f]{4})\$")


class Place(NamedTuple):
    """One position of a report."""

    time: float
    """UTC time of the fix in seconds since 1970."""
    longitude: float
    latitude: float
    accuracy: float = 1
    """Dilution of precision; 0 without a fix."""
    speed: float = 0.0
    """km/h."""
    azimuth: int = 0
    altitude: float = 0.0


class Sender(NamedTuple):
    """The device that sends a frame, and what its tail says."""

    device_id: str
    count_number: int
    time: float
    """Send time in seconds since 1970, by the device's clock."""
    version: str = VERSION
    name: str = ""


def encode_report(
    report: str, sender: Sender, body: Sequence[str], header: str = RESPONSE
) -> bytes:
    """Return a frame with any report.

    :param body: the fields between the device's name and the send time.
    """
    head = (f"{header}:{report}", sender.version, sender.device_id, sender.name)
    tail = (_time(sender.time), f"{sender.count_number & 0xFFFF:04X}")
    return (",".join((*head, *body, *tail)) + "$").encode("ascii")


def encode_fri(
    sender: Sender,
    places: Sequence[Place],
    *,
    buffered: bool = False,
    external_power: int = 12_500,
    mileage: float = 0.0,
    battery: int = 100,
    status: str = "220100",
) -> bytes:
    """Return a GTFRI of a vehicle.

    :param places: 1 to :data:`MAX_PLACES` positions, the oldest first.
    :param external_power: mV.
    :param mileage: km.
    :param battery: per cent.
    :param status: state, inputs and outputs, a byte each in hex.
    """
    if not 1 <= len(places) <= MAX_PLACES:
        raise ValueError(f"a GTFRI has 1 to {MAX_PLACES} positions, not {len(places)}")
    groups = [field for place in places for field in _group(place)]
    after = (f"{mileage:.1f}", "", "", "", str(battery), status, "", "", "")
    body = (str(external_power), "10", str(len(places)), *groups, *after)
    return encode_report("GTFRI", sender, body, BUFFERED if buffered else RESPONSE)


def encode_heartbeat(sender: Sender) -> bytes:
    """Return a heartbeat, which the server answers with a SACK."""
    return encode_report(HEARTBEAT, sender, (), ACKNOWLEDGEMENT)


def encode_answer(command: bytes, sender: Sender) -> bytes | None:
    """Return the answer to a command of the server; None if it is malformed."""
    found = _COMMAND.fullmatch(command)
    if found is None:
        return None
    return encode_report(found[1].decode(), sender, (found[3].decode(),), ACKNOWLEDGEMENT)


def decode_sack(frame: bytes) -> tuple[int, bool] | None:
    """Return the count number of a SACK, and True if it answers a heartbeat; None if it is none."""
    found = _SACK.fullmatch(frame)
    return None if found is None else (int(found[2], 16), found[1] is not None)


def _group(place: Place) -> tuple[str, ...]:
    return (
        f"{place.accuracy:g}",
        f"{place.speed:.1f}",
        str(place.azimuth),
        f"{place.altitude:.1f}",
        f"{place.longitude:.6f}",
        f"{place.latitude:.6f}",
        _time(place.time),
        *("", "", "", "", "00"),
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y%m%d%H%M%S")
