"""Processors that wait less than in production."""

from __future__ import annotations

import pytest

from tracker.processing import consumer, reading, storing


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_WAIT", 0.2)
    for module in (consumer, storing):
        monkeypatch.setattr(module, "FIRST_RETRY", 0.05)
        monkeypatch.setattr(module, "LAST_RETRY", 0.3)
