"""Fixtures: an ingest instance with fakes around it."""

from __future__ import annotations

import pytest

from tests.unit.ingestion.instancebench import (
    Bench,
)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.clock.advance(0)
    for call in bench.clock.getDelayedCalls():
        call.cancel()  # the timer of the device registry
    return bench


@pytest.fixture
def drained(bench: Bench) -> Bench:
    """Provide a bench whose ports stop at once."""
    bench.stop_listening()
    return bench
