"""The double of the unit tests is faithful: the real one passes the same tests."""

from __future__ import annotations

from tests.unit.bridge.behaviour import *  # noqa: F403
