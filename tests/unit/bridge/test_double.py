"""The double of Directus passes the same tests as a real Directus in ``tests/directus``."""

from __future__ import annotations

from tests.unit.bridge.behaviour import *  # noqa: F403
