"""Waits that can be interrupted by a stop."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater


class Waits:
    """Waits of one coroutine, one at a time, which :meth:`stop` ends at once."""

    def __init__(self, clock: Any) -> None:
        self.stopped = False
        """Set by :meth:`stop`."""
        self._clock = clock
        self._waiting: Deferred[Any] | None = None

    def stop(self) -> None:
        """End the current wait, and all later sleeps at once."""
        self.stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def result(self, deferred: Deferred[Any]) -> Any:
        """Return the result of ``deferred``; cancel it and return None if stopped before."""
        self._waiting = deferred
        try:
            return await deferred
        except CancelledError:
            return None
        finally:
            self._waiting = None

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``, or when stopped."""
        if not self.stopped:
            await self.result(deferLater(self._clock, seconds))
