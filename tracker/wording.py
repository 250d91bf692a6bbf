"""Wording that log lines, messages and findings share."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun, such as "1 entry" or "2,000 entries".

    :param one: the noun for 1, with its adjectives.
    :param many: the noun for other numbers, if it is not ``one`` with an ``s``.
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
