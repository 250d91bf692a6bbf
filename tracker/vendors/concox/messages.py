"""Readers of heartbeats, cells, access points, texts and information.

Source of each layout: see :mod:`tracker.vendors.concox.content`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from tracker.position import attribute
from tracker.vendors.concox.fields import (
    DATE_BYTES,
    MAX_LEVEL,
    read_imei,
    terminal_attributes,
)
from tracker.vendors.concox.readings import (
    Mismatch,
    Reader,
    Reading,
    check_length,
    keep_trailing,
)

#: Attribute with the server flag of an answer, which is that of the command.
SERVER_FLAG: Final = "server_flag"
#: Encodings of texts in 0x21.
ASCII: Final = 1
UTF_16: Final = 2

_VOLTAGE_HEARTBEAT: Final = struct.Struct(">BHBH")
_FLAG: Final = struct.Struct(">I")
_NEIGHBOURS: Final = 6
_ACCESS_POINT: Final = struct.Struct(">6sB")
_ENCODINGS: Final = {ASCII: "utf-8", UTF_16: "utf-16-be"}


def read_heartbeat(content: bytes) -> Reading:
    """Read 0x13: the state of the device."""
    attributes = terminal_attributes(content[0])
    levels = content[1:3]
    if len(levels) < 2 or max(levels) > MAX_LEVEL:
        keep_trailing(attributes, content, 1)
        return Reading(attributes)
    attributes["voltage_level"], attributes["gsm_signal"] = levels
    if len(content) > 4:
        attributes["alarm"], attributes["language"] = content[3:5]
    keep_trailing(attributes, content, 5 if len(content) > 4 else 3)
    return Reading(attributes)


def read_voltage_heartbeat(content: bytes) -> Reading:
    """Read 0x23: the state of the device, and the external voltage."""
    information, voltage, signal, language = _VOLTAGE_HEARTBEAT.unpack_from(content)
    attributes = terminal_attributes(information)
    attributes |= {
        "external_voltage": voltage / 100,
        "gsm_signal": signal,
        "language": language,
    }
    keep_trailing(attributes, content, _VOLTAGE_HEARTBEAT.size)
    return Reading(attributes)


# Cells and access points.


def _cells(content: bytes, lac_bytes: int, id_bytes: int) -> tuple[dict[str, Any], int]:
    """Read date, MCC, MNC, the serving cell and six neighbours; return the offset after them."""
    mnc_bytes = 2 if content[DATE_BYTES] & 0x80 else 1
    offset = DATE_BYTES + 2
    attributes: dict[str, Any] = {
        "mcc": int.from_bytes(content[DATE_BYTES:offset], "big") & 0x7FFF,
        "mnc": int.from_bytes(content[offset : offset + mnc_bytes], "big"),
    }
    offset += mnc_bytes
    found = []
    for _ in range(1 + _NEIGHBOURS):
        end = offset + lac_bytes + id_bytes
        lac = int.from_bytes(content[offset : offset + lac_bytes], "big")
        cell_id = int.from_bytes(content[offset + lac_bytes : end], "big")
        found.append({"lac": lac, "cell_id": attribute(cell_id), "rssi": content[end]})
        offset = end + 1
    attributes |= found[0]
    attributes["neighbours"] = [cell for cell in found[1:] if cell["lac"] or cell["cell_id"]]
    return attributes, offset


def read_cells(lac_bytes: int, id_bytes: int) -> Reader:
    """Return the reader of 0x28 and its relatives: seven cells.

    :param lac_bytes: size of a LAC.
    :param id_bytes: size of a cell ID.
    """

    def read(content: bytes) -> Reading:
        attributes, end = _cells(content, lac_bytes, id_bytes)
        check_length(content, end + 3)
        attributes["timing_advance"] = content[end]
        attributes["language"] = int.from_bytes(content[end + 1 :], "big")
        return Reading(attributes, date=content[:DATE_BYTES])

    return read


def read_access_points(content: bytes) -> Reading:
    """Read 0x2C: seven cells, and access points of Wi-Fi."""
    attributes, end = _cells(content, 2, 3)
    attributes["timing_advance"], count = content[end], content[end + 1]
    start = end + 2
    check_length(content, start + count * _ACCESS_POINT.size)
    attributes["access_points"] = [
        {"mac": mac.hex(":"), "rssi": rssi}
        for mac, rssi in _ACCESS_POINT.iter_unpack(content[start:])
    ]
    return Reading(attributes, date=content[:DATE_BYTES])


# Texts, data and information.


def read_string(content: bytes) -> Reading:
    """Read 0x15: a server flag and a text, in short frames."""
    length = content[0]
    (flag,) = _FLAG.unpack_from(content, 1)
    end = 1 + length
    if length < _FLAG.size or end > len(content):
        raise Mismatch
    attributes: dict[str, Any] = {SERVER_FLAG: flag}
    rest = len(content) - end
    if rest == 2:
        attributes["language"] = int.from_bytes(content[end:], "big")
    else:
        keep_trailing(attributes, content, end)
    data = content[1 + _FLAG.size : end].rstrip(b"\0")
    return Reading(attributes, text=_text(data, "utf-8"), data=data)


def read_long_string(content: bytes) -> Reading:
    """Read 0x21: a server flag, the encoding of a text, and the text."""
    (flag,) = _FLAG.unpack_from(content)
    encoding, data = content[_FLAG.size], content[_FLAG.size + 1 :]
    text = _text(data, _ENCODINGS[encoding]) if encoding in _ENCODINGS else None
    return Reading({SERVER_FLAG: flag, "encoding": encoding}, text=text, data=data)


def read_transparent(content: bytes) -> Reading:
    """Read 0x9B: data of a device at the serial port."""
    data = content[1:]
    return Reading({"transparent_type": content[0]}, text=_text(data, "utf-8"), data=data)


def read_short_information(content: bytes) -> Reading:
    """Read 0x94 in a short frame, as some makers send it: a voltage."""
    check_length(content, 2)
    return Reading({"external_voltage": int.from_bytes(content, "big") / 100})


def read_information(content: bytes) -> Reading:
    """Read 0x94: the type of the information, and its content."""
    kind, data = content[0], content[1:]
    attributes: dict[str, Any] = {"information": kind}
    if kind in _TEXTS:
        return Reading(attributes, text=_text(data, "utf-8"), data=data)
    if reader := _INFORMATION.get(kind):
        with suppress(struct.error, IndexError, Mismatch):  # its bytes are kept
            attributes |= reader(data)
    if kind == 0x05 and len(data) == DATE_BYTES + 1:
        return Reading(attributes, data=data, date=data[:DATE_BYTES])
    return Reading(attributes, data=data)


def _voltage(data: bytes) -> dict[str, Any]:
    check_length(data, 2)
    return {"external_voltage": int.from_bytes(data, "big") / 100}


def _door(data: bytes) -> dict[str, Any]:
    if len(data) not in (1, DATE_BYTES + 1):
        raise Mismatch
    state = data[-1]
    return {"door_open": state & 1, "door_trigger": state >> 1 & 1, "input_level": state >> 2 & 1}


def _identities(data: bytes) -> dict[str, Any]:
    check_length(data, 26)
    imei, imsi, iccid = read_imei(data), data[8:16].hex(), data[16:].hex().rstrip("f")
    if imei is None or not (imsi.isdigit() and iccid.isdigit()):
        raise Mismatch
    # An IMSI has at most 15 digits (ITU-T E.212), so the first of 16 is padding.
    return {"imei": imei, "imsi": imsi.removeprefix("0"), "iccid": iccid}


def _climate(data: bytes) -> dict[str, Any]:
    temperature, humidity = struct.unpack(">ii", data)
    return {"temperature": temperature / 10, "humidity": humidity / 10}


#: Sub-types of information that are texts: state, self-check, fuel sensor.
_TEXTS: Final = frozenset((0x04, 0x08, 0x0D))
_INFORMATION: Final[Mapping[int, Callable[[bytes], dict[str, Any]]]] = {
    0x00: _voltage,
    0x05: _door,
    0x0A: _identities,
    0x1E: _climate,
}


def _text(data: bytes, encoding: str) -> str | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    shown = text.replace("\r", "").replace("\n", "").replace("\t", "")
    return text if shown.isprintable() else None
