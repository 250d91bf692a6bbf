"""Limit attempts, such as at a password."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from twisted.internet.interfaces import IReactorTime

#: Number of clients that are remembered; those with the oldest attempts are forgotten first.
_MOST: Final = 10_000


class Attempts:
    """Allows each client ``most`` attempts within ``period`` seconds."""

    def __init__(self, clock: IReactorTime, most: int, period: float) -> None:
        self._clock = clock
        self._most = most
        self._period = period
        self._by: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, who: str) -> float:
        """Return the seconds until another attempt is allowed; 0: now."""
        times = self._by.get(who)
        if times is None:
            return 0.0
        now = self._clock.seconds()
        while times and times[0] <= now - self._period:
            times.popleft()
        return times[0] + self._period - now if len(times) >= self._most else 0.0

    def add(self, who: str) -> None:
        """Count an attempt."""
        self._by.setdefault(who, deque(maxlen=self._most)).append(self._clock.seconds())
        self._by.move_to_end(who)
        if len(self._by) > _MOST:
            self._by.popitem(last=False)

    def take_back(self, who: str) -> None:
        """Take back an attempt, since it has succeeded."""
        if times := self._by.get(who):
            times.pop()

    def forgive(self, who: str) -> None:
        """Forget all attempts of a client."""
        self._by.pop(who, None)
