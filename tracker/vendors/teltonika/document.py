"""Frames of a device as JSON documents.

Numbers in a document are those of the wire. For the reader, a document also has values that are
derived from them: lengths, checksums, times, degrees, names. These are ignored when a document
is encoded (see :data:`DERIVED`). A document can therefore be edited and encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from tracker.position import MAX_TIMESTAMP_MS, iso_milliseconds
from tracker.vendors.teltonika.avl import CODEC_8_FIVE_GROUPS, Element, Record
from tracker.vendors.teltonika.codec7 import NAME as CODEC_7
from tracker.vendors.teltonika.codec7 import Codec7Packet, Codec7Record
from tracker.vendors.teltonika.content import Content
from tracker.vendors.teltonika.frames import Frame, Login, Ping, TcpFrame
from tracker.vendors.teltonika.messages import Message, Messages
from tracker.vendors.teltonika.naming import Names

#: Fields that are ignored when a document is encoded.
DERIVED: Final = frozenset(
    {
        *("length", "crc", "time", "longitude_degrees", "latitude_degrees"),
        *("name", "unit", "scaled", "error"),
    }
)
#: Field of an element that is ignored, too. That of a message is encoded.
TEXT: Final = "text"
#: Width of an element with a value of variable length.
VARIABLE: Final = "variable"
#: Number of groups of elements in each record, if it is not that of the codec.
GROUPS: Final = "groups"

_DEGREE: Final = 10_000_000


def document(frames: Sequence[Frame], names: Names | None = None) -> Any:
    """Return one frame as an object, several frames as an array.

    :param names: adds to IO elements what :meth:`Names.element` says of them. ``scaled`` is the
        value with its sign and scale; ``text`` is the words for a code, or a value that is text.
    """
    described = [_document(frame, names) for frame in frames]
    return described[0] if len(described) == 1 else described


def _document(frame: Frame, names: Names | None) -> dict[str, Any]:
    if isinstance(frame, Ping):
        return {"kind": "ping", "count": frame.count}
    if isinstance(frame, Login):
        return {"kind": "login", "length": len(frame.imei), "imei": frame.imei}
    if isinstance(frame, TcpFrame):
        return {
            "kind": "frame",
            "length": len(frame.data),
            **_content(frame.content, names),
            "crc": f"{frame.crc:#010x}",
        }
    return {
        "kind": "datagram",
        "length": frame.length,
        "packet_id": frame.datagram.packet_id,
        "unused": frame.datagram.unused,
        "avl_packet_id": frame.datagram.avl_packet_id,
        "imei": frame.datagram.imei,
        **_content(frame.content, names, nested=True),
    }


def _content(content: Content, names: Names | None, nested: bool = False) -> dict[str, Any]:
    if isinstance(content, Messages):
        return _messages(content, nested)
    if isinstance(content, Codec7Packet):
        return {"codec": CODEC_7, "records": [_codec7_record(item) for item in content.records]}
    made: dict[str, Any] = {"codec": content.codec.name}
    if content.codec is CODEC_8_FIVE_GROUPS:
        made[GROUPS] = len(content.codec.element)
    made["records"] = [_record(item, names) for item in content.records]
    return made


def _time(milliseconds: int) -> str | None:
    return iso_milliseconds(milliseconds) if milliseconds <= MAX_TIMESTAMP_MS else None


def _record(record: Record, names: Names | None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "timestamp": record.timestamp,
        "time": _time(record.timestamp),
        "priority": record.priority,
        "longitude": record.longitude,
        "longitude_degrees": record.longitude / _DEGREE,
        "latitude": record.latitude,
        "latitude_degrees": record.latitude / _DEGREE,
        "altitude": record.altitude,
        "angle": record.angle,
        "satellites": record.satellites,
        "speed": record.speed,
        "event": record.event,
    }
    if record.generation is not None:
        made["generation"] = record.generation
    widths = {element_id: width for element_id, width, _ in record.elements}
    made["elements"] = [
        *(_element(element, names, widths) for element in record.elements),
        *(_variable(element_id, value, names, widths) for element_id, value in record.variable),
    ]
    return made


def _element(element: Element, names: Names | None, widths: Mapping[int, int]) -> dict[str, Any]:
    element_id, width, value = element
    shown = value.hex() if isinstance(value, bytes) else value
    made: dict[str, Any] = {"id": element_id, "width": width, "value": shown}
    if names is not None:
        made |= _named(names.element(element_id, width, value, widths), value)
    return made


def _variable(
    element_id: int, value: bytes, names: Names | None, widths: Mapping[int, int]
) -> dict[str, Any]:
    made: dict[str, Any] = {"id": element_id, "width": VARIABLE, "value": value.hex()}
    if names is not None:
        made |= _named(names.element(element_id, 0, value, widths), value)
    return made


def _named(found: tuple[str, dict[str, Any]] | None, value: int | bytes) -> dict[str, Any]:
    if found is None:
        return {}
    name, about = found
    made: dict[str, Any] = {"name": name}
    scaled = about["value"]
    if isinstance(scaled, str):
        made[TEXT] = scaled
    elif isinstance(value, int):
        # In a document, a number of 64 bits is a number.
        made["scaled"] = int(scaled["__bigint"]) if isinstance(scaled, dict) else scaled
    return made | {part: about[part] for part in ("unit", TEXT, "error") if part in about}


def _codec7_record(record: Codec7Record) -> dict[str, Any]:
    made: dict[str, Any] = {"timestamp": record.timestamp, "time": _time(record.timestamp)}
    renamed = {"longitude": "longitude_degrees", "latitude": "latitude_degrees"}
    for name, value in attrs.asdict(record, recurse=False).items():
        if name not in ("timestamp", "elements") and value is not None:
            made[renamed.get(name, name)] = list(value) if isinstance(value, tuple) else value
    # The dictionary does not apply: these trackers have their own numbers for elements.
    made["elements"] = [_element(element, None, {}) for element in record.elements]
    return made


def _messages(content: Messages, nested: bool) -> dict[str, Any]:
    """Return the fields of a frame with messages.

    :param nested: True for a datagram, whose own ``imei`` would be overwritten.
    """
    head = {"codec": content.codec.name, "quantities": list(content.quantities)}
    parts = [_message(message) for message in content.parts]
    return head | parts[0] if len(parts) == 1 and not nested else {**head, "messages": parts}


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"type": message.type}
    if message.milliseconds is not None:
        made["timestamp"] = message.timestamp
        made["time"] = _time(message.milliseconds)
    if message.imei is not None:
        made["imei"] = message.imei
    text = message.text
    if text is None:
        made["hex"] = message.content.hex()
    else:
        made["text"] = text
    return made
