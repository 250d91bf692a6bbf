"""The double of Directus behaves as tests/directus/test_double.py shows the real one does."""

from __future__ import annotations

from tests.unit.bridge.behaviour import *  # noqa: F403
