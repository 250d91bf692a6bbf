"""The collections of the bridge, with the choices and the device IDs of the installed vendors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from tracker.bridge.schema import COLLECTIONS, Collection
from tracker.vendors.installed import command_codecs, device_id_forms, installed_vendors


def collections() -> tuple[Collection, ...]:
    """Return the collections, whose fields offer the installed vendors and their codecs.

    A device ID must have the form of one of these vendors.
    """
    vendors = installed_vendors()
    choices = {
        "vendor": [{"text": name, "value": name} for name in vendors],
        "codec": [
            {"text": f"{codec} ({', '.join(names)})", "value": codec}
            for codec, names in command_codecs(vendors).items()
        ],
    }
    patterns = dict.fromkeys(vendor.device_id_pattern for vendor in vendors.values())
    id_rule = {
        "validation": {"_and": [{"imei": {"_regex": f"^({'|'.join(patterns)})$"}}]},
        "validation_message": f"The ID must be {device_id_forms(vendors)}.",
    }

    def completed(field: Mapping[str, Any]) -> Mapping[str, Any]:
        meta = field["meta"]
        if field["field"] in choices:
            meta = {**meta, "options": {**meta["options"], "choices": choices[field["field"]]}}
        elif field["field"] == "imei":
            meta = {**meta, **id_rule}
        return {**field, "meta": meta}

    return tuple(
        evolve(one, fields=[completed(field) for field in one.fields]) for one in COLLECTIONS
    )
