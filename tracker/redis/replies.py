"""Conversion of Redis replies to Python values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def mapping(reply: Sequence[T]) -> dict[T, T]:
    """Return a mapping that Redis sent as alternating names and values (RESP2).

    If a name is repeated, its last value counts.

    :raises ValueError: if the last name has no value.
    """
    return dict(zip(reply[::2], reply[1::2], strict=True))


def info_fields(reply: bytes) -> dict[str, str]:
    """Return the fields of a reply to INFO, from all of its sections."""
    lines = reply.decode(errors="backslashreplace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}
