"""Conversion of decoded data to positions and stream entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from tracker.extra import record_extra
from tracker.limits import MESSAGE_BYTES
from tracker.position import (
    MAX_TIMESTAMP_MS,
    MESSAGE,
    Entry,
    Position,
    attribute,
    iso_milliseconds,
    truncation,
)
from tracker.vendors.teltonika import codec7
from tracker.vendors.teltonika.avl import Element, Packet, Record
from tracker.vendors.teltonika.codec7 import Codec7Packet, Codec7Record
from tracker.vendors.teltonika.content import Content
from tracker.vendors.teltonika.messages import Message, beginning

#: Attribute with the timestamp of a record whose year exceeds 9999.
RAW_TIMESTAMP: Final = "timestamp_ms"
#: Attribute with the type of a message.
MESSAGE_TYPE: Final = "message_type"
#: Attribute with the number of a message in its frame, if the frame has several. It keeps equal
#: messages of one frame apart.
MESSAGE_PART: Final = "message_part"

#: Notice about a record in which an IO ID occurs more than once.
REPEATED_ID: Final = "IO ID occurs more than once in a record: the last value is kept"

_DEGREE: Final = 10_000_000
#: The width of an element, and of an item of a mapping from ID to width.
_WIDTH: Final = itemgetter(1)


def entries(
    device_id: str,
    content: Content,
    now: float,
    on_repeated_id: Callable[[], None],
    *,
    message_bytes: int = MESSAGE_BYTES,
) -> list[Entry]:
    """Return the stream entries of a frame or datagram, in the order of the wire.

    Each record and each message is one entry.

    :param now: seconds since 1970 (UTC), for a message without a time.
    :param on_repeated_id: called for each record in which an IO ID occurs more than once; the
        last value is kept.
    :param message_bytes: see :func:`message_position`.
    """
    if isinstance(content, Packet):
        made = []
        for record in content.records:
            one = position(device_id, record)
            count = len(record.elements) + len(record.variable)
            is_repeated = len(one.attributes) - (record.timestamp > MAX_TIMESTAMP_MS) < count
            if is_repeated:
                on_repeated_id()
            widths = _widths(one, record.elements, record.variable, is_repeated)
            made.append(_entry(one, content.codec.name, widths))
        return made
    if isinstance(content, Codec7Packet):
        made = []
        for old in content.records:
            is_repeated = len({element[0] for element in old.elements}) < len(old.elements)
            if is_repeated:
                on_repeated_id()
            one = codec7_position(device_id, old)
            made.append(_entry(one, codec7.NAME, _widths(one, old.elements, (), is_repeated)))
        return made
    several = len(content.parts) > 1
    return [
        message_position(
            device_id, message, now, message_bytes, number=number if several else None
        ).to_entry(content.codec.name)
        for number, message in enumerate(content.parts, 1)
    ]


def _widths(
    made: Position,
    elements: Sequence[Element],
    variable: Sequence[tuple[int, bytes]],
    is_repeated: bool,
) -> Iterable[tuple[int | str, int]]:
    """Return the widths of the elements of a record, for :func:`~tracker.extra.record_extra`.

    :param is_repeated: True if an IO ID occurs more than once.
    """
    if not is_repeated:
        # The attributes begin with these elements, and have their IDs as text already.
        return zip(made.attributes, map(_WIDTH, elements), strict=False)
    # As for attributes, the last one of a repeated id is kept.
    widths = {element_id: width for element_id, width, _ in elements}
    for element_id, _ in variable:
        widths.pop(element_id, None)
    return sorted(widths.items(), key=_WIDTH)


def _entry(made: Position, codec: str, widths: Iterable[tuple[int | str, int]]) -> Entry:
    """Return the entry of a record whose elements have these widths."""
    fix = None if made.has_fix() else made.has_fix(made.satellites is None)
    return made.to_entry(codec, record_extra(widths, fix))


def position(device_id: str, record: Record) -> Position:
    """Return a record as a position.

    A year above 9999 cannot be written in four digits. The record is not refused, because the
    device would repeat it forever: it gets the last possible time, and the original number is
    kept as an attribute.
    """
    attributes: dict[str, Any] = {}
    for element_id, _, value in record.elements:
        attributes[str(element_id)] = attribute(value)
    for element_id, content in record.variable:
        attributes[str(element_id)] = attribute(content)
    if record.timestamp > MAX_TIMESTAMP_MS:
        attributes[RAW_TIMESTAMP] = attribute(record.timestamp)
    return Position(
        device_id=device_id,
        timestamp=iso_milliseconds(min(record.timestamp, MAX_TIMESTAMP_MS)),
        latitude=record.latitude / _DEGREE,
        longitude=record.longitude / _DEGREE,
        altitude=record.altitude,
        angle=record.angle,
        speed=record.speed,
        satellites=record.satellites,
        priority=record.priority,
        event=record.event,
        attributes=attributes,
        generation_type=record.generation,
    )


def codec7_position(device_id: str, record: Codec7Record) -> Position:
    """Return a record of Codec 7 as a position; None stands for a missing field.

    The codec has no events. The network fields of its GPS element, which other codecs have in IO
    elements, become named attributes.
    """
    attributes: dict[str, Any] = {
        str(element_id): attribute(value) for element_id, _, value in record.elements
    }
    if record.cell is not None:
        attributes["lac"], attributes["cell_id"] = record.cell
    if record.gsm_signal is not None:
        attributes["gsm_signal"] = record.gsm_signal
    if record.operator is not None:
        attributes["operator"] = record.operator
    return Position(
        device_id=device_id,
        timestamp=iso_milliseconds(record.timestamp),
        latitude=record.latitude,
        longitude=record.longitude,
        altitude=record.altitude,
        angle=record.angle,
        speed=record.speed,
        satellites=record.satellites,
        priority=record.priority,
        event=0,
        attributes=attributes,
    )


def message_position(
    device_id: str,
    message: Message,
    now: float,
    message_bytes: int = MESSAGE_BYTES,
    *,
    number: int | None = None,
) -> Position:
    """Return a message as a position without coordinates; bytes that are not text stay bytes.

    :param now: seconds since 1970 (UTC), for a message without a time.
    :param message_bytes: limit in bytes; a longer message is truncated, and its length and
        SHA-256 are added.
    :param number: number of the message in its frame, from 1; None if it is the only one.
    """
    content, text = message.content, message.text
    is_long = len(content) > message_bytes
    if is_long:
        content = content[:message_bytes] if text is None else beginning(content, message_bytes)
        text = None if text is None else content.decode()
    attributes = {
        MESSAGE: attribute(content) if text is None else text,
        MESSAGE_TYPE: message.type,
    }
    if number is not None:
        attributes[MESSAGE_PART] = number
    if message.imei is not None and message.imei != device_id:
        attributes["imei"] = message.imei
    if is_long:
        attributes |= truncation(message.content)
    milliseconds = int(now * 1000) if message.milliseconds is None else message.milliseconds
    return Position.without_place(device_id, milliseconds, attributes)
