"""Registers the devices of an instance in the device registry.

``connections:registry`` holds, for each device, the instance that it is connected to. The
changes of one reactor turn are sent to Redis in one call, which states how things are and not
what has happened: so it may be late, and repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.commands.deviceregistry import connections, owners, state
from tracker.errors import Refused, Unavailable
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer
from tracker.runtime.backoff import Backoff

#: Seconds between two checks of the device registry.
INTERVAL: Final = 30
#: Seconds until changes that Redis did not take are sent again: at first, and at most.
MIN_RETRY_DELAY: Final = 1.0
MAX_RETRY_DELAY: Final = 10.0
#: Devices in one call.
PAGE: Final = 1000
#: Seconds that a stop waits until no device is registered here any longer.
STOP_TIMEOUT: Final = 2.0


class DeviceRegistration(RedisTimer):
    """The entries of one instance in the device registry.

    :param moved: called with a device that is registered at another instance, and that
        instance: the device has moved there since it logged in here.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
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
        self._unsent: dict[str, None] = {}  # devices whose latest change is not in Redis
        self._changed: set[str] = set()  # devices that have changed since the last check began
        self._backoff = Backoff(clock, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._sending: IDelayedCall | None = None

    def entered(self, device_id: str, vendor: str = "") -> None:
        """Register a device that has logged in here."""
        if self.running:
            self._here[device_id] = vendor
            self._send(device_id)

    def left(self, device_id: str) -> None:
        """Unregister a device that is not connected any longer."""
        if self.running:
            self._here.pop(device_id, None)
            self._send(device_id)

    def repeat(self, device_id: str) -> None:
        """Register a device once more, since commands have begun to wait for it."""
        if device_id in self._here and self.running:
            self._send(device_id)

    def disown(self) -> Deferred[None]:
        """Unregister the devices that a former process of this instance has left registered."""
        return Deferred.fromCoroutine(self._disown())

    def stopService(self) -> Deferred[None]:
        """Unregister all devices of this instance."""
        checked = super().stopService()
        if self._sending is not None and self._sending.active():
            self._sending.cancel()
        gone, self._here = self._here, {}
        withdrawn = Deferred.fromCoroutine(self._withdraw(checked, [*gone, *self._unsent]))
        return withdrawn.addTimeout(STOP_TIMEOUT, self._clock).addErrback(self._not_withdrawn)

    async def _withdraw(self, checked: Deferred[None], devices: Iterable[str]) -> None:
        await checked
        await self._state(list(devices))

    def _not_withdrawn(self, failure: Failure) -> None:
        failure.trap(Refused, Unavailable, TimeoutError)
        self._log.info("connections stay registered until the janitor finds this instance gone")

    def _send(self, device_id: str) -> None:
        """Send the state of a device to Redis, with those of others."""
        self._unsent[device_id] = None
        self._changed.add(device_id)
        if self._sending is None:
            self._send_in(0)

    def _send_in(self, seconds: float) -> None:
        self._sending = self._clock.callLater(
            seconds, lambda: Deferred.fromCoroutine(self._send_all())
        )

    async def _send_all(self) -> None:
        # Without this, the delays that an outage has brought about would last beyond it.
        with suppress(Unavailable):  # the process stops
            await self._redis.when_connected()
        while self._unsent and self.running:
            page = list(islice(self._unsent, PAGE))
            for device_id in page:
                del self._unsent[device_id]
            try:
                await self._state(page)
            except (Refused, Unavailable) as error:
                self._log.debug("not registered: {error}", error=error)
                self._unsent.update(dict.fromkeys(page))
                self._send_in(self._backoff.failed())
                return
            self._backoff.succeeded()
        self._sending = None

    async def _state(self, devices: Iterable[str]) -> None:
        connected = {device_id: device_id in self._here for device_id in devices}
        await state(self._redis, self._instance_id, connected, self._here)

    async def _disown(self) -> None:
        try:
            async for page in connections(self._redis):
                for device_id, owner in page.items():
                    if owner == self._instance_id and device_id not in self._here and self.running:
                        self._send(device_id)
        except (Refused, Unavailable) as error:
            self._log.info("entries of a former process stay registered: {error}", error=error)

    async def _check(self) -> None:
        """Find devices that have moved, and register those again that Redis has lost."""
        self._changed.clear()
        devices = sorted(self._here - self._unsent.keys())
        try:
            for start in range(0, len(devices), PAGE):
                page = devices[start : start + PAGE]
                found = await owners(self._redis, page)
                for device_id, owner in zip(page, found, strict=True):
                    self._compare(device_id, owner)
        except (Refused, Unavailable) as error:
            self._log.debug("device registry not checked: {error}", error=error)

    def _compare(self, device_id: str, owner: str | None) -> None:
        if device_id in self._changed or not self.running:
            return  # the reply may be older than the change
        if owner is None:
            self._send(device_id)
        elif owner != self._instance_id:
            self._moved(device_id, owner)
