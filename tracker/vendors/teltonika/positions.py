"""From what a device sends to stream entries."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from tracker.limits import MESSAGE_BYTES
from tracker.position import (
    MAX_TIMESTAMP_MS,
    MESSAGE,
    Entry,
    Position,
    attribute,
    iso_milliseconds,
)
from tracker.vendors.teltonika import codec7
from tracker.vendors.teltonika.avl import Packet, Record
from tracker.vendors.teltonika.codec7 import Codec7Packet, Codec7Record
from tracker.vendors.teltonika.content import Content
from tracker.vendors.teltonika.messages import Message, beginning

#: Attribute that keeps the clock of a device that claims a year after 9999.
RAW_TIMESTAMP: Final = "timestamp_ms"
#: Attribute of a message: of what type it was.
MESSAGE_TYPE: Final = "message_type"
#: Attributes of a message that is too long to be stored whole: the number of all its bytes, and
#: their SHA-256. So two messages with the same beginning are two positions, and each can be
#: compared with its source.
MESSAGE_LENGTH: Final = "message_length"
MESSAGE_SHA256: Final = "message_sha256"

#: What is told of a record in which an IO id occurs more than once.
REPEATED_ID: Final = "an IO id occurs twice in a record: the last one stands"

_DEGREE: Final = 10_000_000


def entries(
    device_id: str,
    content: Content,
    now: float,
    on_repeated_id: Callable[[], None],
    *,
    message_bytes: int = MESSAGE_BYTES,
) -> list[Entry]:
    """The stream entries of a frame or datagram, one a record, in the order of the wire.

    :param now: seconds since 1970 (UTC), for a message that carries no time of its own.
    :param on_repeated_id: told of a record in which an IO id occurs more than once; the
        last one stands.
    :param message_bytes: see :func:`message_position`.
    """
    if isinstance(content, Packet):
        codec = content.codec.name
        positions = [position(device_id, record) for record in content.records]
        for record, made in zip(content.records, positions, strict=True):
            distinct = len(made.attributes) - (record.timestamp > MAX_TIMESTAMP_MS)
            if distinct < len(record.elements) + len(record.variable):
                on_repeated_id()
        return [made.to_entry(codec) for made in positions]
    if isinstance(content, Codec7Packet):
        for old in content.records:
            if len({element[0] for element in old.elements}) < len(old.elements):
                on_repeated_id()
        return [
            codec7_position(device_id, record).to_entry(codec7.NAME) for record in content.records
        ]
    message = message_position(device_id, content, now, message_bytes)
    return [message.to_entry(content.codec.name)]


def position(device_id: str, record: Record) -> Position:
    """One record as a position.

    A clock beyond what four digits of a year can say is no reason to refuse a record,
    which would block the device's queue for good: its time is set to the last one that
    can be written, and the real number stays among the attributes.
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
    """One record of Codec 7; what it does not say is None.

    The codec knows no event. What its GPS element tells of the network, which other
    codecs carry in IO elements, is kept by name.
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
    device_id: str, message: Message, now: float, message_bytes: int = MESSAGE_BYTES
) -> Position:
    """Return a message as a position without coordinates: its text, or its bytes if not text.

    :param message_bytes: bytes that are kept of a message; a longer one is cut, and its length
        and SHA-256 are added.
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
    if message.imei is not None and message.imei != device_id:
        attributes["imei"] = message.imei
    if is_long:
        attributes[MESSAGE_LENGTH] = len(message.content)
        attributes[MESSAGE_SHA256] = sha256(message.content).hexdigest()
    milliseconds = int(now * 1000) if message.timestamp is None else message.timestamp * 1000
    return Position(
        device_id=device_id,
        timestamp=iso_milliseconds(milliseconds),
        latitude=None,
        longitude=None,
        altitude=None,
        angle=None,
        speed=None,
        satellites=None,
        priority=0,
        event=0,
        attributes=attributes,
    )
