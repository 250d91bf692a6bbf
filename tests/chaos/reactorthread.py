"""Twisted's reactor in its own thread, on an asyncio loop that it shares with the devices."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred

T = TypeVar("T")


class ReactorThread:
    """The loop, and the reactor on it. A process can have only one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        asyncioreactor.install(self.loop)
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failures: list[str] = []
        """Errors that have ended tasks."""
        self._thread = Thread(target=self._run, name="reactor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.reactor.run(installSignalHandlers=False)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float = 30) -> T:
        """Run a coroutine on the loop, and return its result."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        return future.result(timeout)

    def start(self, *coroutines: Coroutine[Any, Any, None]) -> None:
        """Run coroutines on the loop until :meth:`cancel`."""

        async def start() -> None:
            for coroutine in coroutines:
                task = asyncio.create_task(coroutine, name=repr(coroutine))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

        self.call(start())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(f"{task.get_name()}: {error!r}")

    def cancel(self) -> None:
        """Cancel all coroutines of :meth:`start`."""

        async def cancel() -> None:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.call(cancel())

    def close(self) -> None:
        """Stop the reactor."""
        self.reactor.callFromThread(self.reactor.stop)
        self._thread.join(20)


async def awaited(coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
    """Await a coroutine of Twisted in a task of asyncio."""
    loop = asyncio.get_running_loop()
    result: T = await Deferred.fromCoroutine(coroutine).asFuture(loop)
    return result
