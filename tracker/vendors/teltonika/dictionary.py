"""Meanings of IO elements by id, size and model, read from ``avl_ids.csv``.

The protocol transmits neither the sign nor the scale of a value, nor the device's model, which
decides what an id means. A meaning therefore applies only to values of its own size: the same id
with another size is a different element. ``avl_ids.rst`` describes the files, and gives their
sources and licence.
"""

from __future__ import annotations

import csv
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from tracker.position import MAX_SAFE_INTEGER
from tracker.wording import counted

_TABLE: Final = "avl_ids.csv"
_GROUPS: Final = "avl_models.csv"
_ALIASES: Final = "avl_aliases.csv"
_COMPANIONS: Final = "avl_companions.csv"

#: Error of a value outside of the range of its element.
OUT_OF_RANGE: Final = "out of range"

_TEXT: Final = "text"
_KINDS: Final = ("", _TEXT)
#: Sizes of numbers; 0 stands for a variable length, and 16 bytes are never a number.
_NUMBERS: Final = (1, 2, 4, 8)
_SIZES: Final = (0, *_NUMBERS, 16)
_COLUMNS: Final = ("id", "name", "size", "signed", "multiplier", "unit")
_OPTIONAL: Final = ("models", "kind", "min", "max", "states", "errors")


@frozen(slots=True)
class AvlId:
    """Meaning of an IO ID for values of one size."""

    id: int
    name: str
    size: int
    """Size of the value in bytes; 0 for a variable-length one."""
    signed: bool = False
    multiplier: Decimal = Decimal(1)
    unit: str = ""
    """Unit of the scaled value; empty if it has none."""
    models: tuple[str, ...] = ()
    """Models, and groups of models, to which the meaning applies."""
    is_text: bool = False
    """True if the value is ASCII text."""
    minimum: int | None = None
    """Lowest number that is a measurement, before it is scaled; None if any number is one."""
    maximum: int | None = None
    states: Mapping[int, str] = field(factory=dict)
    """Number → the state that it stands for."""
    errors: Mapping[int, str] = field(factory=dict)
    """Number → the error of the sensor that it stands for."""
    limit: int = field(init=False)
    """First number that is too large for the size."""
    _half: int = field(init=False, repr=False)
    _low: int = field(init=False, repr=False)
    _high: int = field(init=False, repr=False)
    _ratio: tuple[int, int] | None = field(init=False, repr=False)

    @limit.default
    def _(self) -> int:
        return 256**self.size if self.size in _NUMBERS else 0

    @_half.default
    def _(self) -> int:
        return self.limit // 2 if self.signed else self.limit

    @_low.default
    def _(self) -> int:
        return -self.limit if self.minimum is None else self.minimum

    @_high.default
    def _(self) -> int:
        return self.limit if self.maximum is None else self.maximum

    @_ratio.default
    def _(self) -> tuple[int, int] | None:
        return None if self.multiplier == 1 else self.multiplier.as_integer_ratio()

    def number(self, raw: int) -> dict[str, Any]:
        """Return what :class:`tracker.interfaces.INaming` says of a number of this size.

        :param raw: the unsigned integer of the wire, less than :attr:`limit`.
        """
        value: Any = raw - self.limit if raw >= self._half else raw
        if self.is_text:
            text = text_of(raw.to_bytes(self.size, "big"))
            return {"id": self.id, "value": exact(raw) if text is None else text}
        if value in self.errors:
            return self._error(raw, self.errors[value])
        if not self._low <= value <= self._high:
            return self._error(raw, OUT_OF_RANGE)
        made = {"id": self.id, "value": value}
        if self._ratio is not None:
            if raw > MAX_SAFE_INTEGER:
                return self._error(raw, OUT_OF_RANGE)
            # A quotient of integers is rounded once: 13920 mV have to be exactly 13.92 V.
            made["value"] = value * self._ratio[0] / self._ratio[1]
        elif raw > MAX_SAFE_INTEGER:
            made["value"] = exact(value)
        if self.unit:
            made["unit"] = self.unit
        if value in self.states:
            made["text"] = self.states[value]
        return made

    def buffer(self, raw: Mapping[str, Any], data: bytes) -> dict[str, Any]:
        """Return what :class:`tracker.interfaces.INaming` says of a value that is not a number.

        :param raw: the value in the attributes, which is kept unless it is text.
        :param data: the bytes of the wire.
        """
        text = text_of(data) if self.is_text else None
        return {"id": self.id, "value": raw if text is None else text}

    def _error(self, raw: int, error: str) -> dict[str, Any]:
        return {"id": self.id, "value": None, "raw": exact(raw), "error": error}


def exact(number: int) -> Any:
    """Return an integer as it stands in a payload: large ones are objects, see Position."""
    return number if abs(number) <= MAX_SAFE_INTEGER else {"__bigint": str(number)}


def text_of(data: bytes) -> str | None:
    """Return printable ASCII text, without the NULs that pad it; None if it is anything else."""
    data = data.strip(b"\0")
    if not data.isascii():
        return None
    text = data.decode("ascii")
    return text if text.isprintable() else None


def buffer_of(raw: Mapping[str, Any]) -> bytes | None:
    """Return the bytes of a value in a payload that is not a number; None if it is malformed."""
    try:
        return b64decode(raw["__buffer_b64"], validate=True)
    except (KeyError, TypeError, ValueError):
        return None


@frozen
class Groups:
    """Groups of models that have a list in common."""

    members: Mapping[str, Sequence[str]]
    """Group → its models; an ``x`` in a model stands for any digit, and for itself."""
    partial: frozenset[str]
    """Groups whose whole list is not known."""

    def of(self, model: str) -> list[str]:
        """Return the groups to which a model belongs.

        :param model: in upper case.
        """
        return [
            group
            for group, members in self.members.items()
            if any(re.fullmatch(member.replace("x", "[0-9X]"), model) for member in members)
        ]


def load() -> tuple[AvlId, ...]:
    """Return the meanings of this package, in the order of the file."""
    return read(_lines(_TABLE))


def load_groups() -> Groups:
    """Return the groups of models of this package."""
    rows = list(csv.DictReader(_lines(_GROUPS)))
    return Groups(
        {row["group"]: row["models"].split() for row in rows},
        frozenset(row["group"] for row in rows if row["list"] == "part"),
    )


def load_aliases() -> Mapping[str, str]:
    """Return alias → name of this package: wordings of the lists that mean the same."""
    return {row["alias"]: row["name"] for row in csv.DictReader(_lines(_ALIASES))}


def load_companions() -> Mapping[tuple[int, int], tuple[int, ...]]:
    """Return (id, size) → ids which show, in the same record and size, what the id means."""
    return {
        (int(row["id"]), int(row["size"])): tuple(map(int, row["companions"].split()))
        for row in csv.DictReader(_lines(_COMPANIONS))
    }


def _lines(file: str) -> list[str]:
    return files(__package__).joinpath(file).read_text(encoding="utf-8").splitlines()


def read_file(file: Path) -> tuple[AvlId, ...]:
    """Return the meanings that a user has written for one model.

    :raises OSError: if the file cannot be read.
    :raises ValueError: if its content is invalid; the message is one line.
    """
    try:
        entries = read(file.read_text(encoding="utf-8-sig").splitlines())
        check_unique(entries)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return entries


def check_unique(entries: Iterable[AvlId]) -> None:
    """Raise ValueError if an id has two meanings of the same size."""
    seen = set()
    for entry in entries:
        if (entry.id, entry.size) in seen:
            raise ValueError(f"id {entry.id} of size {entry.size} has more than one entry")
        seen.add((entry.id, entry.size))


def read(lines: Iterable[str]) -> tuple[AvlId, ...]:
    """Return the meanings in the lines of a CSV file; the first line is the header.

    :raises ValueError: if a column is missing or a value is invalid; the message is one line.
    """
    rows = csv.reader(lines)
    header = next(rows, [])
    for name in _COLUMNS:
        if name not in header:
            raise ValueError(f"column {name!r} is missing")
    # In the order of the parameters of AvlId.
    at = [header.index(name) if name in header else -1 for name in (*_COLUMNS, *_OPTIONAL)]
    width = len(header)
    # Thousands of rows have few different texts in these columns; equal ones share an object.
    parsed: list[Callable[[str], Any]] = [
        *(int, str, int, _is_one, cache(_multiplier), cache(str)),
        *(cache(_words), _is_text, _bound, _bound, cache(_codes), cache(_codes)),
    ]
    entries = []
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) < width:
            raise ValueError(f"row {number}: {counted(len(row), 'column')} instead of {width}")
        row.append("")  # for columns that the file does not have
        try:
            entry = AvlId(*(parse(row[index]) for parse, index in zip(parsed, at, strict=True)))
        except (ArithmeticError, ValueError) as error:
            reason = error if isinstance(error, _Invalid) else "not a number"
            raise ValueError(f"row {number}: {reason}") from None
        if entry.size not in _SIZES:
            sizes = ", ".join(map(str, _SIZES))
            raise ValueError(f"row {number}: size {entry.size}: must be one of {sizes}")
        entries.append(entry)
    return tuple(entries)


class _Invalid(ValueError):
    """A value of a row; the message gives the reason."""


def _is_one(text: str) -> bool:
    return text == "1"


def _is_text(kind: str) -> bool:
    if kind not in _KINDS:
        raise _Invalid(f"kind {kind!r}: must be empty or {_TEXT!r}")
    return kind == _TEXT


def _multiplier(text: str) -> Decimal:
    number = Decimal(text)
    if not (number.is_finite() and number > 0):
        raise _Invalid(f"multiplier {text}: must be more than 0")
    return number


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _bound(text: str) -> int | None:
    return int(text) if text else None


def _codes(text: str) -> dict[int, str]:
    if not text:
        return {}
    pairs = [pair.partition("=") for pair in text.split("|")]
    return {int(number): words for number, _, words in pairs}
