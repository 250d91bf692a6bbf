"""The number of positions that the sink is given at once: fewer after a timeout."""

from __future__ import annotations

from typing import Final

#: An attempt is quick if it takes at most this part of the time after which the sink timed out,
#: so that twice as many positions stay far below that time; or at most these seconds.
_QUICK: Final = 0.25
_QUICK_SECONDS: Final = 0.5
#: Slow successes in a row after which more positions are tried all the same, since something
#: else than their number may make them slow.
_MAX_SLOW: Final = 8


class AttemptSize:
    """The maximal number of positions in one attempt.

    A timeout halves it, down to one. A quick success, or several slow ones in a row, double it
    until it is back at ``full``.
    """

    def __init__(self, full: int) -> None:
        self.full = full
        self.limit = full
        self._quick = _QUICK_SECONDS
        self._slow = 0

    def timed_out(self, count: int, seconds: float) -> None:
        """Note that an attempt with ``count`` positions timed out after ``seconds``."""
        self.limit = max(1, count // 2)
        self._quick = max(_QUICK_SECONDS, _QUICK * seconds)
        self._slow = 0

    def succeeded(self, seconds: float) -> None:
        """Note that an attempt succeeded within ``seconds``."""
        if self.limit == self.full:
            return
        self._slow += 1
        if seconds <= self._quick or self._slow >= _MAX_SLOW:
            self.limit = min(2 * self.limit, self.full)
            self._slow = 0
