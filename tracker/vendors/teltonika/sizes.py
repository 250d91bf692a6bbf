"""Sizes in the words of error messages."""

from __future__ import annotations


def byte_count(number: int) -> str:
    """Return a number of bytes as text, such as ``1 byte`` or ``2 bytes``."""
    return "1 byte" if number == 1 else f"{number} bytes"
