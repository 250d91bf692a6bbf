"""Names of the fields of a report before and after its position groups, and of messages.

A layout is a tuple of names, one a field. It is that of a report if all fields have the form of
their names; fields of reports without such a layout stay as text.

Sources: the manufacturer's @Track documents (GL200, GL300 1.02, GV200, GV300 2.40, GV500,
GMT100), and captured reports where these differ by model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tracker.position import iso_milliseconds
from tracker.vendors.queclink.groups import milliseconds
from tracker.vendors.queclink.models import VIN_TYPES, device_type
from tracker.vendors.queclink.text import ACKNOWLEDGEMENT, TextFrame

#: Attribute with the UTC time of the last fix, of a record without a fix.
LAST_FIX: Final = "last_fix"
#: Number of positions that a report announces.
NUMBER: Final = "number"

#: Report → what happened, for people and queries.
EVENT_NAMES: Final[Mapping[str, str]] = {
    "GTFRI": "periodic",
    "GTERI": "periodic",
    "GTRTL": "requested",
    "GTSOS": "sos",
    "GTDOG": "watchdog",
    "GTIGL": "ignition",
    "GTNMR": "movement",
    "GTDIS": "digital_input",
    "GTIOB": "bound_inputs",
    "GTGEO": "geofence",
    "GTSPD": "speed",
    "GTPNL": "first_position",
    "GTTOW": "tow",
    "GTHBM": "harsh_behaviour",
    "GTLBC": "call",
    "GTIGN": "ignition_on",
    "GTIGF": "ignition_off",
    "GTVGN": "virtual_ignition_on",
    "GTVGF": "virtual_ignition_off",
    "GTSTT": "state",
    "GTIDN": "idling_started",
    "GTIDF": "idling_ended",
    "GTSTC": "charging_stopped",
    "GTBTC": "charging_started",
    "GTMPN": "main_power_connected",
    "GTMPF": "main_power_removed",
    "GTEPN": "external_power_connected",
    "GTEPF": "external_power_removed",
    "GTBPL": "battery_low",
    "GTPNA": "power_on",
    "GTPFA": "power_off",
    "GTJDR": "jamming",
    "GTJDS": "jamming_state",
    "GTANT": "gps_antenna",
    "GTTMP": "temperature",
    "GTTEM": "temperature",
    "GTLSW": "light_switch",
    "GTTSW": "tamper_switch",
    "GTIDA": "driver_id",
    "GTBAA": "accessory_alarm",
    "GTBID": "beacon",
    "GTDAT": "data",
    "GTDTT": "data",
    "GTCAN": "can_bus",
    "GTOBD": "obd",
    "GTGSM": "cells",
    "GTCID": "cells",
    "GTLBS": "cells",
    "GTWIF": "wifi",
    "GTINF": "device_information",
    "GTVER": "version",
    "GTCSQ": "signal_quality",
    "GTBAT": "battery",
    "GTTMZ": "time_zone",
    "GTGPS": "gps",
    "GTUPD": "update",
    "GTUPC": "update",
}

#: State byte → ignition and movement, where it says so.
_STATES: Final[Mapping[str, tuple[bool | None, bool]]] = {
    "11": (False, False),
    "12": (False, True),
    "16": (False, True),  # being towed
    "1A": (False, True),  # perhaps being towed
    "21": (True, False),
    "22": (True, True),
    "41": (None, False),
    "42": (None, True),
}

_Layout = tuple[str, ...]
_NOTHING: Final[_Layout] = ()

#: Layouts of the fields before the position groups that many reports share.
_GL_EVENT: Final[_Layout] = ("report_id", "report_type", NUMBER)
_GV_EVENT: Final[_Layout] = ("external_power", "id_and_type", NUMBER)
_EVENT: Final = (_GL_EVENT, _GV_EVENT)

#: Layouts before the position groups.
_BEFORE: Final[Mapping[str, Sequence[_Layout]]] = {
    **dict.fromkeys(("GTFRI", "GTRTL", "GTSOS", "GTDOG", "GTIGL", "GTNMR", "GTDIS"), _EVENT),
    **dict.fromkeys(("GTIOB", "GTGEO", "GTSPD", "GTPNL", "GTTOW", "GTHBM"), _EVENT),
    "GTERI": tuple(("eri_mask", *layout) for layout in _EVENT),
    "GTLBC": (("phone",),),
    **dict.fromkeys(("GTIGN", "GTIGF"), (("duration",), ("", "report_type", "duration"))),
    **dict.fromkeys(("GTVGN", "GTVGF"), (("duration",), ("", "report_type", "duration"))),
    "GTSTT": (("state",),),
    "GTIDN": (_NOTHING, ("", "")),
    "GTIDF": (("state", "duration"),),
    **dict.fromkeys(("GTSTC", "GTBTC", "GTMPN", "GTMPF", "GTEPN", "GTEPF"), (_NOTHING, ("",))),
    "GTBPL": (("battery_voltage",),),
    "GTJDR": (_NOTHING,),
    "GTJDS": (("jamming_state",),),
    "GTTEM": (("report_type", "temperature"),),
    **dict.fromkeys(("GTLSW", "GTTSW"), (("report_type", "switch_state"),)),
    "GTIDA": (("", "driver_id", "report_type", NUMBER),),
}

_LAST: Final[_Layout] = ("mileage_or_battery",)
_DURATIONS: Final = (("hour_meter", "mileage"), ("hour_meter", "mileage", "local_time"))
_VEHICLE: Final[_Layout] = ("battery", "device_status")

#: Layouts after the position groups; the layouts of vehicles are in :func:`_vehicle`.
_AFTER: Final[Mapping[str, Sequence[_Layout]]] = {
    **dict.fromkeys(("GTIGN", "GTIGF", "GTVGN", "GTVGF"), _DURATIONS),
    "GTIDA": (("mileage", "", "", "", ""),),
}
_AFTER_EVENT: Final = (_LAST, (*_LAST, "local_time"))

#: Layouts of messages.
_MESSAGES: Final[Mapping[str, _Layout]] = {
    "GTVER": ("device_type", "firmware_version", "hardware_version"),
    "GTCSQ": ("csq_rssi", "csq_ber"),
    "GTTMZ": ("time_zone", "daylight_saving"),
}

#: Reports of devices in vehicles, and of others, begin alike. The sixth field tells them apart.
_INFORMATION: Final[_Layout] = (
    *("state", "iccid", "csq_rssi", "csq_ber", "external_supply", "mileage_or_power", ""),
    *("battery_voltage", "charging", "led"),
)
_LAST_FIX_AT: Final = (12, 13)
_INPUTS: Final[_Layout] = ("inputs", "outputs", "time_zone", "daylight_saving")

_Convert = Callable[[str], Any]


def _matching(pattern: str, convert: _Convert) -> _Convert:
    """Return a converter of texts of a form, which returns None for any other text."""
    form = re.compile(pattern)
    return lambda text: convert(text) if form.fullmatch(text) else None


def _hex(text: str) -> int:
    return int(text, 16)


_INTEGER: Final = _matching(r"-?[0-9]{1,9}", int)
_DECIMAL: Final = _matching(r"-?[0-9]{1,9}\.[0-9]{1,6}", float)
_NUMERIC: Final = _matching(r"-?[0-9]{1,9}(?:\.[0-9]{1,6})?", float)
_DIGIT: Final = _matching(r"[0-9A-Fa-f]", _hex)
_BYTE: Final = _matching(r"[0-9A-Fa-f]{2}", _hex)
_FLAG: Final = _matching(r"[0-9]", int)
_TEXT: Final = _matching(r".{1,64}", str)

#: Name of a field → converter of a text that is not empty; None if the text has another form.
_CONVERTERS: Final[Mapping[str, _Convert]] = {
    NUMBER: _matching(r"[0-9]{1,2}", int),
    "eri_mask": _matching(r"[0-9A-Fa-f]{8}", str),
    "report_id": _matching(r"[0-9A-Fa-f]{1,2}", _hex),
    "report_type": _DIGIT,
    "external_power": _matching(r"[0-9]{1,6}", int),
    "duration": _INTEGER,
    "phone": _TEXT,
    "driver_id": _TEXT,
    "battery": _matching(r"[0-9]{1,3}", int),
    "battery_voltage": _NUMERIC,
    "mileage": _DECIMAL,
    "hour_meter": _matching(r"[0-9]{1,7}:[0-9]{2}:[0-9]{2}", str),
    "jamming_state": _FLAG,
    "switch_state": _FLAG,
    "temperature": _NUMERIC,
    "local_time": _matching(r"[0-9]{14}", str),
    "rpm": _INTEGER,
    "fuel_consumption": _matching(r"[0-9.]{1,9}|[Ii]nf|[Nn]a[Nn]", str),
    "fuel_level": _INTEGER,
    "inputs": _BYTE,
    "outputs": _BYTE,
    "iccid": _matching(r"[0-9A-Fa-f]{10,22}", str),
    "csq_rssi": _INTEGER,
    "csq_ber": _INTEGER,
    "external_supply": _FLAG,
    "charging": _FLAG,
    "led": _FLAG,
    "device_type": _TEXT,
    "firmware_version": _matching(r"[0-9A-Fa-f]{4}", str),
    "hardware_version": _matching(r"[0-9A-Fa-f]{4}", str),
    "time_zone": _matching(r"[+-][0-9]{4}", str),
    "daylight_saving": _FLAG,
    "uart_device": _FLAG,
    "fuel_sensor": _matching(r"[0-9A-Fa-f]{1,8}", _hex),
}


def before_groups(report: str, fields: Sequence[str]) -> dict[str, Any] | None:
    """Return the attributes of the fields before the position groups.

    :return: None if the report has no layout with these fields.
    """
    return first_match(_BEFORE.get(report, ()), fields)


def after_groups(frame: TextFrame, fields: Sequence[str]) -> dict[str, Any] | None:
    """Return the attributes of the fields after the position groups.

    :return: None if the report has no layout with these fields.
    """
    if not fields:
        return {}
    layouts = _AFTER.get(frame.report)
    if layouts is None:
        layouts = _AFTER_EVENT if frame.report in _BEFORE else ()
        if frame.report == "GTFRI" and len(fields) > 2:
            layouts = _vehicle(frame.version, len(fields))
    return first_match(layouts, fields)


def group_index(report: str, body: Sequence[str]) -> int | None:
    """Return the index at which the position group of a report stands if it has no place.

    :return: None if the report has no layout with these fields.
    """
    for layout in _BEFORE.get(report, ()):
        fields = body[: len(layout)]
        if len(fields) == len(layout) and _match(layout, fields) is not None:
            return len(layout)
    return None


def message_attributes(frame: TextFrame) -> dict[str, Any]:
    """Return the attributes of a frame without a position, as far as its fields have names."""
    if frame.header == ACKNOWLEDGEMENT:
        return {"serial": frame.body[-1]} if frame.body else {}
    if frame.report == "GTINF":
        return _information(frame.body)
    return first_match((_MESSAGES.get(frame.report, ()),), frame.body) or {}


def first_match(layouts: Iterable[_Layout], fields: Sequence[str]) -> dict[str, Any] | None:
    """Return the attributes by the first layout that has the form of the fields."""
    for layout in layouts:
        if len(layout) == len(fields):
            attributes = _match(layout, fields)
            if attributes is not None:
                return attributes
    return None


def _match(layout: _Layout, fields: Sequence[str]) -> dict[str, Any] | None:
    attributes: dict[str, Any] = {}
    for name, text in zip(layout, fields, strict=True):
        if not text:
            continue
        if not name:
            return None  # a value in a field that the documents call reserved
        found = named_field(name, text)
        if found is None:
            return None
        attributes.update(found)
    return attributes


def named_field(name: str, text: str) -> dict[str, Any] | None:
    """Return the attributes of a field; None if it does not have the form of its name."""
    special = _SPECIAL.get(name)
    if special is not None:
        return special(text)
    value = _CONVERTERS[name](text)
    return None if value is None else {name: value}


def _id_and_type(text: str) -> dict[str, Any] | None:
    if _BYTE(text) is None:
        return None
    return {"report_id": int(text[0], 16), "report_type": int(text[1], 16)}


def _mileage_or_battery(text: str) -> dict[str, Any] | None:
    return named_field("mileage" if "." in text else "battery", text)


def _mileage_or_power(text: str) -> dict[str, Any] | None:
    return named_field("mileage" if "." in text else "external_power", text)


def _state(text: str) -> dict[str, Any] | None:
    if _BYTE(text) is None:
        return None
    attributes: dict[str, Any] = {"state": text.upper()}
    ignition, moving = _STATES.get(text.upper(), (None, None))
    if ignition is not None:
        attributes["ignition"] = ignition
    if moving is not None:
        attributes["moving"] = moving
    return attributes


def _device_status(text: str) -> dict[str, Any] | None:
    """Return state, inputs and outputs; longer statuses have wider inputs and outputs."""
    if not _STATUS.fullmatch(text):
        return None
    attributes = {"device_status": text.upper(), **(_state(text[:2]) or {})}
    if len(text) == 6:
        attributes |= {"inputs": int(text[2:4], 16), "outputs": int(text[4:], 16)}
    return attributes


#: The state alone, or with inputs and outputs.
_STATUS: Final = re.compile(r"[0-9A-Fa-f]{2}|[0-9A-Fa-f]{6}|[0-9A-Fa-f]{10}")


def analog(number: int) -> str:
    """Return the name of an analog input."""
    return f"analog_{number}"


def _analog(number: int) -> _Convert:
    def convert(text: str) -> dict[str, Any] | None:
        if text.startswith("F"):  # per cent of a fuel sensor
            level = _INTEGER(text[1:])
            return None if level is None else {f"fuel_level_{number}": level}
        value = _INTEGER(text)
        return None if value is None else {analog(number): value}

    return convert


_SPECIAL: Final[Mapping[str, Callable[[str], dict[str, Any] | None]]] = {
    "id_and_type": _id_and_type,
    "mileage_or_battery": _mileage_or_battery,
    "mileage_or_power": _mileage_or_power,
    "state": _state,
    "device_status": _device_status,
    **{analog(number): _analog(number) for number in (1, 2, 3)},
}


def _vehicle(version: str, size: int) -> tuple[_Layout, ...]:
    """Return the layout after the positions of GTFRI from a vehicle; inputs differ by model."""
    inputs = size - 7
    if not 1 <= inputs <= 3:
        return ()
    on_bus = device_type(version) in VIN_TYPES
    last = ("rpm", "fuel_consumption", "fuel_level") if on_bus else ("", "", "")
    analogs = (analog(number) for number in range(1, inputs + 1))
    return (("mileage", "hour_meter", *analogs, *_VEHICLE, *last),)


def _information(fields: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of GTINF, whose end differs by model."""
    attributes: dict[str, Any] = {}
    if len(fields) < len(_INFORMATION) or _DECIMAL(fields[7]) is None:
        return attributes
    for name, text in zip(_INFORMATION, fields, strict=False):
        if name and text:
            attributes.update(named_field(name, text) or {})
    for index in _LAST_FIX_AT:
        if len(fields) > index and len(fields[index]) == 14:
            fix_ms = milliseconds(fields[index])
            if fix_ms is not None:
                attributes[LAST_FIX] = iso_milliseconds(fix_ms)
            if index == 13 and "external_power" not in attributes and len(fields) > 14:
                attributes.update(named_field("battery", fields[14]) or {})
            break
    attributes.update(first_match((_INPUTS,), fields[-4:]) or {})
    return attributes
