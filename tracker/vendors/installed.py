"""The installed vendors, and the IDs of their devices."""

from __future__ import annotations

from twisted.plugin import getPlugins

from tracker.interfaces import IVendor


def installed_vendors() -> dict[str, IVendor]:
    """Return name → vendor of the installed plugins, in the order of their names."""
    return {one.name: one for one in sorted(getPlugins(IVendor), key=lambda one: one.name)}


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
    forms = dict.fromkeys(vendor.device_id_form for vendor in known.values())
    raise ValueError(f"must be {' or '.join(forms)}")
