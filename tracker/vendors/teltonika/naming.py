"""Names of the attributes of positions, with units and with signed and scaled values.

A payload has an element's id and its unsigned value, but neither its size nor the device's model.
The model, if it is known, selects an entry of the dictionary; the entry applies only if the value
fits into its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tracker.vendors.teltonika.dictionary import AvlId, Dictionary, load

#: Families of the dictionary that apply to devices of unknown model.
_DEFAULT_FAMILY: Final = "FMB/FMC/FMM"

_MAX_ID_DIGITS: Final = 5

_ById = Mapping[int, tuple[AvlId, ...]]


class Naming:
    """Names of attributes by the built-in dictionary and by those of single models."""

    def __init__(self, models: Mapping[str, Dictionary]) -> None:
        """Load the built-in dictionary.

        :param models: model → dictionary that takes precedence over the built-in one.
        """
        self._default = _by_id(load())
        self._models = {model: _by_id(dictionary) for model, dictionary in models.items()}

    def named(
        self, attributes: Mapping[str, Any], widths: Mapping[int, int] | None, model: str | None
    ) -> dict[str, Any]:
        """See :class:`tracker.interfaces.INaming`.

        Attributes without a matching entry and those with a key that is not an id are omitted.
        """
        own = self._models.get(model or "", {})
        made: dict[str, Any] = {}
        for key, raw in attributes.items():
            if not (key.isascii() and key.isdigit() and len(key) <= _MAX_ID_DIGITS):
                continue
            element_id = int(key)
            candidates = own.get(element_id) or _of_family(self._default.get(element_id, ()), model)
            for entry in candidates:
                value = _value(entry, raw)
                if value is not None:
                    name = entry.name if entry.name not in made else f"{entry.name} ({key})"
                    made[name] = {"id": element_id, "value": value}
                    if entry.unit:
                        made[name]["unit"] = entry.unit
                    break
        return made


def _by_id(dictionary: Dictionary) -> _ById:
    found: dict[int, tuple[AvlId, ...]] = {}
    for entry in dictionary.entries.values():
        found[entry.id] = (*found.get(entry.id, ()), entry)
    return found


def _of_family(entries: Iterable[AvlId], model: str | None) -> list[AvlId]:
    """Return the entries of the model's family, else of the default family, else all."""
    entries = list(entries)
    if len(entries) < 2:
        return entries
    if model is not None:
        families = tuple(model.upper()[:length] for length in range(2, len(model) + 1))
        own = [entry for entry in entries if set(entry.models.split("/")) & set(families)]
        if own:
            return own
    return [entry for entry in entries if entry.models == _DEFAULT_FAMILY] or entries


def _value(entry: AvlId, raw: Any) -> Any:
    """Return the value of an attribute by this entry; None if it does not fit."""
    if isinstance(raw, dict):
        if "__buffer_b64" in raw:
            return raw if entry.size == 0 else None
        number = raw.get("__bigint")
        if entry.size != 8 or not isinstance(number, str):
            return None
        # Not scaled: the number is too large to be kept exactly by all readers of JSON.
        return raw
    if isinstance(raw, bool) or not isinstance(raw, int):
        return None
    return entry.scaled(raw) if 0 <= raw < 256**entry.size and entry.size else None
