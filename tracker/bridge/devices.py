"""The collection ``devices`` → ``devices:allowed`` and ``devices:models``.

Both are written beside the old ones and then take their place in one step: so an instance never
reads half of them, and what could not be read whole changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tracker.bridge.rest import DirectusClient, DirectusDenied, DirectusDown, DirectusRefused
from tracker.bridge.rows import DEVICE_FIELDS
from tracker.bridge.schema import DEVICES
from tracker.command import is_device_id
from tracker.keys import ALLOWED_DEVICES, DEVICE_MODELS
from tracker.streams.connection import RedisConnection, Refused, Unavailable

#: Seconds between two readings of all devices.
INTERVAL: Final = 300.0
#: Seconds after an announcement in which others may come, before all are read.
SETTLES: Final = 1.0
#: Devices in one call to Redis.
_CHUNK: Final = 1000


class DeviceSync(Service):
    """Keeps Redis' copy of the devices up to date.

    :param report: told None while that goes well, else why not.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        directus: DirectusClient,
        redis: RedisConnection,
        report: Callable[[str | None], None],
        interval: float = INTERVAL,
    ) -> None:
        self._clock = clock
        self._directus = directus
        self._redis = redis
        self._report = report
        self._interval = interval
        self._syncing = LoopingCall(lambda: Deferred.fromCoroutine(self._sync()))
        self._syncing.clock = clock
        self._ended: Deferred[Any] | None = None
        self._again = False
        self._busy = False

    def startService(self) -> None:
        """Read them, now and every so often."""
        super().startService()
        self._ended = self._syncing.start(self._interval)

    def stopService(self) -> Deferred[None]:
        """End; fires when what is being done is done."""
        super().stopService()
        if self._syncing.running:
            self._syncing.stop()
        return Deferred.fromCoroutine(self._wait())

    async def _wait(self) -> None:
        if self._ended is not None:
            await self._ended

    def announce(self) -> None:
        """Some device has changed: read them all, soon."""
        if not self.running:
            return
        if self._busy:
            self._again = True
        elif self._syncing.running:
            self._syncing.stop()
            self._clock.callLater(SETTLES, self._restart)

    def _restart(self) -> None:
        if self.running and not self._syncing.running:
            self._ended = self._syncing.start(self._interval)

    async def _sync(self) -> None:
        self._busy = True
        try:
            await self._redis.when_connected()
            models = await self._read()
            await self._write(models)
            self._report(None)
        except (DirectusDown, DirectusDenied, DirectusRefused) as error:
            self._report(f"devices cannot be read, the last copy stays: {error}")
        except (Refused, Unavailable) as error:
            self._report(f"devices cannot be written: {error}")
        except Exception:  # noqa: BLE001 - else they would never be read again
            self._log.failure("devices are not read")
        finally:
            self._busy = False
            if self._again:
                self._again = False
                self._clock.callLater(0, self.announce)

    async def _read(self) -> dict[str, str]:
        """Device that is enabled → its model, or empty."""
        found: dict[str, str] = {}
        bad = 0
        # All at once: Directus compares no texts, and pages by number would skip a device
        # where another one is removed meanwhile.
        rows = await self._directus.get_items(DEVICES, fields=DEVICE_FIELDS, limit=-1)
        for row in rows:
            device_id = str(row.get("imei") or "")
            if not is_device_id(device_id):
                bad += 1
            elif row.get("enabled") is not False:
                found[device_id] = str(row.get("model") or "")
        if bad:
            self._log.warn("{count} devices have an imei that is not 15 digits", count=bad)
        return found

    async def _write(self, models: Mapping[str, str]) -> None:
        named = {device_id: model for device_id, model in models.items() if model}
        await self._replace(ALLOWED_DEVICES, "SADD", [(device_id,) for device_id in models])
        await self._replace(DEVICE_MODELS, "HSET", list(named.items()))
        self._log.info("devices: {count}, of a known model {named}", count=len(models),
                       named=len(named))  # fmt: skip

    async def _replace(self, key: str, command: str, parts: list[tuple[str, ...]]) -> None:
        if not parts:
            await self._redis.execute("DEL", key)
            return
        beside = f"{key}:new"
        await self._redis.execute("DEL", beside)
        for start in range(0, len(parts), _CHUNK):
            chunk = [text for part in parts[start : start + _CHUNK] for text in part]
            await self._redis.execute(command, beside, *chunk)
        await self._redis.execute("RENAME", beside, key)
