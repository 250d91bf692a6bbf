"""The attributes of positions by name, with units and as signed and scaled values.

A payload tells an element's id and its unsigned value, and neither its size nor its
device's model. So an entry of the dictionary is chosen by the model, where that is known,
and is taken only if the value fits into its size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from tracker.vendors.teltonika.dictionary import AvlId, Dictionary, load

#: The families of the dictionary that a device is taken for whose model is not known.
_USUAL: Final = "FMB/FMC/FMM"

_LONGEST_ID: Final = 5

_ById = Mapping[int, tuple[AvlId, ...]]


class Naming:
    """Names attributes by the built-in dictionary, and by those of single models."""

    def __init__(self, models: Mapping[str, Dictionary]) -> None:
        """:param models: model → entries that hold for it, before the built-in ones."""
        self._usual = _by_id(load())
        self._models = {model: _by_id(dictionary) for model, dictionary in models.items()}

    def named(self, attributes: Mapping[str, Any], model: str | None) -> dict[str, Any]:
        """See :class:`tracker.interfaces.INaming`.

        Attributes are left out that no entry fits, or whose key is no id.
        """
        own = self._models.get(model or "", {})
        made: dict[str, Any] = {}
        for key, raw in attributes.items():
            if not (key.isascii() and key.isdigit() and len(key) <= _LONGEST_ID):
                continue
            element_id = int(key)
            candidates = own.get(element_id) or _of_family(self._usual.get(element_id, ()), model)
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
    """Those of the model's family, else of the usual ones; without any of them, all."""
    entries = list(entries)
    if len(entries) < 2:
        return entries
    if model is not None:
        families = tuple(model.upper()[:length] for length in range(2, len(model) + 1))
        own = [entry for entry in entries if set(entry.models.split("/")) & set(families)]
        if own:
            return own
    return [entry for entry in entries if entry.models == _USUAL] or entries


def _value(entry: AvlId, raw: Any) -> Any:
    """What an attribute says by this entry; None where it does not fit."""
    if isinstance(raw, dict):
        if "__buffer_b64" in raw:
            return raw if entry.size == 0 else None
        number = raw.get("__bigint")
        if entry.size != 8 or not isinstance(number, str):
            return None
        # A scale has no use for so large a number, and a reader might not keep it exact.
        return raw
    if isinstance(raw, bool) or not isinstance(raw, int):
        return None
    return entry.scaled(raw) if 0 <= raw < 256**entry.size and entry.size else None
