"""Limit the rate of attempts to log in."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from twisted.internet.interfaces import IReactorTime

#: Number of remembered clients; beyond it, those with the oldest attempts are removed first.
_MAX_CLIENTS: Final = 10_000


class LoginAttempts:
    """A limit of ``limit`` attempts within ``period`` seconds for each client.

    A client is any text, such as an address or the name of an operator.
    """

    def __init__(self, clock: IReactorTime, limit: int, period: float) -> None:
        self._clock = clock
        self._limit = limit
        self._period = period
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Return the seconds until another attempt is allowed; 0 if it is allowed now."""
        times = self._times.get(client)
        if times is None:
            return 0.0
        now = self._clock.seconds()
        while times and times[0] <= now - self._period:
            times.popleft()
        return times[0] + self._period - now if len(times) >= self._limit else 0.0

    def add(self, client: str) -> None:
        """Count an attempt."""
        self._times.setdefault(client, deque(maxlen=self._limit)).append(self._clock.seconds())
        self._times.move_to_end(client)
        if len(self._times) > _MAX_CLIENTS:
            self._times.popitem(last=False)

    def remove_last(self, client: str) -> None:
        """Remove the last attempt of a client, because it has succeeded."""
        if times := self._times.get(client):
            times.pop()
