"""Thread for a sink whose library blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from tracker.reactor import Reactor

T = TypeVar("T")


class SinkThread:
    """A thread that runs calls one at a time, in their order."""

    def __init__(self, reactor: Reactor, name: str) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=1, maxthreads=1, name=name)

    def start(self) -> None:
        """Start the thread if it does not run."""
        if not self._pool.started:
            self._pool.start()

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call a function in the thread, and return its result."""
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    def stop(self, last: Callable[[], None]) -> Deferred[None]:
        """Make a last call in the thread, then end the thread."""
        if not self._pool.started or self._pool.joined:
            return succeed(None)
        return self.run(last).addBoth(self._stopped)

    def _stopped(self, result: Any) -> Any:
        self._pool.stop()
        return result
