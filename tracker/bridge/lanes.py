"""Run tasks for many devices: a few at a time, and one at a time for each device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredLock,
    DeferredSemaphore,
    succeed,
)

#: Tasks that run at the same time.
MAX_RUNNING: Final = 8
#: Running and queued tasks; at this number, callers should wait for :attr:`Lanes.room`.
MAX_STARTED: Final = 200

#: A task; returns True if its row was changed.
Task = Callable[[], Coroutine[Deferred[Any], Any, bool]]


class Lanes:
    """Tasks by key, queued in one lane per device."""

    def __init__(self) -> None:
        self.room: Deferred[None] = succeed(None)
        """Fires when fewer than :data:`MAX_STARTED` tasks are running or queued."""
        self._running = DeferredSemaphore(MAX_RUNNING)
        self._lanes: dict[str, DeferredLock] = {}
        self._started: dict[str, Deferred[bool]] = {}

    @property
    def keys(self) -> Collection[str]:
        """Keys of the tasks that are running or queued."""
        return self._started.keys()

    def start(self, key: str, device: str, task: Task) -> Deferred[bool]:
        """Queue a task in the lane of its device, unless a task with its key is running or queued.

        :return: fires with the result of the task with this key.
        """
        if key in self._started:
            return self._started[key]
        result = self._in_lane(device, task)
        if result.called:
            return result
        self._started[key] = result
        if len(self._started) >= MAX_STARTED and self.room.called:
            self.room = Deferred()

        def done(changed: Any) -> Any:
            del self._started[key]
            if len(self._started) < MAX_STARTED and not self.room.called:
                self.room.callback(None)
            return changed

        return result.addBoth(done)

    def all_done(self) -> Deferred[Any]:
        """Return a Deferred that fires when all tasks that are now running or queued have ended."""
        return DeferredList(list(self._started.values()), consumeErrors=True)

    def _in_lane(self, device: str, task: Task) -> Deferred[bool]:
        lane = self._lanes.setdefault(device, DeferredLock())
        # Not a coroutine: if one was garbage-collected, it would release another task's lock.
        ran = lane.run(self._running.run, lambda: Deferred.fromCoroutine(task()))
        result: Deferred[bool] = Deferred(lambda _: ran.cancel())

        def done(changed: Any) -> Any:
            if not (lane.locked or lane.waiting):
                self._lanes.pop(device, None)
            return changed

        ran.addBoth(done).chainDeferred(result)
        return result
