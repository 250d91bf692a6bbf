"""Fixtures for services of the bridge between a real Redis and a double of Directus."""

from __future__ import annotations

import pytest

from tracker.bridge import devices, responses


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals of production."""
    monkeypatch.setattr(responses, "READ_WAIT", 0.2)
    monkeypatch.setattr(responses, "RETRY_DELAY", 0.1)
    monkeypatch.setattr(devices, "ANNOUNCEMENT_DELAY", 0.1)
