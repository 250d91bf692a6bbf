"""Tells the other processes which devices are connected here.

``connections:registry`` holds, for each device, the instance that it is connected to. What
changes in one reactor turn goes to Redis in one call, which states how things are and not
what has happened: so it may be late, and it may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from tracker.commands.registry import connections, owners, state
from tracker.errors import Refused, Unavailable
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer

#: Seconds between two looks at whether the registry is right.
INTERVAL: Final = 30
#: Seconds until changes that Redis did not take are sent again.
RETRY: Final = 1.0
#: Devices in one call.
PAGE: Final = 1000
#: Seconds that a stop waits until no device is registered here any more.
STOP_TIMEOUT: Final = 2.0


class Registry(RedisTimer):
    """The entries of one instance.

    :param moved: told of a device that is registered at another instance, where it has
        gone since it came here.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        redis: RedisConnection,
        instance_id: str,
        moved: Callable[[str, str], None],
    ) -> None:
        super().__init__(clock, redis, INTERVAL, self._check)
        self._clock = clock
        self._redis = redis
        self._instance_id = instance_id
        self._moved = moved
        self._here: dict[str, str] = {}  # device → its vendor
        self._untold: dict[str, None] = {}  # devices of which Redis has not heard the latest
        self._changed: set[str] = set()  # since the last look at the registry began
        self._telling: IDelayedCall | None = None

    def entered(self, device_id: str, vendor: str = "") -> None:
        """A device has logged in here."""
        if self.running:
            self._here[device_id] = vendor
            self._tell_of(device_id)

    def left(self, device_id: str) -> None:
        """A device is not connected any more."""
        if self.running:
            self._here.pop(device_id, None)
            self._tell_of(device_id)

    def repeat(self, device_id: str) -> None:
        """Say once more that a device is here: commands have begun to wait for it."""
        if device_id in self._here and self.running:
            self._tell_of(device_id)

    def disown(self) -> Deferred[None]:
        """Take out what points here, and is a left-over of a process of this id that died."""
        return Deferred.fromCoroutine(self._disown())

    def stopService(self) -> Deferred[None]:
        """Take all entries out that point here."""
        checked = super().stopService()
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        gone, self._here = self._here, {}
        withdrawn = Deferred.fromCoroutine(self._withdraw(checked, [*gone, *self._untold]))
        return withdrawn.addTimeout(STOP_TIMEOUT, self._clock).addErrback(self._not_withdrawn)

    async def _withdraw(self, checked: Deferred[None], devices: Iterable[str]) -> None:
        await checked
        await self._state(list(devices))

    def _not_withdrawn(self, failure: Any) -> None:
        failure.trap(Refused, Unavailable, TimeoutError)
        self._log.info("connections stay registered until the janitor finds this instance gone")

    def _tell_of(self, device_id: str) -> None:
        self._untold[device_id] = None
        self._changed.add(device_id)
        if self._telling is None:
            self._tell_in(0)

    def _tell_in(self, seconds: float) -> None:
        self._telling = self._clock.callLater(seconds, lambda: Deferred.fromCoroutine(self._tell()))

    async def _tell(self) -> None:
        while self._untold and self.running:
            page = list(islice(self._untold, PAGE))
            for device_id in page:
                del self._untold[device_id]
            try:
                await self._state(page)
            except (Refused, Unavailable) as error:
                self._log.debug("not registered: {error}", error=error)
                self._untold.update(dict.fromkeys(page))
                self._tell_in(RETRY)
                return
        self._telling = None

    async def _state(self, devices: Iterable[str]) -> None:
        connected = {device_id: device_id in self._here for device_id in devices}
        await state(self._redis, self._instance_id, connected, self._here)

    async def _disown(self) -> None:
        try:
            async for page in connections(self._redis):
                for device_id, owner in page.items():
                    if owner == self._instance_id and device_id not in self._here and self.running:
                        self._tell_of(device_id)
        except (Refused, Unavailable) as error:
            self._log.info("what a process before this one has left stays: {error}", error=error)

    async def _check(self) -> None:
        """See who has moved, and register those again that Redis has forgotten."""
        self._changed.clear()
        devices = sorted(self._here - self._untold.keys())
        try:
            for start in range(0, len(devices), PAGE):
                page = devices[start : start + PAGE]
                found = await owners(self._redis, page)
                for device_id, owner in zip(page, found, strict=True):
                    self._see(device_id, owner)
        except (Refused, Unavailable) as error:
            self._log.debug("registry not checked: {error}", error=error)

    def _see(self, device_id: str, owner: str | None) -> None:
        if device_id in self._changed or not self.running:
            return  # Redis has answered about how things were before
        if owner is None:
            self._tell_of(device_id)
        elif owner != self._instance_id:
            self._moved(device_id, owner)
