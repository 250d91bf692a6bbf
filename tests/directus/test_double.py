"""A real Directus passes the same tests as the double of the unit tests."""

from __future__ import annotations

from tests.unit.bridge.behaviour import *  # noqa: F403
