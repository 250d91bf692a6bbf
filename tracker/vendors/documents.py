"""JSON documents of frames, which people read, edit and encode again.

Each vendor has its own fields; the form of the text and of errors is the same for all. Every error
of a document has the path to the wrong value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from attrs import evolve, frozen

from tracker.wording import counted

T = TypeVar("T")

#: Longer integers fit no field and are not converted, which would take long.
_MAX_DIGITS: Final = 40
_LINE: Final = 118


def render(value: Any) -> str:
    """Return indented JSON text; an object or array without nested ones takes one line."""
    return "\n".join(_lines(value, "", top=True))


def _lines(value: Any, indent: str, top: bool = False) -> Iterable[str]:
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    flat = json.dumps(value, ensure_ascii=False)
    nested = any(isinstance(item, dict | list) for item in inner)
    if not value or not (nested or top or len(indent) + len(flat) > _LINE) or not inner:
        return [flat]
    if isinstance(value, dict):
        parts = [(f"{json.dumps(key, ensure_ascii=False)}: ", value[key]) for key in value]
    else:
        parts = [("", item) for item in value]
    lines = ["{" if isinstance(value, dict) else "["]
    for number, (label, item) in enumerate(parts, 1):
        first, *others = _lines(item, indent + "  ")
        lines += [f"{indent}  {label}{first}", *others]
        lines[-1] += "," if number < len(parts) else ""
    lines.append(indent + ("}" if isinstance(value, dict) else "]"))
    return lines


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
    """Return the value of a JSON text, for :class:`Node`.

    Very long numbers and repeated fields become special values, for which a :class:`Node` raises
    an error with their path. Python's own reader fails on the former and accepts the latter.

    :raises ValueError: if the text is not JSON.
    """
    return json.loads(text, parse_int=_number, object_pairs_hook=_fields)


def first_object(value: Any) -> Fields:
    """Return the fields of a document's first object, by which the vendor is recognised.

    :param value: result of :func:`read_json`.
    :raises BadDocument: if the document is neither an object nor a non-empty array of objects.
    """
    if not isinstance(value, list):
        return Node("", value).object()
    if not value:
        raise BadDocument("", "an object or a non-empty array", "an empty array")
    return Node("[0]", value[0]).object()


def _number(digits: str) -> int | _LongNumber:
    return int(digits) if len(digits) <= _MAX_DIGITS else _LongNumber(len(digits.lstrip("-")))


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _DuplicateField:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            return _DuplicateField(name)
        made[name] = value
    return made


@frozen
class Node:
    """A value in the document, with its path."""

    path: str
    value: Any
    derived: frozenset[str] = frozenset()
    """Names of fields that only help the reader, and are ignored."""

    def bad(self, expected: str) -> BadDocument:
        """Return the error of a value that is not as expected."""
        return BadDocument(self.path, expected, _shown(self.value))

    def object(self) -> Fields:
        """Return the fields of an object."""
        if isinstance(self.value, _DuplicateField):
            raise BadDocument(
                self.path, "each field once", f"field {_shown(self.value.name)} twice"
            )
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        return Fields(self)

    def items(self, low: int, high: int) -> list[Node]:
        """Return the items of an array of between low and high ones."""
        if not isinstance(self.value, list) or not low <= len(self.value) <= high:
            size = counted(high, "item")
            raise self.bad(f"an array of {size if low == high else f'{low} to {size}'}")
        return [
            evolve(self, path=f"{self.path}[{number}]", value=item)
            for number, item in enumerate(self.value)
        ]

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high."""
        if type(self.value) is not int or not low <= self.value <= high:
            raise self.bad(f"an integer from {low} to {high}")
        return self.value

    def matching(self, pattern: str, expected: str) -> str:
        """Return a text that matches a regular expression as a whole."""
        if not isinstance(self.value, str) or not re.fullmatch(pattern, self.value):
            raise self.bad(expected)
        return self.value

    def text(self) -> bytes:
        """Return a text as UTF-8."""
        try:
            return str.encode(self.value, "utf-8")
        except (TypeError, UnicodeEncodeError):
            raise self.bad("text") from None

    def hex(self, size: int | None = None) -> bytes:
        """Return bytes in hex."""
        pairs = "*" if size is None else f"{{{size}}}"
        if isinstance(self.value, str) and re.fullmatch(rf"([0-9a-fA-F]{{2}}){pairs}", self.value):
            return bytes.fromhex(self.value)
        number = "" if size is None else f"{size} "
        raise self.bad(f"{number}pairs of hex digits in quotes")


class Fields:
    """An object with fields that are taken one by one; at the end, no field may be left."""

    def __init__(self, node: Node) -> None:
        self.path = node.path
        self._node = node
        self._left = {name: item for name, item in node.value.items() if name not in node.derived}
        self._known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def at(self, name: str) -> str:
        """Return the path to a field."""
        return f"{self.path}.{name}" if self.path else name

    def take(self, name: str, default: Any = None) -> Node:
        """Return a field, which is required unless it has a default."""
        self._known.append(name)
        if name not in self._left and default is None:
            raise BadDocument(self.at(name), "this field", "nothing")
        return evolve(self._node, path=self.at(name), value=self._left.pop(name, default))

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
