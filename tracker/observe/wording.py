"""Wording that log lines, messages and findings share."""

from __future__ import annotations


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return a number with its noun, such as "1 entry" or "2,000 entries".

    :param nouns: the plural, if it is not the singular with an ``s``.
    """
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"
