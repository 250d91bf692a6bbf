"""How many positions the sink is given at once: fewer after it timed out."""

from __future__ import annotations

from typing import Final

#: Part of the time after which the sink timed out: twice as many positions, stored within
#: twice that, then stay far below it.
_QUICK: Final = 0.25
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
        self._timed_out_after = 0.0
        self._slow = 0

    def timed_out(self, count: int, seconds: float) -> None:
        """An attempt with so many positions has timed out after some time."""
        self.limit = max(1, count // 2)
        self._timed_out_after = seconds
        self._slow = 0

    def succeeded(self, seconds: float) -> None:
        """An attempt has succeeded within some time."""
        if self.limit == self.full:
            return
        self._slow += 1
        if seconds <= _QUICK * self._timed_out_after or self._slow >= _PATIENCE:
            self.limit = min(2 * self.limit, self.full)
            self._slow = 0
