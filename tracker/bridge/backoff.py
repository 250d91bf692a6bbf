"""How long to wait before something is tried again that has failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

#: Seconds that somebody who asks to be left alone is left alone at most.
LONGEST_RETRY_AFTER: Final = 600.0


class Backoff:
    """Waits longer with each failure in a row, and never as long as others do.

    :param random: returns a number from 0 up to 1, as ``random.random``.
    :param clock: what tells the time, and waits.
    :param first: seconds after the first failure, on average three quarters of it.
    :param longest: seconds, however often it has failed.
    :param told: called at each failure.
    """

    def __init__(
        self,
        random: Callable[[], float],
        clock: Any,
        first: float = 0.5,
        longest: float = 60.0,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self.failures = 0
        """In a row."""
        self._random = random
        self._clock = clock
        self._first = first
        self._longest = longest
        self._told = told
        self._until = clock.seconds()

    def failed(self, retry_after: float | None = None) -> float:
        """It has failed.

        :param retry_after: seconds that the other side has asked for.
        :return: seconds from now on until it is to be tried again.
        """
        # The exponent is bounded, or it would no longer be a float one day.
        step = min(self._longest, self._first * 2.0 ** min(self.failures, 64))
        self.failures += 1
        self._told()
        seconds = step * (0.5 + self._random() / 2)
        if retry_after is not None:
            # Beyond what was asked for: it has asked all others for the same.
            seconds += min(retry_after, LONGEST_RETRY_AFTER)
        self._until = self._clock.seconds() + seconds
        return seconds

    def succeeded(self) -> None:
        """It went well: the next failure is a first one."""
        self.failures = 0
        self._until = self._clock.seconds()

    @property
    def left(self) -> float:
        """Seconds that are left until it is to be tried again."""
        return float(max(0.0, self._until - self._clock.seconds()))

    def wait(self) -> Deferred[None]:
        """Fires when it is to be tried again; may be cancelled."""
        if not self.left:
            return succeed(None)
        return deferLater(self._clock, self.left)
