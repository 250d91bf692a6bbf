"""Delays between retries."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

#: Upper limit, in seconds, of the delay that a peer can request.
MAX_RETRY_AFTER: Final = 600.0


class Backoff:
    """Delays that double with each consecutive failure, with jitter.

    Jitter shortens each delay to between half of it and all of it.

    :param first_delay: seconds after the first failure.
    :param max_delay: upper limit of a delay, in seconds.
    :param random: returns a number from 0 up to 1, such as ``random.random``.
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
        """Consecutive failures."""
        self._clock = clock
        self._first_delay = first_delay
        self._max_delay = max_delay
        self._random = random
        self._on_failure = on_failure
        self._until = clock.seconds()

    def failed(self, retry_after: float | None = None) -> float:
        """Count a failure; return the seconds until the next attempt.

        :param retry_after: delay that the peer requests, in seconds. It is added to the own one.
        """
        # Without a bound for the exponent, the power would overflow after 1,024 failures.
        step = min(self._max_delay, self._first_delay * 2.0 ** min(self.failures, 64))
        self.failures += 1
        self._on_failure()
        seconds = step * (0.5 + self._random() / 2)
        if retry_after is not None:
            # Added, since the peer has sent the same delay to all its clients.
            seconds += min(retry_after, MAX_RETRY_AFTER)
        self._until = self._clock.seconds() + seconds
        return seconds

    def succeeded(self) -> None:
        """Reset to the first delay."""
        self.failures = 0
        self._until = self._clock.seconds()

    @property
    def left(self) -> float:
        """Seconds until the next attempt."""
        return float(max(0.0, self._until - self._clock.seconds()))

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires when the next attempt is due; it can be cancelled."""
        if not self.left:
            return succeed(None)
        return deferLater(self._clock, self.left)
