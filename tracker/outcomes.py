"""The four things that a decoder can say about the bytes it was given.

``reason`` says in words what is wrong. ``field``, ``expected`` and ``found`` say the same
in parts, for those who look at the bytes; they do not make two outcomes different.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs
from attrs import frozen

T_co = TypeVar("T_co", covariant=True)


@frozen
class Decoded(Generic[T_co]):
    """A value, made of the first ``used`` bytes."""

    value: T_co
    used: int


@frozen
class Incomplete:
    """All is well so far; at least ``missing`` more bytes are needed."""

    missing: int


@frozen
class Rejected:
    """The first ``used`` bytes are a delimited unit that makes no sense; the next one may."""

    used: int
    offset: int
    """Where in the unit the field begins that makes no sense."""
    reason: str
    field: str = attrs.field(default="", kw_only=True, eq=False)
    """Name of that field."""
    expected: str = attrs.field(default="", kw_only=True, eq=False)
    """What would have been right there."""
    found: str = attrs.field(default="", kw_only=True, eq=False)
    """What is there; nothing in it but printable ASCII."""


@frozen
class Fatal:
    """Where the next unit begins cannot be known any more: the connection is of no further use."""

    offset: int
    """Where the field begins that makes no sense."""
    reason: str
    field: str = attrs.field(default="", kw_only=True, eq=False)
    """Name of that field."""
    expected: str = attrs.field(default="", kw_only=True, eq=False)
    """What would have been right there."""
    found: str = attrs.field(default="", kw_only=True, eq=False)
    """What is there; nothing in it but printable ASCII."""
