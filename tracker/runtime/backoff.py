"""Delays before something that has failed is retried."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

#: Upper limit of the seconds that a peer can ask for.
MAX_RETRY_AFTER: Final = 600.0


class Backoff:
    """Delays that double with each failure in a row, with jitter.

    :param first_delay: seconds after the first failure. Each delay is between half of the nominal
        delay and all of it.
    :param max_delay: upper limit of a delay, in seconds.
    :param random: returns a number from 0 up to 1, as ``random.random``.
    :param on_failure: called at each failure.
    """

    def __init__(
        self,
        clock: IReactorTime,
        first_delay: float = 0.5,
        max_delay: float = 60.0,
        *,
        random: Callable[[], float] = random.random,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.failures = 0
        """Failures in a row."""
        self._clock = clock
        self._first_delay = first_delay
        self._max_delay = max_delay
        self._random = random
        self._on_failure = on_failure
        self._until = clock.seconds()

    def failed(self, retry_after: float | None = None) -> float:
        """Count a failure; return the seconds until the next attempt.

        :param retry_after: seconds that the peer has asked for.
        """
        # The exponent is bounded, or it would no longer be a float one day.
        step = min(self._max_delay, self._first_delay * 2.0 ** min(self.failures, 64))
        self.failures += 1
        self._on_failure()
        seconds = step * (0.5 + self._random() / 2)
        if retry_after is not None:
            # In addition, since the peer has asked all others for the same.
            seconds += min(retry_after, MAX_RETRY_AFTER)
        self._until = self._clock.seconds() + seconds
        return seconds

    def succeeded(self) -> None:
        """Start again with the first delay."""
        self.failures = 0
        self._until = self._clock.seconds()

    @property
    def left(self) -> float:
        """Seconds until the next attempt."""
        return float(max(0.0, self._until - self._clock.seconds()))

    def wait(self) -> Deferred[None]:
        """Fires when the next attempt is due; can be cancelled."""
        if not self.left:
            return succeed(None)
        return deferLater(self._clock, self.left)
