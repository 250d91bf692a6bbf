"""Names of the attributes of positions, with units, signed and scaled values, states and errors.

A value gets a name only where the device's model, the id and the width (the size of the value on
the wire) agree. If the model is unknown, all families that have this id in this width have to
agree, or its companions in the record have to show the family. If the width is unknown (entries of
earlier versions), all widths that the id has, and that the value fits, have to agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from typing import Any, Final

from attrs import evolve, frozen

from tracker.untrusted import shown
from tracker.vendors.teltonika.codec7 import NAME as CODEC_7
from tracker.vendors.teltonika.dictionary import (
    AvlId,
    buffer_of,
    load,
    load_aliases,
    load_companions,
    load_groups,
)

#: Model numbers have six characters; what follows is the variant: ``FMB920-QJIB0``.
_MODEL: Final = re.compile(r"(?:TELTONIKA[ _-]*)?([A-Z]{2,3})[ _-]?([0-9][0-9A-Z]*)")
_MODEL_LENGTH: Final = 6

#: Maximum number of texts in ``devices:models`` whose names are cached.
_MAX_CACHED: Final = 4096

_VARIABLE: Final = 0
_BUFFER: Final = 16

#: Meanings of one id: size → entry; None where families disagree.
_Sizes = Mapping[int, AvlId | None]


@frozen
class _Decided:
    """The meaning of an id in a size on which families disagree, if its companions are there."""

    companions: tuple[int, ...]
    """Ids that the record has to contain in the same size."""
    entry: AvlId


@frozen
class _Element:
    """The meanings of an id."""

    id: int
    sizes: _Sizes
    numbers: tuple[tuple[int, AvlId | None], ...]
    """(first number that is too large, entry) of each size of numbers."""
    decided: Mapping[int, _Decided]
    """Size → the meaning that companions give to the id."""

    def by_width(self, raw: int, width: int | None) -> tuple[AvlId, dict[str, Any]] | None:
        entry = self.sizes.get(width or _VARIABLE)
        if entry is None or not 0 <= raw < entry.limit:
            return None
        return entry, entry.number(raw)

    def by_companions(
        self, raw: int, width: int | None, widths: Mapping[int, int]
    ) -> tuple[AvlId, dict[str, Any]] | None:
        """Return the meaning of a number on which families disagree.

        :param widths: sizes of all elements of the record.
        """
        decided = self.decided.get(width or _VARIABLE)
        if decided is None or any(widths.get(one) != width for one in decided.companions):
            return None
        entry = decided.entry
        return (entry, entry.number(raw)) if 0 <= raw < entry.limit else None

    def by_value(self, raw: int) -> tuple[AvlId, dict[str, Any]] | None:
        found: tuple[AvlId, dict[str, Any]] | None = None
        for limit, entry in self.numbers:
            if not 0 <= raw < limit:
                continue
            if entry is None:
                return None
            made = entry.number(raw)
            if found is not None and (found[0].name, found[1]) != (entry.name, made):
                return None
            found = entry, made
        return found

    def by_bytes(
        self, raw: Any, data: bytes, width: int | None
    ) -> tuple[AvlId, dict[str, Any]] | None:
        """Return the meaning of a value that is not a number.

        :param raw: the value in the attributes.
        :param data: its bytes.
        :param width: None if the length is variable, or not known.
        """
        entry = self.sizes.get(_BUFFER) if len(data) == _BUFFER else None
        if entry is None and width is None:
            entry = self.sizes.get(_VARIABLE)
        return None if entry is None else (entry, entry.buffer(raw, data))


def _element(element_id: int, sizes: _Sizes, decided: Mapping[int, _Decided]) -> _Element:
    numbers = tuple(
        (256**size, entry) for size, entry in sizes.items() if size not in (_VARIABLE, _BUFFER)
    )
    disputed = {size for size, entry in sizes.items() if entry is None}
    return _Element(
        element_id, sizes, numbers, {size: decided[size] for size in disputed & decided.keys()}
    )


@frozen
class Names:
    """Names of the attributes of devices of one model."""

    _elements: Mapping[str, _Element]
    """Attribute key → the meanings of the id."""

    def named(
        self, attributes: Mapping[str, Any], widths: Mapping[int, int] | None
    ) -> dict[str, Any]:
        """See :class:`tracker.interfaces.INaming`."""
        made: dict[str, Any] = {}
        elements = self._elements
        for key, raw in attributes.items():
            element = elements.get(key)
            if element is None:
                continue
            found = _described(element, raw, widths)
            if found is not None:
                name = found[0].name
                made[name if name not in made else f"{name} ({key})"] = found[1]
        return made

    def element(
        self, element_id: int, width: int, value: int | bytes, widths: Mapping[int, int]
    ) -> tuple[str, dict[str, Any]] | None:
        """Return the name of an element, and what :class:`tracker.interfaces.INaming` says of it.

        :param width: size of the value in bytes; 0 if its length is variable.
        :param value: the number or the bytes of the wire.
        :param widths: sizes of the record's elements, see :attr:`tracker.extra.Extra.widths`.
        :return: None if the element has no name.
        """
        element = self._elements.get(str(element_id))
        if element is None:
            return None
        if isinstance(value, bytes):
            found = element.by_bytes(None, value, width or None)
        else:
            found = element.by_width(value, width) or element.by_companions(value, width, widths)
        return None if found is None else (found[0].name, found[1])


def _described(
    element: _Element, raw: Any, widths: Mapping[int, int] | None
) -> tuple[AvlId, dict[str, Any]] | None:
    if isinstance(raw, Mapping):
        if "__buffer_b64" in raw:
            data = buffer_of(raw)
            if data is None:
                return None
            width = None if widths is None else widths.get(element.id)
            return element.by_bytes(raw, data, width)
        raw = _big(raw.get("__bigint"))
    if type(raw) is not int:
        return None
    if widths is None:
        return element.by_value(raw)
    width = widths.get(element.id)
    return element.by_width(raw, width) or element.by_companions(raw, width, widths)


def _big(text: Any) -> int | None:
    """Return a number of 64 bits, which payloads hold as text; None if it is malformed."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 20:
        return int(text)
    return None


class NoList(ValueError):
    """A model without a list; the message is one line."""


class Naming:
    """Names of attributes by the lists of this package and by those of the user.

    :param models: model → meanings that take precedence over the lists of this package.
    :param default_model: model of devices whose model is unknown; None: it stays unknown.
    :raises NoList: if the default model is in no list.
    """

    def __init__(
        self, models: Mapping[str, Iterable[AvlId]], default_model: str | None = None
    ) -> None:
        self._entries = load()
        self._groups = load_groups()
        self._own = {_plain(model): tuple(entries) for model, entries in models.items()}
        self._named = {name for entry in self._entries for name in entry.models}
        self._shared: dict[tuple[tuple[str, ...], str], Names] = {}
        self._by_text: dict[str, Names] = {}
        if default_model is not None and not self.knows(default_model):
            raise NoList(
                f"{shown(default_model)}: no list of this model. Use a similar one, such as FMB920"
            )
        self._unknown = self._names_of(default_model or "")

    def knows(self, model: str) -> bool:
        """See :class:`tracker.interfaces.INaming`."""
        return bool(self._own_of(model) or self._lists(_normal(model)))

    def named(
        self,
        attributes: Mapping[str, Any],
        widths: Mapping[int, int] | None,
        model: str | None,
        codec: str = "",
    ) -> dict[str, Any]:
        """See :class:`tracker.interfaces.INaming`."""
        # The trackers that send Codec 7 have numbers of their own for elements.
        return {} if codec == CODEC_7 else self.names(model).named(attributes, widths)

    def names(self, model: str | None) -> Names:
        """Return the names for a model.

        :param model: None for the default model.
        """
        if model is None:
            return self._unknown
        names = self._by_text.get(model)
        if names is None:
            if len(self._by_text) >= _MAX_CACHED:
                self._by_text.clear()
            names = self._by_text[model] = self._names_of(model)
        return names

    def _lists(self, model: str) -> tuple[str, ...]:
        """Return the values of :attr:`AvlId.models` that include a model."""
        lists = self._groups.of(model)
        if model in self._named and model not in self._groups.members:
            lists.append(model)
        return tuple(lists)

    def _own_of(self, model: str) -> str:
        """Return the model of the user's meanings: the variant's, else the model's, else empty."""
        return next((own for own in (_plain(model), _normal(model)) if own in self._own), "")

    def _names_of(self, model: str) -> Names:
        """Return the names for a model; models with the same lists share them."""
        key = lists, own = self._lists(_normal(model)), self._own_of(model)
        if key not in self._shared:
            chosen = set(lists)
            table: dict[int, _Sizes] = {}
            decided: Mapping[int, Mapping[int, _Decided]] = {}
            if chosen <= self._groups.partial:  # or without a list
                aliases = load_aliases()
                table.update(_agreed(self._entries, aliases))
                decided = _decided(self._entries, aliases, load_companions())
            table.update(_by_id(self._entries, chosen))
            table.update(_by_id(self._own.get(own, ())))
            self._shared[key] = Names(
                {
                    str(number): _element(number, sizes, decided.get(number, {}))
                    for number, sizes in table.items()
                }
            )
        return self._shared[key]


def _normal(model: str) -> str:
    """Return the model number in a text such as ``FMB920-QJIB0`` or ``Teltonika fmc130 LTE``."""
    text = _plain(model)
    found = _MODEL.match(text)
    if found is None:
        return text
    number = found[1] + found[2]
    return text if number[_MODEL_LENGTH:][:1].isdigit() else number[:_MODEL_LENGTH]


def _plain(model: str) -> str:
    return model.strip().upper()


def _by_id(
    entries: Iterable[AvlId], lists: Set[str] | None = None
) -> dict[int, dict[int, AvlId | None]]:
    """Return id → size → entry, of entries that are in one of these lists."""
    found: dict[int, dict[int, AvlId | None]] = {}
    for entry in entries:
        if lists is None or not lists.isdisjoint(entry.models):
            found.setdefault(entry.id, {})[entry.size] = entry
    return found


def _agreed(entries: Iterable[AvlId], aliases: Mapping[str, str]) -> Mapping[int, _Sizes]:
    """Return the meanings on which all lists agree."""
    same = {_wording(alias): name for alias, name in aliases.items()}
    found: dict[int, dict[int, AvlId | None]] = {}
    for entry in entries:
        name = same.get(_wording(entry.name), entry.name)
        if name != entry.name:
            entry = evolve(entry, name=name)
        sizes = found.setdefault(entry.id, {})
        sizes[entry.size] = _common(sizes[entry.size], entry) if entry.size in sizes else entry
    return found


def _decided(
    entries: Iterable[AvlId],
    aliases: Mapping[str, str],
    companions: Mapping[tuple[int, int], tuple[int, ...]],
) -> Mapping[int, Mapping[int, _Decided]]:
    """Return id → size → the meaning on which the lists with all companions agree.

    :param companions: see :func:`tracker.vendors.teltonika.dictionary.load_companions`.
    """
    found: dict[int, dict[int, _Decided]] = {}
    for (element_id, size), others in companions.items():
        lists = set.intersection(*(_lists_with(entries, other, size) for other in others))
        rows = [entry for entry in entries if (entry.id, entry.size) == (element_id, size)]
        rows = [entry for entry in rows if not lists.isdisjoint(entry.models)]
        entry = _agreed(rows, aliases).get(element_id, {}).get(size)
        if entry is not None:
            found.setdefault(element_id, {})[size] = _Decided(others, entry)
    return found


def _lists_with(entries: Iterable[AvlId], element_id: int, size: int) -> set[str]:
    return {
        name
        for entry in entries
        if (entry.id, entry.size) == (element_id, size)
        for name in entry.models
    }


def _common(one: AvlId | None, other: AvlId) -> AvlId | None:
    """Return what two lists have in common; None if they contradict each other."""
    if one is None or _sense(one) != _sense(other):
        return None
    lowest = (one.minimum, other.minimum)
    highest = (one.maximum, other.maximum)
    states = {**one.states, **other.states}
    return evolve(
        one,
        minimum=None if None in lowest else min(lowest),  # type: ignore[type-var]
        maximum=None if None in highest else max(highest),  # type: ignore[type-var]
        # A code that only one of the lists has is not contradicted.
        states={
            code: words
            for code, words in states.items()
            if one.states.get(code, words) == other.states.get(code, words)
        },
        errors=dict(one.errors.items() & other.errors.items()),
    )


def _sense(entry: AvlId) -> tuple[Any, ...]:
    return _wording(entry.name), entry.signed, entry.multiplier, entry.unit, entry.is_text


def _wording(name: str) -> str:
    return re.sub("[^0-9a-z]", "", name.lower())
