"""Log lines that a peer can cause, kept to a number that a person can read."""

from __future__ import annotations

from typing import Any


class RateLimit:
    """Lets ``limit`` events a ``period`` (seconds) through, and counts the rest."""

    def __init__(self, clock: Any, limit: int, period: float) -> None:
        self._clock = clock
        self._limit = limit
        self._period = period
        self._period_ends = clock.seconds() + period
        self._admitted = 0
        self._suppressed = 0

    def admit(self) -> int | None:
        """Whether this event may pass: None when not, else how many did not since the last."""
        now = self._clock.seconds()
        if now >= self._period_ends:
            self._period_ends = now + self._period
            self._admitted = 0
        if self._admitted >= self._limit:
            self._suppressed += 1
            return None
        self._admitted += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
