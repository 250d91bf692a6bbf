"""Vendors that the command line knows."""

from __future__ import annotations

import click
from twisted.plugin import getPlugins

from tracker.interfaces import IVendor
from tracker.untrusted import listed, shown


def vendor_names() -> list[str]:
    """Return the names of the installed vendors."""
    return sorted(vendor.name for vendor in getPlugins(IVendor))


def check_vendor(name: str) -> None:
    """Check that a vendor is installed.

    :raises click.UsageError: if it is not; the message lists those that are.
    """
    if name not in (names := vendor_names()):
        raise click.UsageError(f"Unknown vendor '{shown(name)}'. Known: {listed(names)}.")
