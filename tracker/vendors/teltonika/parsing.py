"""Frames from JSON documents as :mod:`~tracker.vendors.teltonika.document` makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tracker.vendors.documents import BadDocument, Fields, Node
from tracker.vendors.teltonika.avl import (
    CODEC_8,
    CODEC_8_FIVE_GROUPS,
    CODECS,
    FIFTH_WIDTH,
    Codec,
    Element,
    Packet,
    Record,
)
from tracker.vendors.teltonika.codec7 import NAME as CODEC_7
from tracker.vendors.teltonika.content import Content, encode_data
from tracker.vendors.teltonika.datagram import Datagram
from tracker.vendors.teltonika.document import DERIVED, GROUPS, TEXT, VARIABLE
from tracker.vendors.teltonika.frames import Frame, Login, Ping, TcpFrame, UdpFrame
from tracker.vendors.teltonika.login import IMEI_DIGITS
from tracker.vendors.teltonika.messages import (
    EIGHT_BYTE_TIMES,
    MAX_MESSAGES,
    MESSAGE_CODECS,
    Message,
    MessageCodec,
    Messages,
)

_Codecs = dict[str, Codec | MessageCodec | None]

#: None for a codec that cannot be encoded.
_CODECS: Final[_Codecs] = {
    CODEC_7: None,
    **{codec.name: codec for codec in CODECS.values()},
    **{codec.name: codec for codec in MESSAGE_CODECS.values()},
}
#: Number of groups of elements → the form of Codec 8.
_GROUPED: Final = {len(codec.element): codec for codec in (CODEC_8, CODEC_8_FIVE_GROUPS)}
#: Pings in one object; they are held in memory.
_MAX_PINGS: Final = 1 << 24
_MAX_VARIABLE_BYTES: Final = (1 << 16) - 1
_MAX_DATAGRAM_LENGTH: Final = (1 << 16) - 1

#: Fields of a record before the event → lowest and highest value.
_NUMBERS: Final = {
    "timestamp": (0, (1 << 64) - 1),
    "priority": (0, 0xFF),
    "longitude": (-(1 << 31), (1 << 31) - 1),
    "latitude": (-(1 << 31), (1 << 31) - 1),
    "altitude": (-(1 << 15), (1 << 15) - 1),
    "angle": (0, 0xFFFF),
    "satellites": (0, 0xFF),
    "speed": (0, 0xFFFF),
}


def parse(value: Any) -> tuple[Frame, ...]:
    """Return the frames of a document, which is one object or an array of objects.

    :param value: result of :func:`tracker.vendors.documents.read_json`.
    :raises BadDocument: if the document is invalid.
    """
    if not isinstance(value, list):
        return (_frame_of(Node("", value, DERIVED)),)
    if not value:
        raise BadDocument("", "an object or a non-empty array", "an empty array")
    frames = tuple(_frame_of(node) for node in Node("", value, DERIVED).items(1, len(value)))
    if len(frames) > 1:
        for number, frame in enumerate(frames):
            if isinstance(frame, UdpFrame):
                found = '"datagram" in an array of several'
                raise BadDocument(f"[{number}].kind", "a ping, login or frame", found)
    return frames


def _frame_of(node: Node) -> Frame:
    fields = node.object()
    frame = fields.choice("kind", _KINDS)(fields)
    fields.done()
    return frame


def _ping(fields: Fields) -> Frame:
    return Ping(fields.take("count").integer(1, _MAX_PINGS))


def _imei(fields: Fields) -> str:
    digits = rf"[0-9]{{{IMEI_DIGITS}}}"
    return fields.take("imei").matching(digits, f"{IMEI_DIGITS} digits in quotes")


def _login(fields: Fields) -> Frame:
    return Login(_imei(fields))


def _tcp_frame(fields: Fields) -> Frame:
    content = _content(fields)
    return TcpFrame(content, encode_data(content))


def _datagram(fields: Fields) -> Frame:
    packet_id = fields.take("packet_id").integer(0, 0xFFFF)
    unused = fields.take("unused", 1).integer(0, 0xFF)
    avl_packet_id = fields.take("avl_packet_id").integer(0, 0xFF)
    imei = _imei(fields)
    content = _content(fields, nested=True)
    datagram = Datagram(packet_id, avl_packet_id, imei, encode_data(content), unused)
    frame = UdpFrame(content, datagram)
    if frame.length > _MAX_DATAGRAM_LENGTH:
        path = fields.at("records") if isinstance(content, Packet) else fields.path
        expected = f"a length of at most {_MAX_DATAGRAM_LENGTH}"
        raise BadDocument(path, expected, f"{frame.length}")
    return frame


_KINDS: Final[dict[str, Callable[[Fields], Frame]]] = {
    "ping": _ping,
    "login": _login,
    "frame": _tcp_frame,
    "datagram": _datagram,
}


def _content(fields: Fields, nested: bool = False) -> Content:
    codec = fields.choice("codec", _CODECS)
    if codec is None:
        found = f'"{CODEC_7}", which can only be decoded'
        raise BadDocument(fields.at("codec"), "a codec that can be encoded", found)
    if isinstance(codec, MessageCodec):
        return _messages(codec, fields, nested)
    if codec is CODEC_8:
        codec = _GROUPED[fields.take(GROUPS, min(_GROUPED)).integer(min(_GROUPED), max(_GROUPED))]
    records = fields.take("records").items(0, 0xFF)
    return Packet(codec, tuple(_record(codec, node.object()) for node in records))


def _messages(codec: MessageCodec, fields: Fields, nested: bool) -> Messages:
    if nested or "messages" in fields:
        parts = tuple(
            _message(codec, node.object(), alone=False)
            for node in fields.take("messages").items(0, MAX_MESSAGES)
        )
    else:
        parts = (_message(codec, fields, alone=True),)
    count = len(parts)
    quantities = fields.take("quantities", [count, count])
    before, after = (node.integer(0, 0xFF) for node in quantities.items(2, 2))
    if not parts and (before or after):
        raise quantities.bad("[0, 0] without messages")
    return Messages(codec, parts, (before, after))


def _message(codec: MessageCodec, fields: Fields, alone: bool) -> Message:
    type_ = fields.take("type").integer(0, 0xFF)
    timestamp = _message_time(codec, fields.take("timestamp")) if codec.timed else None
    imei = _imei(fields) if codec.addressed else None
    content = fields.take("hex").hex() if "hex" in fields else fields.take("text").text()
    if not alone:
        fields.done()
    return Message(codec, type_, content, timestamp, imei)


def _message_time(codec: MessageCodec, node: Node) -> int:
    long = EIGHT_BYTE_TIMES
    if not codec.addressed and type(node.value) is int and node.value in long:
        return node.value
    return node.integer(0, 0xFFFFFFFF)


def _record(codec: Codec, fields: Fields) -> Record:
    numbers = {name: fields.take(name).integer(*span) for name, span in _NUMBERS.items()}
    max_id = 256**codec.event.size - 1
    event = fields.take("event").integer(0, max_id)
    generation = fields.take("generation").integer(0, 0xFF) if codec.generation else None
    fixed: list[Element] = []
    variable: list[tuple[int, bytes]] = []
    for node in fields.take("elements").items(0, 256**codec.count.size - 1):
        _element(codec, node.object(), max_id, fixed=fixed, variable=variable)
    fields.done()
    # The wire has elements in the order of their width.
    fixed.sort(key=lambda element: element[1])
    return Record(
        **numbers,
        event=event,
        elements=tuple(fixed),
        variable=tuple(variable),
        generation=generation,
    )


def _element(
    codec: Codec,
    fields: Fields,
    max_id: int,
    *,
    fixed: list[Element],
    variable: list[tuple[int, bytes]],
) -> None:
    element_id = fields.take("id").integer(0, max_id)
    width = fields.take("width")
    value = fields.take("value")
    fields.ignore(TEXT)
    if width.value == VARIABLE and codec.variable is not None:
        content = value.hex()
        if len(content) > _MAX_VARIABLE_BYTES:
            raise value.bad(f"at most {_MAX_VARIABLE_BYTES} bytes")
        variable.append((element_id, content))
    elif type(width.value) is int and width.value in codec.element:
        if width.value == FIFTH_WIDTH:
            fixed.append((element_id, FIFTH_WIDTH, value.hex(FIFTH_WIDTH)))
        else:
            fixed.append((element_id, width.value, value.integer(0, 256**width.value - 1)))
    else:
        words = ", ".join(map(str, codec.element))
        if codec is CODEC_8 and width.value == FIFTH_WIDTH:
            words += f' or, beside "{GROUPS}": {max(_GROUPED)}, {FIFTH_WIDTH}'
        raise width.bad(f'{words} or "{VARIABLE}"' if codec.variable is not None else words)
    fields.done()
