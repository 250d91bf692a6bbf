"""The collections of the bridge, with the choices that the installed vendors offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from tracker.bridge.schema import COLLECTIONS, Collection
from tracker.vendors.installed import installed_vendors

_Choices = Sequence[Mapping[str, str]]


def collections() -> tuple[Collection, ...]:
    """Return the collections, whose fields offer the installed vendors and their codecs."""
    vendors = installed_vendors()
    owners: dict[str, list[str]] = {}
    for vendor in vendors.values():
        for codec in vendor.command_codecs:
            owners.setdefault(codec, []).append(vendor.name)
    choices = {
        "vendor": [{"text": name, "value": name} for name in vendors],
        "codec": [
            {"text": f"{codec} ({', '.join(names)})", "value": codec}
            for codec, names in owners.items()
        ],
    }
    return tuple(
        evolve(one, fields=[_with_choices(field, choices) for field in one.fields])
        for one in COLLECTIONS
    )


def _with_choices(field: Mapping[str, Any], choices: Mapping[str, _Choices]) -> Mapping[str, Any]:
    if field["field"] not in choices:
        return field
    options = {**field["meta"]["options"], "choices": choices[field["field"]]}
    return {**field, "meta": {**field["meta"], "options": options}}
