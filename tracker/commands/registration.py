"""Registration of an instance's devices in the device registry.

``connections:registry`` maps each device to the instance that it is connected to. The changes of
one reactor turn are sent to Redis in one call. The call contains the present state of the devices
and not their changes, so it can be delayed or repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.commands.deviceregistry import connections, owners, update_registry
from tracker.errors import Refused, Unavailable
from tracker.redis.connection import RedisConnection
from tracker.redis.timer import RedisTimer
from tracker.runtime.backoff import Backoff

#: Seconds between two checks of the device registry.
CHECK_INTERVAL: Final = 30
#: Seconds before changes are sent again that Redis has not accepted.
MIN_RETRY_DELAY: Final = 1.0
MAX_RETRY_DELAY: Final = 10.0
#: Devices in one call.
PAGE: Final = 1000
#: Seconds within which a stop unregisters all devices, or gives up.
STOP_TIMEOUT: Final = 2.0


class DeviceRegistration(RedisTimer):
    """The entries of one instance in the device registry.

    :param moved: called with the ID of a device that has moved to another instance since it
        logged in here, and with the ID of that instance.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        redis: RedisConnection,
        instance_id: str,
        moved: Callable[[str, str], None],
    ) -> None:
        super().__init__(clock, redis, CHECK_INTERVAL, self._check)
        self._clock = clock
        self._redis = redis
        self._instance_id = instance_id
        self._moved = moved
        self._here: dict[str, str] = {}  # device ID → vendor
        self._unsent: dict[str, None] = {}  # devices whose state has to be sent to Redis
        self._changed: set[str] = set()  # devices that have changed since the last check started
        self._backoff = Backoff(clock, MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._sending: IDelayedCall | None = None

    def register(self, device_id: str, vendor: str = "") -> None:
        """Register a device that has logged in here."""
        if self.running:
            self._here[device_id] = vendor
            self._send(device_id)

    def unregister(self, device_id: str) -> None:
        """Unregister a device that has disconnected."""
        if self.running:
            self._here.pop(device_id, None)
            self._send(device_id)

    def register_again(self, device_id: str) -> None:
        """Register a connected device again, which moves its waiting commands to this instance."""
        if device_id in self._here and self.running:
            self._send(device_id)

    def unregister_leftovers(self) -> Deferred[None]:
        """Unregister devices that an earlier process of this instance has left registered."""
        return Deferred.fromCoroutine(self._unregister_leftovers())

    def stopService(self) -> Deferred[None]:
        """Unregister all devices of this instance."""
        checked = super().stopService()
        if self._sending is not None and self._sending.active():
            self._sending.cancel()
        gone, self._here = self._here, {}
        unregistered = Deferred.fromCoroutine(self._unregister_all(checked, [*gone, *self._unsent]))
        return unregistered.addTimeout(STOP_TIMEOUT, self._clock).addErrback(self._left_registered)

    async def _unregister_all(self, checked: Deferred[None], devices: Collection[str]) -> None:
        await checked
        if devices:
            await self._update(devices)

    def _left_registered(self, failure: Failure) -> None:
        failure.trap(Refused, Unavailable, TimeoutError)
        self._log.info("devices could not be unregistered; the janitor will unregister them")

    def _send(self, device_id: str) -> None:
        """Send the state of a device to Redis, together with other changes of this turn."""
        self._unsent[device_id] = None
        self._changed.add(device_id)
        if self._sending is None:
            self._send_in(0)

    def _send_in(self, seconds: float) -> None:
        self._sending = self._clock.callLater(
            seconds, lambda: Deferred.fromCoroutine(self._send_all())
        )

    async def _send_all(self) -> None:
        # Without this wait, the retry delay of an outage would last beyond the outage.
        with suppress(Unavailable):  # the process stops
            await self._redis.when_connected()
        while self._unsent and self.running:
            page = list(islice(self._unsent, PAGE))
            for device_id in page:
                del self._unsent[device_id]
            try:
                await self._update(page)
            except (Refused, Unavailable) as error:
                self._log.debug("device registry not updated, retrying: {error}", error=error)
                self._unsent.update(dict.fromkeys(page))
                self._send_in(self._backoff.failed())
                return
            self._backoff.succeeded()
        self._sending = None

    async def _update(self, devices: Iterable[str]) -> None:
        connected = {device_id: device_id in self._here for device_id in devices}
        await update_registry(self._redis, self._instance_id, connected, self._here)

    async def _unregister_leftovers(self) -> None:
        try:
            async for page in connections(self._redis):
                for device_id, owner in page.items():
                    if owner == self._instance_id and device_id not in self._here and self.running:
                        self._send(device_id)
        except (Refused, Unavailable) as error:
            self._log.info("devices of an earlier process stay registered: {error}", error=error)

    async def _check(self) -> None:
        """Report devices that have moved, and register devices that Redis has lost."""
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
