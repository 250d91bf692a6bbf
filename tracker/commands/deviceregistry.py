"""The device registry: the ingest instance that each device is connected to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from tracker.commands.scripts import MOVING
from tracker.errors import Refused
from tracker.keys import CONNECTED_VENDORS, CONNECTIONS, heartbeat
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.redis.replies import mapping
from tracker.redis.scan import scan
from tracker.redis.script import Script

#: Approximate number of fields that one call of HSCAN returns.
_PAGE: Final = 1000
#: Bytes of an instance ID or a vendor's name that are read.
_MAX_NAME_BYTES: Final = 1000

# KEYS: the vendors. ARGV: an instance ID, then for each device its ID, 1 (connected) or 0 (not
# connected) and its vendor (empty if unknown). An entry is removed only if it names this instance,
# because the device may have moved to another one. The vendors are for display only: pcall ignores
# an error if their key is not a hash. Waiting commands are moved last: an error with those of one
# device affects neither the device registry nor other devices, and the janitor retries.
_UPDATE: Final = Script(
    MOVING
    + """\
for i = 2, #ARGV, 3 do
  if ARGV[i + 1] == '1' then
    redis.call('HSET', REGISTRY, ARGV[i], ARGV[1])
    if ARGV[i + 2] ~= '' then redis.pcall('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
  elseif redis.call('HGET', REGISTRY, ARGV[i]) == ARGV[1] then
    redis.call('HDEL', REGISTRY, ARGV[i])
    redis.pcall('HDEL', KEYS[1], ARGV[i])
  end
end
for i = 2, #ARGV, 3 do
  if ARGV[i + 1] == '1' then pcall(collect, ARGV[i], ARGV[1]) end
end
"""
)

# KEYS: the device registry, the heartbeat of an instance, the vendors.
# ARGV: the instance ID, device IDs.
_SWEEP: Final = Script("""\
local removed = 0
if redis.call('EXISTS', KEYS[2]) == 1 then return removed end
for i = 2, #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[1] then
    removed = removed + redis.call('HDEL', KEYS[1], ARGV[i])
    redis.pcall('HDEL', KEYS[3], ARGV[i])
  end
end
return removed
""")


async def update_registry(
    redis: RedisConnection,
    instance_id: str,
    connected: Mapping[str, bool],
    vendors: Mapping[str, str] | None = None,
) -> None:
    """Register devices that are connected to an instance and unregister others, atomically.

    The arguments are the present state and not a change, so a call can be delayed or repeated.

    :param connected: device ID → True if the device is connected to the instance.
    :param vendors: device ID → vendor, for devices whose vendor is known.
    """
    arguments = [instance_id]
    for device_id, is_here in connected.items():
        arguments += (device_id, "1" if is_here else "0", (vendors or {}).get(device_id, ""))
    await _UPDATE.run(redis, [CONNECTED_VENDORS], *arguments)


async def owners(redis: RedisConnection, devices: Sequence[str]) -> list[str | None]:
    """Return the instance that each device is connected to; None for one that is not."""
    return await _look_up(redis, CONNECTIONS, devices)


async def vendors(redis: RedisConnection, devices: Sequence[str]) -> list[str | None]:
    """Return the vendor of each of these devices; None for one that is not connected.

    None for all of them if the key is not a hash; the device registry is not affected.
    """
    try:
        return await _look_up(redis, CONNECTED_VENDORS, devices)
    except Refused as error:
        if not is_wrong_type(error):
            raise
        return [None] * len(devices)


async def _look_up(redis: RedisConnection, key: str, devices: Sequence[str]) -> list[str | None]:
    if not devices:
        return []
    reply = await redis.execute("HMGET", key, *devices)
    return [value and value[:_MAX_NAME_BYTES].decode(errors="replace") for value in reply]


async def connections(redis: RedisConnection) -> AsyncIterator[dict[str, str]]:
    """Yield pages of device ID → instance ID; concurrent changes may be missing.

    Bytes that are not UTF-8 are escaped: such a device ID can be shown, but not looked up.
    """
    async for page in raw_connections(redis):
        yield {
            device_id.decode(errors="backslashreplace"): owner.decode(errors="backslashreplace")
            for device_id, owner in page.items()
        }


async def raw_connections(redis: RedisConnection) -> AsyncIterator[dict[bytes, bytes]]:
    """Yield pages of device ID → instance ID, as raw bytes."""
    async for page in scan(redis, ["HSCAN", CONNECTIONS], "COUNT", _PAGE):
        yield mapping(page)


async def sweep(
    redis: RedisConnection, instance_id: str | bytes, devices: Sequence[str | bytes]
) -> int:
    """Unregister devices of an instance that is gone, atomically.

    Devices that have moved to another instance stay registered, as do all devices if the instance
    is alive.

    :return: the number of devices that were removed.
    """
    owner = instance_id.encode() if isinstance(instance_id, str) else instance_id
    its_heartbeat = heartbeat("").encode() + owner
    keys: list[str | bytes] = [CONNECTIONS, its_heartbeat, CONNECTED_VENDORS]
    removed: int = await _SWEEP.run(redis, keys, owner, *devices)
    return removed
