"""Shorter delays of processors."""

from __future__ import annotations

import pytest

from tracker.processing import consumer, reading, storing


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_WAIT", 0.2)
    for module in (consumer, storing):
        monkeypatch.setattr(module, "MIN_RETRY_DELAY", 0.05)
        monkeypatch.setattr(module, "MAX_RETRY_DELAY", 0.3)
