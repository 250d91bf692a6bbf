"""Copy the collection ``devices`` to Redis: the allow-list, the models, and the vendors.

All are written to temporary keys, which then replace the old keys in one step. An instance
therefore never reads a part of them, or one without the others. An incomplete read changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.http import FORBIDDEN

from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.rest import DirectusClient, DirectusDenied, DirectusDown, DirectusError
from tracker.bridge.rows import DEVICE_FIELDS
from tracker.bridge.schema import DEVICES
from tracker.errors import Refused, Unavailable
from tracker.keys import ALLOWED_DEVICES, DEVICE_MODELS, DEVICE_VENDORS
from tracker.observe.health import Condition, Watchdog
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_not_permitted, is_wrong_type
from tracker.redis.replies import mapping
from tracker.redis.script import Script
from tracker.runtime.backoff import Backoff
from tracker.vendors.installed import checked_device_id, device_id_forms, installed_vendors

#: Seconds between two reads of all devices.
INTERVAL: Final = 300.0
#: Seconds from an announcement to the read, so that one read serves several announcements.
ANNOUNCEMENT_DELAY: Final = 1.0
#: Minimum pause between two announced reads, as a multiple of the duration of a read.
_PAUSE_FACTOR: Final = 4
#: Attempts at one complete read while rows are added and removed.
MAX_READ_ATTEMPTS: Final = 5
#: Seconds after which a read counts as stuck.
WATCHDOG_TIMEOUT: Final = 600.0
#: Characters of the name of a model or vendor.
MAX_NAME_LENGTH: Final = 64
#: Devices in one call to Redis.
_CHUNK: Final = 1000
#: Seconds after which Redis removes the temporary keys of a bridge that was killed.
_TEMPORARY_KEY_TTL: Final = 600

# KEYS: the set and the hashes, then their temporary keys. ARGV: the number of members of each.
# Temporary keys may have been lost, for example in a flush; then the script replaces nothing.
_SWAP: Final = Script("""\
local count = #ARGV
for i = 1, count do
  local size = i == 1 and 'SCARD' or 'HLEN'
  if redis.call(size, KEYS[count + i]) ~= tonumber(ARGV[i]) then return 0 end
end
for i = 1, count do
  redis.call('UNLINK', KEYS[i])
  if tonumber(ARGV[i]) > 0 then
    redis.call('RENAME', KEYS[count + i], KEYS[i])
    redis.call('PERSIST', KEYS[i])
  end
end
return 1
""")


@frozen
class _Device:
    """An enabled device. A text is empty if its field is."""

    model: str
    vendor: str


class NoDevices(Exception):
    """Directus returns no devices, although Redis has some."""


class DeviceSync(Service):
    """A service that keeps Redis' copy of the devices up to date.

    :param condition: is met while reads succeed.
    :param backoff: the delay after a failed read.
    :param interval: seconds between two reads.
    :param watchdog: is reset at each read.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        directus: DirectusClient,
        redis: RedisConnection,
        *,
        condition: Condition,
        backoff: Backoff,
        interval: float = INTERVAL,
        watchdog: Watchdog | None = None,
        metrics: BridgeMetrics | None = None,
    ) -> None:
        self._clock = clock
        self._directus = directus
        self._redis = redis
        self._condition = condition
        self._interval = interval
        self._backoff = backoff
        self._watchdog = watchdog or Watchdog(WATCHDOG_TIMEOUT)
        self._metrics = metrics or BridgeMetrics()
        self._loop: Deferred[None] = succeed(None)
        self._pause: IDelayedCall | None = None
        self._announced = False
        self._announcement_delay = ANNOUNCEMENT_DELAY

    def startService(self) -> None:
        """Read the devices now, and then regularly."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """Stop at once; an incomplete read changes nothing."""
        super().stopService()
        self._watchdog.suspend()
        self._loop.cancel()
        return self._loop

    def announce(self) -> None:
        """Read all devices soon, because a row has changed."""
        self._announced = True
        if self._backoff.left:
            return  # the next attempt reads all devices anyway
        if self._pause is not None and self._pause.active():
            left = self._pause.getTime() - self._clock.seconds()
            self._pause.reset(min(left, self._announcement_delay))

    async def _run(self) -> None:
        try:
            while True:
                self._watchdog.suspend()
                await self._redis.when_connected()
                self._watchdog.reset()
                self._announced = False
                began = self._clock.seconds()
                seconds = await self._sync()
                took = self._clock.seconds() - began
                self._watchdog.suspend()
                self._announcement_delay = max(ANNOUNCEMENT_DELAY, _PAUSE_FACTOR * took)
                soon = self._announced and not self._backoff.left
                await self._sleep(min(seconds, self._announcement_delay) if soon else seconds)
        except (CancelledError, Unavailable):  # stopped
            return

    def _sleep(self, seconds: float) -> Deferred[None]:
        elapsed: Deferred[None] = Deferred(lambda _: pause.cancel())
        pause = self._clock.callLater(seconds, elapsed.callback, None)
        self._pause = pause
        return elapsed

    async def _sync(self) -> float:
        """Read and write the devices; return the seconds until the next read."""
        reason: str | None = None
        retry_after = None
        try:
            devices, disabled = await self._read()
            await self._write(devices, disabled)
            self._metrics.synced(len(devices), self._clock.seconds())
        except DirectusError as error:
            reason = f"cannot read devices; the previous copy stays in Redis: {error}"
            retry_after = getattr(error, "retry_after", None)
        except NoDevices as error:
            reason = str(error)
        except (Refused, Unavailable) as error:
            reason = f"cannot write devices to Redis: {error}"
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the loop must continue after an unexpected error
            self._log.failure("cannot copy devices to Redis")
            reason = "cannot copy devices to Redis; see the log for the reason"
        if reason is None:
            self._condition.met()
            self._backoff.succeeded()
            return self._interval
        self._condition.fails(reason)
        return min(self._backoff.failed(retry_after), max(self._interval, retry_after or 0))

    async def _read(self) -> tuple[dict[str, _Device], int]:
        """Return the enabled devices by their IDs, and the number of disabled devices."""
        found: dict[str, _Device] = {}
        vendors = installed_vendors()
        bad = disabled = 0
        for row in await self._rows():
            try:
                device_id = checked_device_id(str(row.get("imei") or ""), vendors)
            except ValueError:
                bad += 1
                continue
            if row.get("enabled") is False:
                disabled += 1
            else:
                found[device_id] = _Device(_text(row.get("model")), _text(row.get("vendor")))
        if bad:
            self._log.warn(
                "devices with an invalid ID are ignored: {count} in Directus; it must be {forms}",
                count=bad,
                forms=device_id_forms(vendors),
            )
        return found, disabled

    async def _rows(self) -> Sequence[Mapping[str, Any]]:
        """Return all rows, even if Directus limits the number of rows in a response.

        Each page must begin with the last row of the previous page. If it does not, a row was
        added or removed in between and another row could be missed; the read then starts again.
        """
        for _ in range(MAX_READ_ATTEMPTS):
            rows = await self._page(0)
            while rows:
                page = await self._page(len(rows) - 1)
                if not page or page[0]["imei"] != rows[-1]["imei"]:
                    break
                if len(page) == 1:
                    if len(rows) == 1 and await self._page(1):
                        raise DirectusDown("QUERY_LIMIT_MAX is 1 in Directus; set it to 2 or more")
                    return rows
                rows += page[1:]
            else:
                return rows
        raise DirectusDown(f"rows changed during each of {MAX_READ_ATTEMPTS} attempts")

    async def _page(self, offset: int) -> list[dict[str, Any]]:
        query: dict[str, Any] = {"sort": ["imei"], "limit": -1, "offset": offset}
        try:
            return await self._directus.get_items(DEVICES, fields=DEVICE_FIELDS, **query)
        except DirectusDenied as error:
            if error.status != FORBIDDEN:
                raise
            if await self._any_bound():
                raise  # without the field, all devices would lose their vendors
        # A Directus that an earlier version has set up does not have the field.
        known = [name for name in DEVICE_FIELDS if name != "vendor"]
        return await self._directus.get_items(DEVICES, fields=known, **query)

    async def _any_bound(self) -> bool:
        """Return True if a device is bound to a vendor in Redis."""
        try:
            return bool(await self._redis.execute("HLEN", DEVICE_VENDORS))
        except Refused as error:
            if is_not_permitted(error) or is_wrong_type(error):
                return False
            raise

    async def _write(self, devices: Mapping[str, _Device], disabled: int) -> None:
        models = {device_id: device.model for device_id, device in devices.items() if device.model}
        vendors = {
            device_id: device.vendor for device_id, device in devices.items() if device.vendor
        }
        hashes = {DEVICE_MODELS: models, DEVICE_VENDORS: vendors}
        present = await self._present(bool(devices or disabled))
        if not vendors and present is not None and present[DEVICE_VENDORS] is None:
            del hashes[DEVICE_VENDORS]
        expected: dict[str, Any] = {
            ALLOWED_DEVICES: {device_id.encode() for device_id in devices},
            **{key: _encoded(values) for key, values in hashes.items()},
        }
        if present is not None and all(present[key] == value for key, value in expected.items()):
            return
        temporary_keys = [f"{key}:new:{uuid4().hex}" for key in expected]
        await self._fill(temporary_keys[0], "SADD", [(device_id,) for device_id in devices])
        for temporary, values in zip(temporary_keys[1:], hashes.values(), strict=True):
            await self._fill(temporary, "HSET", list(values.items()))
        counts = map(len, expected.values())
        if not await _SWAP.run(self._redis, [*expected, *temporary_keys], *counts):
            raise Unavailable("the temporary keys were lost")
        self._log.info(
            "devices copied to Redis: {count} allowed, {named} with a model, {bound} with a vendor",
            count=len(devices), named=len(models), bound=len(vendors),
        )  # fmt: skip

    async def _present(self, any_device: bool) -> dict[str, Any] | None:
        """Return the content of each key in Redis; None if one of them has the wrong type.

        If the rights of this user are those of an earlier version, it may not read the vendors:
        there is then None instead of them.

        :param any_device: True if Directus returns devices.
        :raises NoDevices: if Redis has devices and Directus returns none. A user without
            permission gets the same response, so this is more likely a mistake than intended.
        """
        present: dict[str, Any] = {}
        try:
            present[ALLOWED_DEVICES] = set(await self._redis.execute("SMEMBERS", ALLOWED_DEVICES))
            for key in (DEVICE_MODELS, DEVICE_VENDORS):
                present[key] = mapping(await self._redis.execute("HGETALL", key))
        except Refused as error:
            if is_not_permitted(error) and DEVICE_MODELS in present:
                present[DEVICE_VENDORS] = None
            elif is_wrong_type(error):
                self._log.warn(
                    "{allowed}, {models} or {vendors} has the wrong Redis type; all are replaced",
                    allowed=ALLOWED_DEVICES, models=DEVICE_MODELS, vendors=DEVICE_VENDORS,
                )  # fmt: skip
                return None
            else:
                raise
        allowed = present[ALLOWED_DEVICES]
        if allowed and not any_device:
            keys = f"{ALLOWED_DEVICES} {DEVICE_MODELS} {DEVICE_VENDORS}"
            raise NoDevices(
                "Directus returns no devices; the previous copy stays in Redis "
                f"({len(allowed)} allowed). To clear it: DEL {keys}"
            )
        return present

    async def _fill(self, key: str, command: str, parts: Sequence[tuple[str, ...]]) -> None:
        for start in range(0, len(parts), _CHUNK):
            chunk = [text for part in parts[start : start + _CHUNK] for text in part]
            await self._redis.execute(command, key, *chunk)
            await self._redis.execute("EXPIRE", key, _TEMPORARY_KEY_TTL)


def _text(value: Any) -> str:
    """Return a model or vendor as text that UTF-8 can encode, or "" if the field is empty."""
    text = str(value or "")[:MAX_NAME_LENGTH]
    return text.encode(errors="replace").decode()


def _encoded(values: Mapping[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in values.items()}
