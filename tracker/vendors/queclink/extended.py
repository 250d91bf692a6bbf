"""The fields of GTERI after its positions: those of a vehicle, then what its mask selects.

Sources: the manufacturer's @Track documents (GV200, GV300); captured reports of other models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from tracker.vendors.queclink.layouts import analog, first_match, named_field
from tracker.vendors.queclink.models import (
    ASSET_TYPES,
    SIGNAL_TYPES,
    SPLIT_STATUS_TYPES,
    device_type,
)

#: Bits of the mask.
_FUEL_SENSOR: Final = 0
_ONE_WIRE: Final = 1
_CAN: Final = 2
_FUEL_PERCENT: Final = 3
_FUEL_VOLUME: Final = 4
_RF433: Final = 7
_BLE: Final = 8
_FUEL_TEMPERATURE: Final = 10

#: Types whose parts differ from the documents.
_OTHER_FUEL_TYPES: Final = frozenset(("F1",))
_OTHER_BLE_TYPES: Final = frozenset(("C2", "DC", "C3"))

#: Type of a 1-wire sensor that measures the temperature, and the value of one step in °C.
_THERMOMETER: Final = "1"
_STEP: Final = 0.0625
#: Bits of the append mask of a BLE accessory → name; without a name, the field stays as text.
_ACCESSORY: Final = {
    0: "name",
    1: "mac",
    2: "status",
    3: "battery_mv",
    4: "temperature",
    5: "humidity",
    7: "",
    8: "",
    9: "",
    10: "",
    11: "temperature",
    12: "",
    13: "battery",
    14: "",
}

_WORD: Final = re.compile(r"[0-9A-Fa-f]{4}")
_SMALL: Final = re.compile(r"[0-9]{1,2}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,4})?")
_STATUS: Final = re.compile(r"[0-9A-Fa-f]{6}(?:[0-9A-Fa-f]{4})?")


class _Stop(Exception):
    """The next field does not have the form that the mask announces."""


class _Reader:
    """Takes the fields of a report one by one."""

    def __init__(self, fields: Sequence[str], at: int) -> None:
        self._fields = fields
        self.at = at
        self.is_complete = True

    def take(self) -> str:
        """Return the next field."""
        if self.at >= len(self._fields):
            raise _Stop
        self.at += 1
        return self._fields[self.at - 1]

    def count(self) -> int:
        """Return the next field, the number of parts that follow."""
        text = self.take()
        if not _SMALL.fullmatch(text):
            self.at -= 1
            raise _Stop
        return int(text)

    @property
    def rest(self) -> Sequence[str]:
        """The fields that were not taken."""
        return self._fields[self.at :]


def extended_attributes(
    version: str, mask_text: str, fields: Sequence[str]
) -> tuple[dict[str, Any], bool]:
    """Return the attributes of the fields after the positions of GTERI.

    :param mask_text: 8 hex digits; empty if the report has none.
    :return: the attributes, and False if a field has no name.
    """
    kind = device_type(version)
    size, attributes = _base(kind, fields)
    if attributes is None:
        return {}, not any(fields)
    reader = _Reader(fields, size)
    try:
        _read_parts(reader, kind, int(mask_text or "0", 16), attributes)
    except _Stop:
        return attributes, False
    return attributes, reader.is_complete and not any(reader.rest)


def _base(kind: str, fields: Sequence[str]) -> tuple[int, dict[str, Any] | None]:
    """Return the number of fields before the selected parts, and their attributes."""
    if kind in SPLIT_STATUS_TYPES:
        analogs = tuple(analog(number) for number in (1, 2, 3))
        layout = ("mileage", "hour_meter", *analogs, "inputs", "outputs", "uart_device")
        return len(layout), first_match((layout,), fields[: len(layout)])
    if kind in ASSET_TYPES:
        # Mode and motion of GL5xx follow, whose values the documents do not give.
        size = 3 if kind in SIGNAL_TYPES else 1
        return 1 if size > 1 and any(fields[1:size]) else size, first_match(
            (("battery",),), fields[:1]
        )
    for inputs in (1, 2, 3):
        at = 2 + inputs  # of the battery
        if len(fields) > at + 1 and _STATUS.fullmatch(fields[at + 1]):
            analogs = tuple(analog(number) for number in range(1, inputs + 1))
            layout = ("mileage", "hour_meter", *analogs, "battery", "device_status", "uart_device")
            layout = layout[: len(fields)]  # early firmware ends with the status
            return len(layout), first_match((layout,), fields[: len(layout)])
    return 0, None


def _read_parts(reader: _Reader, kind: str, mask: int, attributes: dict[str, Any]) -> None:
    if kind in _OTHER_FUEL_TYPES and mask & ~(1 << _ONE_WIRE):
        raise _Stop
    if mask >> _FUEL_SENSOR & 1 and (text := reader.take()):
        attributes.update(named_field("fuel_sensor", text) or {})
    if mask >> _ONE_WIRE & 1:
        _read_one_wire(reader, attributes)
    if mask >> _CAN & 1:
        raise _Stop  # its fields depend on a mask of their own, and on the model
    if mask >> _FUEL_PERCENT & 1 or mask >> _FUEL_VOLUME & 1:
        _read_fuel(reader, mask, attributes)
    if mask >> _RF433 & 1:
        raise _Stop
    if mask >> _BLE & 1:
        if kind in _OTHER_BLE_TYPES:
            raise _Stop
        _read_accessories(reader, attributes)


def _read_one_wire(reader: _Reader, attributes: dict[str, Any]) -> None:
    for number in range(1, reader.count() + 1):
        sensor, kind, value = reader.take(), reader.take(), reader.take()
        attributes[f"one_wire_{number}_id"] = sensor
        if kind == _THERMOMETER and _WORD.fullmatch(value):
            raw = int(value, 16)
            attributes[f"one_wire_{number}_temperature"] = _STEP * (
                raw - 0x10000 if raw & 0x8000 else raw
            )
        elif value:
            reader.is_complete = False


def _read_fuel(reader: _Reader, mask: int, attributes: dict[str, Any]) -> None:
    for number in range(1, reader.count() + 1):
        reader.take()  # type of the sensor
        for bit, name in (
            (_FUEL_PERCENT, "fuel_percent"),
            (_FUEL_VOLUME, "fuel_volume"),
            (_FUEL_TEMPERATURE, "fuel_temperature"),
        ):
            if mask >> bit & 1:
                _set_number(attributes, f"{name}_{number}", reader.take())


def _read_accessories(reader: _Reader, attributes: dict[str, Any]) -> None:
    for number in range(1, reader.count() + 1):
        for _ in range(4):  # index, type, model, raw data
            if reader.take():
                reader.is_complete = False
        mask_text = reader.take()
        if not _WORD.fullmatch(mask_text):
            raise _Stop
        mask = int(mask_text, 16)
        if mask & ~sum(1 << bit for bit in _ACCESSORY):
            raise _Stop
        for bit, name in _ACCESSORY.items():
            if not mask >> bit & 1:
                continue
            text = reader.take()
            if not name:
                reader.is_complete = reader.is_complete and not text
            elif name in ("name", "mac"):
                attributes[f"ble_{number}_{name}"] = text
            else:
                _set_number(attributes, f"ble_{number}_{name}", text)


def _set_number(attributes: dict[str, Any], name: str, text: str) -> None:
    if _NUMBER.fullmatch(text):
        attributes[name] = float(text) if "." in text else int(text)
