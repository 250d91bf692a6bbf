"""Make unit tests repeatable: Hypothesis uses the same examples in each run."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", derandomize=True, deadline=None, max_examples=100, database=None)
settings.load_profile("unit")
