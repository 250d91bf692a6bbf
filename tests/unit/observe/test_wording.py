"""Plurals."""

from __future__ import annotations

import pytest

from tracker.observe.wording import plural


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, "", "0 devices"),
        (1, "", "1 device"),
        (2, "pieces", "2 pieces"),
        (20_000, "", "20,000 devices"),
    ],
)
def test_noun_agrees_with_its_number(count: int, nouns: str, text: str) -> None:
    assert plural(count, "device", nouns) == text
