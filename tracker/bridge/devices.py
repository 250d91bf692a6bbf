"""The collection ``devices`` → ``devices:allowed`` and ``devices:models``.

Both are written to temporary keys, which then replace the old ones in one step. So an instance
never reads a part of them, or one without the other. An incomplete reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tracker.bridge.metrics import BridgeMetrics
from tracker.bridge.rest import DirectusClient, DirectusDown, DirectusError
from tracker.bridge.rows import DEVICE_FIELDS
from tracker.bridge.schema import DEVICES
from tracker.command import is_device_id
from tracker.errors import Refused, Unavailable
from tracker.keys import ALLOWED_DEVICES, DEVICE_MODELS
from tracker.observe.health import Condition, Watchdog
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.redis.replies import mapping
from tracker.redis.script import Script
from tracker.runtime.backoff import Backoff

#: Seconds between two readings of all devices.
INTERVAL: Final = 300.0
#: Seconds from an announcement to a reading, so that more of them may come first.
SETTLES: Final = 1.0
#: Duration of the pause between two announced readings, in durations of a reading.
_LEFT_ALONE: Final = 4
#: Attempts at a reading while rows are added and removed.
READINGS: Final = 5
#: Seconds after which a reading is stuck.
WATCHDOG_TIMEOUT: Final = 600.0
#: Characters of a model's name.
MAX_MODEL: Final = 64
#: Devices in one call to Redis.
_CHUNK: Final = 1000
#: Seconds after which Redis removes the temporary keys of a bridge that was killed.
_LEFT: Final = 600

# KEYS: the set and the hash, and the temporary ones. ARGV: the number of members of each. The
# temporary keys may be gone, as after a flush: then nothing is replaced.
_SWAP: Final = Script("""\
if redis.call('SCARD', KEYS[3]) ~= tonumber(ARGV[1])
  or redis.call('HLEN', KEYS[4]) ~= tonumber(ARGV[2]) then return 0 end
for i = 1, 2 do
  redis.call('UNLINK', KEYS[i])
  if tonumber(ARGV[i]) > 0 then
    redis.call('RENAME', KEYS[i + 2], KEYS[i])
    redis.call('PERSIST', KEYS[i])
  end
end
return 1
""")


class NothingThere(Exception):
    """Directus shows no device, although there were some."""


class DeviceSync(Service):
    """Keeps Redis' copy of the devices up to date.

    :param condition: met while readings succeed.
    :param backoff: the delay after a reading that failed.
    :param watchdog: is reset with each reading.
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
        self._settles = SETTLES

    def startService(self) -> None:
        """Read the devices now, and at an interval."""
        super().startService()
        self._loop = Deferred.fromCoroutine(self._run())

    def stopService(self) -> Deferred[None]:
        """Stop at once; an incomplete reading changes nothing."""
        super().stopService()
        self._watchdog.suspend()
        self._loop.cancel()
        return self._loop

    def announce(self) -> None:
        """Note that some device has changed: read all devices soon."""
        self._announced = True
        if self._backoff.left:
            return  # the next attempt reads all devices
        if self._pause is not None and self._pause.active():
            left = self._pause.getTime() - self._clock.seconds()
            self._pause.reset(min(left, self._settles))

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
                self._settles = max(SETTLES, _LEFT_ALONE * took)
                soon = self._announced and not self._backoff.left
                await self._paused(min(seconds, self._settles) if soon else seconds)
        except (CancelledError, Unavailable):  # stopped
            return

    def _paused(self, seconds: float) -> Deferred[None]:
        over: Deferred[None] = Deferred(lambda _: pause.cancel())
        pause = self._clock.callLater(seconds, over.callback, None)
        self._pause = pause
        return over

    async def _sync(self) -> float:
        """Read and write the devices; return the seconds until the next reading."""
        why: str | None = None
        retry_after = None
        try:
            models, disabled = await self._read()
            await self._write(models, disabled)
            self._metrics.synced(len(models), self._clock.seconds())
        except DirectusError as error:
            why = f"devices cannot be read, the last copy stays: {error}"
            retry_after = getattr(error, "retry_after", None)
        except NothingThere as error:
            why = str(error)
        except (Refused, Unavailable) as error:
            why = f"devices cannot be written: {error}"
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - else they would never be read again
            self._log.failure("devices are not read")
            why = "devices are not read: see the log"
        if why is None:
            self._condition.met()
            self._backoff.succeeded()
            return self._interval
        self._condition.fails(why)
        return min(self._backoff.failed(retry_after), max(self._interval, retry_after or 0))

    async def _read(self) -> tuple[dict[str, str], int]:
        """Return enabled device → its model, or empty; and the number of disabled devices."""
        found: dict[str, str] = {}
        bad = disabled = 0
        for row in await self._rows():
            device_id = str(row.get("imei") or "")
            if not is_device_id(device_id):
                bad += 1
            elif row.get("enabled") is False:
                disabled += 1
            else:
                found[device_id] = _model(row.get("model"))
        if bad:
            self._log.warn("{count} devices have an imei that is not 15 digits", count=bad)
        return found, disabled

    async def _rows(self) -> Sequence[Mapping[str, Any]]:
        """Return all rows, although Directus may limit the rows of an answer.

        Each answer must begin with the last row of the one before. Otherwise a row was removed or
        added meanwhile, another one could be missed, and the reading starts again.
        """
        for _ in range(READINGS):
            rows = await self._page(0)
            while rows:
                page = await self._page(len(rows) - 1)
                if not page or page[0]["imei"] != rows[-1]["imei"]:
                    break
                if len(page) == 1:
                    if len(rows) == 1 and await self._page(1):
                        raise DirectusDown("it shows one at a time: QUERY_LIMIT_MAX")
                    return rows
                rows += page[1:]
            else:
                return rows
        raise DirectusDown("they change all the time")

    async def _page(self, offset: int) -> list[dict[str, Any]]:
        return await self._directus.get_items(
            DEVICES, fields=DEVICE_FIELDS, sort=["imei"], limit=-1, offset=offset
        )

    async def _write(self, models: Mapping[str, str], disabled: int) -> None:
        named = {device_id: model for device_id, model in models.items() if model}
        if await self._is_written(models, named, disabled):
            return
        beside = [f"{key}:new:{uuid4().hex}" for key in (ALLOWED_DEVICES, DEVICE_MODELS)]
        await self._fill(beside[0], "SADD", [(device_id,) for device_id in models])
        await self._fill(beside[1], "HSET", list(named.items()))
        keys = [ALLOWED_DEVICES, DEVICE_MODELS, *beside]
        if not await _SWAP.run(self._redis, keys, len(models), len(named)):
            raise Unavailable("what was written is gone")
        self._log.info("devices: {count}, of a known model {named}", count=len(models),
                       named=len(named))  # fmt: skip

    async def _is_written(
        self, models: Mapping[str, str], named: Mapping[str, str], disabled: int
    ) -> bool:
        """Return whether Redis has all this already, so that it need not be written.

        :raises NothingThere: if Redis has devices, and Directus shows none. A user without
            permission sees the same, so this is more likely a mistake than intended.
        """
        try:
            allowed = await self._redis.execute("SMEMBERS", ALLOWED_DEVICES)
            flat = await self._redis.execute("HGETALL", DEVICE_MODELS)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            self._log.warn(
                "{allowed} or {models} is of another type, and is replaced",
                allowed=ALLOWED_DEVICES,
                models=DEVICE_MODELS,
            )
            return False
        if allowed and not models and not disabled:
            raise NothingThere(
                f"Directus shows no device; the last copy stays, of {len(allowed)}. "
                f"If that is meant: DEL {ALLOWED_DEVICES} {DEVICE_MODELS}"
            )
        return set(allowed) == {device_id.encode() for device_id in models} and mapping(flat) == {
            device_id.encode(): model.encode() for device_id, model in named.items()
        }

    async def _fill(self, key: str, command: str, parts: Sequence[tuple[str, ...]]) -> None:
        for start in range(0, len(parts), _CHUNK):
            chunk = [text for part in parts[start : start + _CHUNK] for text in part]
            await self._redis.execute(command, key, *chunk)
            await self._redis.execute("EXPIRE", key, _LEFT)


def _model(value: Any) -> str:
    """Return the name of a model as text that Redis can hold; empty if there is none."""
    text = str(value or "")[:MAX_MODEL]
    return text.encode(errors="replace").decode()
