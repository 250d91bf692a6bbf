"""The installed vendors, and the IDs of their devices."""

from __future__ import annotations

from functools import cache

from twisted.plugin import getPlugins

from tracker.interfaces import IVendor


def installed_vendors() -> dict[str, IVendor]:
    """Return name → vendor of the installed plugins, in the order of their names."""
    return {one.name: one for one in _plugins()}


@cache  # getPlugins reads its folders again, which takes 0.6 ms, and each command asks
def _plugins() -> tuple[IVendor, ...]:
    return tuple(sorted(getPlugins(IVendor), key=lambda one: one.name))


def checked_device_id(text: str, vendors: dict[str, IVendor] | None = None) -> str:
    """Return a device ID, given by a person or another program, in the form of the entries.

    :param vendors: the vendors whose IDs are valid; None: all installed ones.
    :raises ValueError: if no vendor has such IDs. The message is one line, and gives their forms.
    """
    known = installed_vendors() if vendors is None else vendors
    for vendor in known.values():
        try:
            return vendor.device_id(text)
        except ValueError:
            continue
    raise ValueError(f"must be {device_id_forms(known)}")


def device_id_forms(vendors: dict[str, IVendor]) -> str:
    """Return the forms of the device IDs of these vendors, for messages."""
    forms = " or ".join(vendor.device_id_form for vendor in vendors.values()).split(" or ")
    return " or ".join(dict.fromkeys(forms))


def command_codecs(vendors: dict[str, IVendor]) -> dict[str, list[str]]:
    """Return codec → names of the vendors whose commands may have it."""
    codecs: dict[str, list[str]] = {}
    for vendor in vendors.values():
        for codec in vendor.command_codecs:
            codecs.setdefault(codec, []).append(vendor.name)
    return codecs
