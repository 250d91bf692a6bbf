"""Waits that a stop interrupts."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater


class Waits:
    """Waits of one coroutine, one after another; they end at once when it is to stop."""

    def __init__(self, clock: Any) -> None:
        self.stopped = False
        """Whether it is to stop."""
        self._clock = clock
        self._waiting: Deferred[Any] | None = None

    def stop(self) -> None:
        """End the wait that is under way; sleep no more."""
        self.stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def result(self, deferred: Deferred[Any]) -> Any:
        """Return the result of ``deferred``; None, having cancelled it, when stopped before."""
        self._waiting = deferred
        try:
            return await deferred
        except CancelledError:
            return None
        finally:
            self._waiting = None

    async def sleep(self, seconds: float) -> None:
        """Return after some time, or when stopped."""
        if not self.stopped:
            await self.result(deferLater(self._clock, seconds))
