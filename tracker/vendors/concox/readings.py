"""Content of a frame with its fields, and what the readers of contents share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from tracker.position import attribute
from tracker.vendors.concox.fields import Gps

#: Attribute with the bytes that follow the layout of a content.
TRAILING: Final = "trailing"


class Reading(NamedTuple):
    """A content with its fields."""

    attributes: dict[str, Any]
    """In the form of the payload's ``attributes``."""
    gps: Gps | None = None
    date: bytes = b""
    """The time of the content, see :func:`~tracker.vendors.concox.fields.milliseconds`; empty if it
    has none, or has a GPS block."""
    text: str | None = None
    """The text that the content carries; None if it carries none."""
    data: bytes | None = None
    """The bytes that the content carries; None: all of the content."""
    buffered: bool = False
    """True if the device has kept the position, and sends it later."""
    altitude: int | None = None
    """Metres above sea level."""
    alarm: int | None = None
    """Code of an alarm; None if the frame is none."""


#: Reads a content. Raises :class:`Mismatch`, ``struct.error`` or ``IndexError`` if it does not
#: agree with the layout.
Reader = Callable[[bytes], Reading]


class Mismatch(ValueError):
    """The content does not agree with the layout."""


def keep_trailing(attributes: dict[str, Any], content: bytes, offset: int) -> None:
    """Add the bytes from an offset to the attributes, if there are any."""
    if offset < len(content):
        attributes[TRAILING] = attribute(content[offset:])


def check_length(content: bytes, length: int) -> None:
    """Raise :class:`Mismatch` if the content has another length."""
    if len(content) != length:
        raise Mismatch
