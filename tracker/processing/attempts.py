"""How many positions the sink is given at once: fewer after it timed out."""

from __future__ import annotations

from typing import Final

#: An attempt is quick that takes no more than this part of the time after which the sink timed
#: out, so that twice as many positions stay far below it, or no more than these seconds.
_QUICK: Final = 0.25
_QUICK_SECONDS: Final = 0.5
#: Slow successes after which more positions are tried all the same: what makes them slow may
#: not be their number.
_PATIENCE: Final = 8


class AttemptSize:
    """The positions of one attempt at most.

    A time-out halves it, down to one. A success doubles it if it was quick, as do some slow
    ones in a row, until it is back at ``full``.
    """

    def __init__(self, full: int) -> None:
        self.full = full
        self.limit = full
        self._quick = _QUICK_SECONDS
        self._slow = 0

    def timed_out(self, count: int, seconds: float) -> None:
        """An attempt with so many positions has timed out after some time."""
        self.limit = max(1, count // 2)
        self._quick = max(_QUICK_SECONDS, _QUICK * seconds)
        self._slow = 0

    def succeeded(self, seconds: float) -> None:
        """An attempt has succeeded within some time."""
        if self.limit == self.full:
            return
        self._slow += 1
        if seconds <= self._quick or self._slow >= _PATIENCE:
            self.limit = min(2 * self.limit, self.full)
            self._slow = 0
