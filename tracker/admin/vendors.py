"""Vendors that the command line knows."""

from __future__ import annotations

import click

from tracker.untrusted import listed, shown
from tracker.vendors.installed import installed_vendors


def vendor_names() -> list[str]:
    """Return the names of the installed vendors."""
    return list(installed_vendors())


def check_vendor(name: str) -> None:
    """Check that a vendor is installed.

    :raises click.UsageError: if it is not; the message lists those that are.
    """
    if name not in (names := vendor_names()):
        raise click.UsageError(f"Unknown vendor '{shown(name)}'. Known: {listed(names)}.")
