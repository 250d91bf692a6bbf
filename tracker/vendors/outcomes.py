"""The four things that a decoder can say about the bytes it was given."""

from __future__ import annotations

from typing import Generic, TypeVar

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
    """Where in the unit it went wrong."""
    reason: str


@frozen
class Fatal:
    """Where the next unit begins cannot be known any more: the connection is of no further use."""

    offset: int
    reason: str
