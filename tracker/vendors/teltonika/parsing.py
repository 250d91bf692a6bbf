"""Frames from JSON documents as :mod:`~tracker.vendors.teltonika.document` makes them.

People write and edit such documents: every error has the path to the wrong value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from attrs import frozen

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
from tracker.wording import counted

T = TypeVar("T")
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
#: Longer integers fit no field and are not converted, which would take long.
_MAX_DIGITS: Final = 40
_IMEI: Final = re.compile(rf"[0-9]{{{IMEI_DIGITS}}}")

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


class BadDocument(ValueError):
    """An invalid document; the message has the path, the expected and the actual value."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(f"{path or 'document'}: expected {expected}, found {found}")


@frozen
class _LongNumber:
    """An integer with too many digits."""

    digits: int


@frozen
class _DuplicateField:
    """An object with a field that occurs more than once."""

    name: str


def read_json(text: str) -> Any:
    """Return the value of a JSON text, for :func:`parse`.

    Very long numbers and repeated fields become special values, for which :func:`parse` raises an
    error with their path. Python's own reader fails on the former and accepts the latter.

    :raises ValueError: if the text is not JSON.
    """
    return json.loads(text, parse_int=_number, object_pairs_hook=_fields)


def _number(digits: str) -> int | _LongNumber:
    return int(digits) if len(digits) <= _MAX_DIGITS else _LongNumber(len(digits.lstrip("-")))


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _DuplicateField:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            return _DuplicateField(name)
        made[name] = value
    return made


def parse(value: Any) -> tuple[Frame, ...]:
    """Return the frames of a document, which is one object or an array of objects.

    :param value: result of :func:`read_json`.
    :raises BadDocument: if the document is invalid.
    """
    if not isinstance(value, list):
        return (_frame_of(_Node("", value)),)
    if not value:
        raise BadDocument("", "an object or a non-empty array", "an empty array")
    frames = tuple(_frame_of(node) for node in _Node("", value).items(1, len(value)))
    if len(frames) > 1:
        for number, frame in enumerate(frames):
            if isinstance(frame, UdpFrame):
                found = '"datagram" in an array of several'
                raise BadDocument(f"[{number}].kind", "a ping, login or frame", found)
    return frames


@frozen
class _Node:
    """A value in the document, with its path."""

    path: str
    value: Any

    def bad(self, expected: str) -> BadDocument:
        return BadDocument(self.path, expected, _shown(self.value))

    def object(self) -> _Object:
        if isinstance(self.value, _DuplicateField):
            raise BadDocument(
                self.path, "each field once", f"field {_shown(self.value.name)} twice"
            )
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        return _Object(self.path, self.value)

    def items(self, low: int, high: int) -> list[_Node]:
        if not isinstance(self.value, list) or not low <= len(self.value) <= high:
            size = counted(high, "item")
            raise self.bad(f"an array of {size if low == high else f'{low} to {size}'}")
        return [_Node(f"{self.path}[{number}]", item) for number, item in enumerate(self.value)]

    def integer(self, low: int, high: int) -> int:
        if type(self.value) is not int or not low <= self.value <= high:
            raise self.bad(f"an integer from {low} to {high}")
        return self.value

    def imei(self) -> str:
        if not isinstance(self.value, str) or not _IMEI.fullmatch(self.value):
            raise self.bad(f"{IMEI_DIGITS} digits in quotes")
        return self.value

    def text(self) -> bytes:
        try:
            return str.encode(self.value, "utf-8")
        except (TypeError, UnicodeEncodeError):
            raise self.bad("text") from None

    def hex(self, size: int | None = None) -> bytes:
        pairs = "*" if size is None else f"{{{size}}}"
        if isinstance(self.value, str) and re.fullmatch(rf"([0-9a-fA-F]{{2}}){pairs}", self.value):
            return bytes.fromhex(self.value)
        number = "" if size is None else f"{size} "
        raise self.bad(f"{number}pairs of hex digits in quotes")


class _Object:
    """An object with fields that are taken one by one; at the end, no field may be left."""

    def __init__(self, path: str, value: dict[str, Any]) -> None:
        self.path = path
        self._left = {name: item for name, item in value.items() if name not in DERIVED}
        self._known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def at(self, name: str) -> str:
        """Return the path to a field."""
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str, default: Any = None) -> _Node:
        """Return a field, which is required unless it has a default."""
        self._known.append(name)
        if name not in self._left and default is None:
            raise BadDocument(self.at(name), "this field", "nothing")
        return _Node(self.at(name), self._left.pop(name, default))

    def choice(self, name: str, choices: dict[str, T]) -> T:
        """Return the value of the choice that a field names."""
        node = self.take(name)
        if not isinstance(node.value, str) or node.value not in choices:
            words = (f'"{word}"' for word, value in choices.items() if value is not None)
            raise node.bad("one of " + ", ".join(words))
        return choices[node.value]

    def ignore(self, name: str) -> None:
        """Ignore a field."""
        self._left.pop(name, None)

    def done(self) -> None:
        """Refuse fields that were not taken, such as misspelt names."""
        for name in self._left:
            known = ", ".join(self._known)
            raise BadDocument(self.path, f"only the fields {known}", f"field {_shown(name)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict | _DuplicateField):
        return "an object"
    if isinstance(value, _LongNumber):
        return f"a number of {counted(value.digits, 'digit')}"
    if isinstance(value, list):
        return f"an array of {counted(len(value), 'item')}"
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _frame_of(node: _Node) -> Frame:
    fields = node.object()
    frame = fields.choice("kind", _KINDS)(fields)
    fields.done()
    return frame


def _ping(fields: _Object) -> Frame:
    return Ping(fields.take("count").integer(1, _MAX_PINGS))


def _login(fields: _Object) -> Frame:
    return Login(fields.take("imei").imei())


def _tcp_frame(fields: _Object) -> Frame:
    content = _content(fields)
    return TcpFrame(content, encode_data(content))


def _datagram(fields: _Object) -> Frame:
    packet_id = fields.take("packet_id").integer(0, 0xFFFF)
    unused = fields.take("unused", 1).integer(0, 0xFF)
    avl_packet_id = fields.take("avl_packet_id").integer(0, 0xFF)
    imei = fields.take("imei").imei()
    content = _content(fields, nested=True)
    datagram = Datagram(packet_id, avl_packet_id, imei, encode_data(content), unused)
    frame = UdpFrame(content, datagram)
    if frame.length > _MAX_DATAGRAM_LENGTH:
        path = fields.at("records") if isinstance(content, Packet) else fields.path
        expected = f"a length of at most {_MAX_DATAGRAM_LENGTH}"
        raise BadDocument(path, expected, f"{frame.length}")
    return frame


_KINDS: Final[dict[str, Callable[[_Object], Frame]]] = {
    "ping": _ping,
    "login": _login,
    "frame": _tcp_frame,
    "datagram": _datagram,
}


def _content(fields: _Object, nested: bool = False) -> Content:
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


def _messages(codec: MessageCodec, fields: _Object, nested: bool) -> Messages:
    if nested or "messages" in fields:
        parts = tuple(
            _message(codec, node.object(), alone=False)
            for node in fields.take("messages").items(0, MAX_MESSAGES)
        )
    else:
        parts = (_message(codec, fields, alone=True),)
    count = len(parts)
    quantities = fields.take("quantities", [count, count]).items(2, 2)
    before, after = (node.integer(0, 0xFF) for node in quantities)
    return Messages(codec, parts, (before, after))


def _message(codec: MessageCodec, fields: _Object, alone: bool) -> Message:
    type_ = fields.take("type").integer(0, 0xFF)
    timestamp = _message_time(codec, fields.take("timestamp")) if codec.timed else None
    imei = fields.take("imei").imei() if codec.addressed else None
    content = fields.take("hex").hex() if "hex" in fields else fields.take("text").text()
    if not alone:
        fields.done()
    return Message(codec, type_, content, timestamp, imei)


def _message_time(codec: MessageCodec, node: _Node) -> int:
    long = EIGHT_BYTE_TIMES
    if not codec.addressed and type(node.value) is int and node.value in long:
        return node.value
    return node.integer(0, 0xFFFFFFFF)


def _record(codec: Codec, fields: _Object) -> Record:
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
    fields: _Object,
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
