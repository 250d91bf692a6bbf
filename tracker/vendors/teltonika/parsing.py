"""From a JSON document, as :mod:`~tracker.vendors.teltonika.document` makes it, to units.

A person has perhaps written or edited it: every mistake is told with the path to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from attrs import frozen

from tracker.vendors.teltonika.avl import CODECS, Codec, Packet, Record
from tracker.vendors.teltonika.codec7 import NAME as CODEC_7
from tracker.vendors.teltonika.content import Content, encode_data
from tracker.vendors.teltonika.datagram import Datagram
from tracker.vendors.teltonika.document import DERIVED, VARIABLE
from tracker.vendors.teltonika.login import IMEI_DIGITS
from tracker.vendors.teltonika.messages import MESSAGE_CODECS, Message, MessageCodec
from tracker.vendors.teltonika.units import Frame, Login, Ping, UdpPacket, Unit

T = TypeVar("T")
_Codecs = dict[str, Codec | MessageCodec | None]

#: None for the one that cannot be written.
_RECORD_CODECS: Final[_Codecs] = {
    CODEC_7: None,
    **{codec.name: codec for codec in CODECS.values()},
}
_CODECS: Final[_Codecs] = {
    **_RECORD_CODECS,
    **{codec.name: codec for codec in MESSAGE_CODECS.values()},
}
#: Pings in one object: more than anybody needs, and less than fills a memory.
_MAX_PINGS: Final = 1 << 24
_MAX_VARIABLE: Final = (1 << 16) - 1
_MAX_DATAGRAM: Final = (1 << 16) - 1
#: An integer of more digits fits no field, and is not worked out.
_MAX_DIGITS: Final = 40
_IMEI: Final = re.compile(rf"[0-9]{{{IMEI_DIGITS}}}")

#: Fields of a record, the event, generation and elements besides: lowest and highest value.
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
    """A document from which no unit can be made; the text says where, and what is expected."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(f"{path or 'the document'}: expected {expected}, found {found}")


@frozen
class _LongNumber:
    """An integer of too many digits."""

    digits: int


@frozen
class _Repetitive:
    """An object in which a field stands twice."""

    name: str


def read_json(text: str) -> Any:
    """The value of a JSON text, for :func:`parse`.

    What no document holds, and a reader of JSON passes over or trips over, is kept as a
    value of its own, so that it is told with the path to it.

    :raises ValueError: when it is not JSON.
    """
    return json.loads(text, parse_int=_number, object_pairs_hook=_fields)


def _number(digits: str) -> int | _LongNumber:
    return int(digits) if len(digits) <= _MAX_DIGITS else _LongNumber(len(digits.lstrip("-")))


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Repetitive:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            return _Repetitive(name)
        made[name] = value
    return made


def parse(value: Any) -> tuple[Unit, ...]:
    """The units of a document, which is one object or an array of them.

    :param value: as :func:`read_json` gives it.
    :raises BadDocument: when it is not one.
    """
    if not isinstance(value, list):
        return (_unit(_Node("", value)),)
    if not value:
        raise BadDocument("", "an object, or an array of one or more", "an empty array")
    units = tuple(_unit(node) for node in _Node("", value).items(1, len(value)))
    if len(units) > 1:
        for number, unit in enumerate(units):
            if isinstance(unit, UdpPacket):
                found = '"datagram", which stands alone'
                raise BadDocument(f"[{number}].kind", "a ping, login or frame", found)
    return units


@frozen
class _Node:
    """A value in the document, and the way to it."""

    path: str
    value: Any

    def bad(self, expected: str) -> BadDocument:
        return BadDocument(self.path, expected, _shown(self.value))

    def object(self) -> _Object:
        if isinstance(self.value, _Repetitive):
            raise BadDocument(self.path, "each field once", f"{_shown(self.value.name)} twice")
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        return _Object(self.path, self.value)

    def items(self, low: int, high: int) -> list[_Node]:
        if not isinstance(self.value, list) or not low <= len(self.value) <= high:
            raise self.bad(f"an array of {low if low == high else f'{low} to {high}'}")
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

    def hex(self) -> bytes:
        if isinstance(self.value, str) and re.fullmatch(r"([0-9a-fA-F]{2})*", self.value):
            return bytes.fromhex(self.value)
        raise self.bad("pairs of hex digits in quotes")


class _Object:
    """An object whose fields are taken one by one; in the end none may be left."""

    def __init__(self, path: str, value: dict[str, Any]) -> None:
        self.path = path
        self._left = {name: item for name, item in value.items() if name not in DERIVED}
        self._known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def at(self, name: str) -> str:
        """The path to a field."""
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str, default: Any = None) -> _Node:
        """A field; it has to be there unless there is a default."""
        self._known.append(name)
        if name not in self._left and default is None:
            raise BadDocument(self.at(name), "this field", "none")
        return _Node(self.at(name), self._left.pop(name, default))

    def choice(self, name: str, choices: dict[str, T]) -> T:
        """What one of these words stands for."""
        node = self.take(name)
        if not isinstance(node.value, str) or node.value not in choices:
            words = (f'"{word}"' for word, meant in choices.items() if meant is not None)
            raise node.bad("one of " + ", ".join(words))
        return choices[node.value]

    def done(self) -> None:
        """Notice what nobody asked for, which is perhaps a misspelt name."""
        for name in self._left:
            known = ", ".join(self._known)
            raise BadDocument(self.path, f"only the fields {known}", _shown(name))


def _shown(value: Any) -> str:
    if isinstance(value, dict | _Repetitive):
        return "an object"
    if isinstance(value, _LongNumber):
        return f"a number of {value.digits} digits"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _unit(node: _Node) -> Unit:
    fields = node.object()
    unit = fields.choice("kind", _KINDS)(fields)
    fields.done()
    return unit


def _ping(fields: _Object) -> Unit:
    return Ping(fields.take("count").integer(1, _MAX_PINGS))


def _login(fields: _Object) -> Unit:
    return Login(fields.take("imei").imei())


def _frame(fields: _Object) -> Unit:
    content = _content(fields, _CODECS)
    return Frame(content, encode_data(content))


def _packet(fields: _Object) -> Unit:
    packet_id = fields.take("packet_id").integer(0, 0xFFFF)
    unused = fields.take("unused", 1).integer(0, 0xFF)
    avl_packet_id = fields.take("avl_packet_id").integer(0, 0xFF)
    imei = fields.take("imei").imei()
    content = _content(fields, _RECORD_CODECS)
    assert not isinstance(content, Message)  # noqa: S101 - its codec was not to be chosen
    datagram = Datagram(packet_id, avl_packet_id, imei, encode_data(content), unused)
    packet = UdpPacket(content, datagram)
    if packet.length > _MAX_DATAGRAM:
        found = f"{packet.length}"
        raise BadDocument(fields.at("records"), f"a length of {_MAX_DATAGRAM} at most", found)
    return packet


_KINDS: Final[dict[str, Callable[[_Object], Unit]]] = {
    "ping": _ping,
    "login": _login,
    "frame": _frame,
    "datagram": _packet,
}


def _content(fields: _Object, codecs: _Codecs) -> Content:
    codec = fields.choice("codec", codecs)
    if codec is None:
        found = f'"{CODEC_7}", which is for reading only'
        raise BadDocument(fields.at("codec"), "a codec that can be written", found)
    if isinstance(codec, MessageCodec):
        return _message(codec, fields)
    records = fields.take("records").items(0, 0xFF)
    return Packet(codec, tuple(_record(codec, node.object()) for node in records))


def _message(codec: MessageCodec, fields: _Object) -> Message:
    quantities = fields.take("quantities", [1, 1]).items(2, 2)
    before, after = (node.integer(0, 0xFF) for node in quantities)
    type_ = fields.take("type").integer(0, 0xFF)
    timestamp = fields.take("timestamp").integer(0, 0xFFFFFFFF) if codec.timed else None
    imei = fields.take("imei").imei() if codec.addressed else None
    content = fields.take("hex").hex() if "hex" in fields else fields.take("text").text()
    return Message(codec, type_, content, timestamp, imei, (before, after))


def _record(codec: Codec, fields: _Object) -> Record:
    numbers = {name: fields.take(name).integer(*span) for name, span in _NUMBERS.items()}
    max_id = 256**codec.event.size - 1
    event = fields.take("event").integer(0, max_id)
    generation = fields.take("generation").integer(0, 0xFF) if codec.generation else None
    fixed: list[tuple[int, int, int]] = []
    variable: list[tuple[int, bytes]] = []
    for node in fields.take("elements").items(0, 256**codec.count.size - 1):
        _element(codec, node.object(), max_id, fixed=fixed, variable=variable)
    fields.done()
    # On the wire elements stand by width.
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
    fixed: list[tuple[int, int, int]],
    variable: list[tuple[int, bytes]],
) -> None:
    element_id = fields.take("id").integer(0, max_id)
    width = fields.take("width")
    value = fields.take("value")
    if width.value == VARIABLE and codec.variable is not None:
        content = value.hex()
        if len(content) > _MAX_VARIABLE:
            raise value.bad(f"{_MAX_VARIABLE} bytes at most")
        variable.append((element_id, content))
    elif type(width.value) is int and width.value in codec.element:
        fixed.append((element_id, width.value, value.integer(0, 256**width.value - 1)))
    else:
        words = ", ".join(map(str, codec.element))
        raise width.bad(f'{words} or "{VARIABLE}"' if codec.variable is not None else words)
    fields.done()
