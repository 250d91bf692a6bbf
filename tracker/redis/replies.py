"""Replies of Redis as Python's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def mapping(reply: Sequence[T]) -> dict[T, T]:
    """Return a map that Redis sent as names and values in turn (RESP2).

    Of a name that occurs twice, the last value is returned.

    :raises ValueError: if the last name has no value.
    """
    return dict(zip(reply[::2], reply[1::2], strict=True))


def info_facts(reply: bytes) -> dict[str, str]:
    """Return the facts of a reply to INFO, of all its sections."""
    lines = reply.decode(errors="backslashreplace").splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}
