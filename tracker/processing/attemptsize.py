"""Number of positions in one attempt of the sink, which shrinks after timeouts."""

from __future__ import annotations

from typing import Final

#: An attempt is quick if it takes at most this fraction of the time after which the sink timed out,
#: because twice as many positions then stay far below that time; or at most these seconds.
_QUICK: Final = 0.25
_QUICK_SECONDS: Final = 0.5
#: Number of consecutive slow successes after which the size is doubled, because the reason may be
#: other than the number of positions.
_MAX_SLOW: Final = 8


class AttemptSize:
    """Maximum number of positions in one attempt.

    A timeout halves it, down to 1. A quick success doubles it, and so do several consecutive slow
    ones, up to ``full``.
    """

    def __init__(self, full: int) -> None:
        self.full = full
        self.limit = full
        self._quick = _QUICK_SECONDS
        self._slow = 0

    def timed_out(self, count: int, seconds: float) -> None:
        """Halve the size after an attempt with ``count`` positions timed out after ``seconds``."""
        self.limit = max(1, count // 2)
        self._quick = max(_QUICK_SECONDS, _QUICK * seconds)
        self._slow = 0

    def succeeded(self, seconds: float) -> None:
        """Grow the size, if possible, after an attempt that succeeded within ``seconds``."""
        if self.limit == self.full:
            return
        self._slow += 1
        if seconds <= self._quick or self._slow >= _MAX_SLOW:
            self.limit = min(2 * self.limit, self.full)
            self._slow = 0
