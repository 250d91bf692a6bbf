"""Run the tasks of many devices: few at a time, and those of one device one after the other."""

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

#: Tasks that run at a time.
MAX_RUNNING: Final = 8
#: Tasks that run or wait, at which there is no room for more.
MAX_BEGUN: Final = 200

#: Returns whether it has moved its row on.
Task = Callable[[], Coroutine[Deferred[Any], Any, bool]]


class Lanes:
    """Tasks by key, each in the lane of its device."""

    def __init__(self) -> None:
        self.room: Deferred[None] = succeed(None)
        """Fires when there is room for more tasks."""
        self._running = DeferredSemaphore(MAX_RUNNING)
        self._lanes: dict[str, DeferredLock] = {}
        self._begun: dict[str, Deferred[bool]] = {}

    @property
    def keys(self) -> Collection[str]:
        """The keys of the tasks that run or wait."""
        return self._begun.keys()

    def begin(self, key: str, device: str, task: Task) -> Deferred[bool]:
        """Run a task when its device, and then it, has its turn; fires with its result.

        If a task with this key runs or waits, no other is begun.
        """
        if key in self._begun:
            return self._begun[key]
        result = self._in_lane(device, task)
        if result.called:
            return result
        self._begun[key] = result
        if len(self._begun) >= MAX_BEGUN and self.room.called:
            self.room = Deferred()

        def done(moved: Any) -> Any:
            del self._begun[key]
            if len(self._begun) < MAX_BEGUN and not self.room.called:
                self.room.callback(None)
            return moved

        return result.addBoth(done)

    def all_done(self) -> Deferred[Any]:
        """Fires when all tasks have ended that are begun now."""
        return DeferredList(list(self._begun.values()), consumeErrors=True)

    def _in_lane(self, device: str, task: Task) -> Deferred[bool]:
        lane = self._lanes.setdefault(device, DeferredLock())
        # Callbacks instead of a coroutine: one that is garbage would release the lane of another.
        ran = lane.run(self._running.run, lambda: Deferred.fromCoroutine(task()))
        result: Deferred[bool] = Deferred(lambda _: ran.cancel())

        def done(moved: Any) -> Any:
            if not (lane.locked or lane.waiting):
                self._lanes.pop(device, None)
            return moved

        ran.addBoth(done).chainDeferred(result)
        return result
