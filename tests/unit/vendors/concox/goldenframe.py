"""A frame with what it contains, and parts of that."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

IMEI = "123456789012345"


@frozen
class Golden:
    """A frame of a device, its number and its serial."""

    name: str
    hex: str
    number: int
    serial: int
    payload: dict[str, Any] = field(factory=dict)
    """Fields of the payload of its entry; empty for a frame without an entry."""
    attributes: dict[str, Any] = field(factory=dict)
    """All attributes of the entry, but for number and message."""
    extra: dict[str, Any] = field(factory=dict)
    answer: str = ""
    """The server's answer."""
    message: Any = None
    """The attribute ``message``."""

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.hex)


def base64(text: str) -> dict[str, str]:
    return {"__buffer_b64": text}


def place(
    time: str,
    latitude: float,
    longitude: float,
    *,
    speed: int = 0,
    course: int,
    satellites: int,
    event: int = 0,
) -> dict[str, Any]:
    return {
        "timestamp": time,
        "latitude": latitude,
        "longitude": longitude,
        "speed": speed,
        "angle": course,
        "satellites": satellites,
        "event": event,
    }


def cell(mcc: int, mnc: int, lac: int, cell_id: int) -> dict[str, int]:
    return {"mcc": mcc, "mnc": mnc, "lac": lac, "cell_id": cell_id}


def state(byte: int, voltage: int, signal: int, alarm: int, language: int) -> dict[str, int]:
    return information(byte) | {
        "voltage_level": voltage,
        "gsm_signal": signal,
        "alarm": alarm,
        "language": language,
    }


def information(byte: int) -> dict[str, int]:
    bits = f"{byte:08b}"
    return {
        "oil_cut": int(bits[0]),
        "gps_on": int(bits[1]),
        "alarm_state": int(bits[2:5], 2),
        "charging": int(bits[5]),
        "acc": int(bits[6]),
        "armed": int(bits[7]),
    }
