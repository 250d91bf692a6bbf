"""The four outcomes of a decoder.

``reason`` describes an error in words. ``field``, ``expected`` and ``found`` describe the same
error in parts, for tools that show the bytes; outcomes that differ only in them are equal.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
from attrs import frozen

T_co = TypeVar("T_co", covariant=True)


@frozen
class Decoded(Generic[T_co]):
    """A value, decoded from the first ``used`` bytes."""

    value: T_co
    used: int


@frozen
class Incomplete:
    """The bytes are valid so far, and at least ``missing`` more bytes are needed."""

    missing: int


@frozen
class Rejected:
    """The first ``used`` bytes are an invalid frame; the next frame follows them."""

    used: int
    offset: int
    """Offset of the invalid field in the frame."""
    reason: str
    field: str = attrs.field(default="", kw_only=True, eq=False)
    """Name of the invalid field."""
    expected: str = attrs.field(default="", kw_only=True, eq=False)
    """Description of a valid value of the field."""
    found: str = attrs.field(default="", kw_only=True, eq=False)
    """The invalid value, in printable ASCII."""


@frozen
class Fatal:
    """The bytes are invalid, and the start of the next frame cannot be found."""

    offset: int
    """Offset of the invalid field in the bytes."""
    reason: str
    field: str = attrs.field(default="", kw_only=True, eq=False)
    """Name of the invalid field."""
    expected: str = attrs.field(default="", kw_only=True, eq=False)
    """Description of a valid value of the field."""
    found: str = attrs.field(default="", kw_only=True, eq=False)
    """The invalid value, in printable ASCII."""


def as_fatal(error: Rejected | Fatal, shift: int = 0, reason: str = "") -> Fatal:
    """Return an error after which nothing more is decoded.

    :param shift: number of bytes before those that the error is about.
    :param reason: replaces the reason, unless it is empty.
    """
    return Fatal(
        error.offset + shift,
        reason or error.reason,
        field=error.field,
        expected=error.expected,
        found=error.found,
    )
