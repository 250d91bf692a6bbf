"""Waits for a condition, with a deadline, in place of fixed sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.task import deferLater

T = TypeVar("T")

_POLL = 0.02  # seconds


def wait_for(condition: Callable[[], T], what: str, timeout: float = 20.0) -> T:
    """Call ``condition`` until its value is true, and return the value; for plain tests."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(_POLL)
    return value


async def until(condition: Callable[[], T], what: str, timeout: float = 20.0) -> T:
    """Call ``condition`` until its value is true; for tests that run on the reactor."""
    from twisted.internet import reactor

    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        await deferLater(reactor, _POLL)
    return value
