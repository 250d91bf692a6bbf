"""Log lines that a peer can cause, kept to a number that a person can read."""

from __future__ import annotations

from typing import Any, Final

#: Lines a minute of one kind, unless the caller allows another number.
MAX_LINES: Final = 10


class RateLimit:
    """Admits ``limit`` events in each ``period`` (seconds), and counts the rest."""

    def __init__(self, clock: Any, limit: int = MAX_LINES, period: float = 60.0) -> None:
        self._clock = clock
        self._limit = limit
        self._period = period
        self._period_ends = clock.seconds() + period
        self._admitted = 0
        self._suppressed = 0

    def admit(self) -> int | None:
        """Return None if the event is suppressed, else the number suppressed since the last one."""
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


def and_more(suppressed: int) -> str:
    """Return the end of a log line: how many lines like it were suppressed before it."""
    return f" (and {suppressed} more, not shown)" if suppressed else ""
