"""Vendors that the command line knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from tracker.interfaces import IVendor
from tracker.untrusted import listed, shown
from tracker.vendors.installed import installed_vendors

ToolT = TypeVar("ToolT")


def vendor_names() -> list[str]:
    """Return the names of the installed vendors."""
    return list(installed_vendors())


def check_vendor(name: str) -> None:
    """Check that a vendor is installed.

    :raises click.UsageError: if it is not; the message lists those that are.
    """
    if name not in (names := vendor_names()):
        raise click.UsageError(f"Unknown vendor '{shown(name)}'. Known: {listed(names)}.")


def tools(
    tool_of: Callable[[IVendor], ToolT | None], vendor: str | None = None
) -> dict[str, ToolT]:
    """Return vendor → its tool of a kind.

    :param tool_of: returns the tool of a vendor, or None.
    :param vendor: name of an installed vendor; None: all of them.
    :raises click.UsageError: if no vendor has the tool.
    """
    known = installed_vendors()
    names = list(known) if vendor is None else [vendor]
    found = {name: tool for name in names if (tool := tool_of(known[name])) is not None}
    if not found:
        raise click.UsageError(f"{listed(names)}: the plugin has no such tool.")
    return found


class VendorName(click.ParamType):  # type: ignore[type-arg]
    """The name of an installed vendor."""

    name = "NAME"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """See ParamType."""
        check_vendor(value)
        return str(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """See ParamType."""
        return [CompletionItem(name) for name in vendor_names() if name.startswith(incomplete)]
