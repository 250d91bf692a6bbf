"""Unit tests are the same run each time: properties are tried on a fixed choice of examples."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", derandomize=True, deadline=None, max_examples=100, database=None)
settings.load_profile("unit")
