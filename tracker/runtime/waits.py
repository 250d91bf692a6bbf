"""Waits that a stop interrupts."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

T = TypeVar("T")


class Stopped(CancelledError):
    """Raised by a wait that was interrupted by :meth:`Waits.stop`."""


class Waits:
    """Waits of one or more coroutines, interrupted by :meth:`stop`."""

    def __init__(self, clock: IReactorTime) -> None:
        self.stopped = False
        """True after :meth:`stop`."""
        self._clock = clock
        self._waiting: set[Deferred[Any]] = set()

    def stop(self) -> None:
        """Interrupt the current waits; later ones end at once."""
        self.stopped = True
        for deferred in list(self._waiting):
            deferred.cancel()

    async def result(self, awaited: Deferred[T] | Coroutine[Deferred[Any], Any, T]) -> T:
        """Return the result of ``awaited``, which a stop cancels.

        :raises Stopped: if it fails because of a stop, or after one.
        """
        deferred = awaited if isinstance(awaited, Deferred) else Deferred.fromCoroutine(awaited)
        self._waiting.add(deferred)
        if self.stopped:
            deferred.cancel()
        try:
            return await deferred
        except Exception:
            # A cancelled endpoint fails with an exception of its own.
            if self.stopped:
                raise Stopped from None
            raise
        finally:
            self._waiting.discard(deferred)

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``, or at once when stopped."""
        if not self.stopped:
            with suppress(Stopped):
                await self.result(deferLater(self._clock, seconds))
