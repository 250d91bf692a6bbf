"""The hash of which device is connected to which ingest instance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from tracker.keys import CONNECTED_VENDORS, CONNECTIONS, heartbeat
from tracker.streams.commands import MOVING
from tracker.streams.connection import RedisConnection
from tracker.streams.script import Script

#: Fields that one step of a scan looks at, about.
_PAGE: Final = 1000

# KEYS: the vendors. ARGV: an instance, then device, 1 (is there) or 0 (is not), and its vendor
# (or empty, where that is not known). Only what points there is removed: a device may have
# come to another instance. Commands that have waited for a device follow it, in the end: what
# ails those of one device is nothing to the registry, nor to the others. The janitor tries again.
_STATE: Final = Script(
    MOVING
    + """\
for i = 2, #ARGV, 3 do
  if ARGV[i + 1] == '1' then
    redis.call('HSET', REGISTRY, ARGV[i], ARGV[1])
    if ARGV[i + 2] ~= '' then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
  elseif redis.call('HGET', REGISTRY, ARGV[i]) == ARGV[1] then
    redis.call('HDEL', REGISTRY, ARGV[i])
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
for i = 2, #ARGV, 3 do
  if ARGV[i + 1] == '1' then pcall(collect, ARGV[i], ARGV[1]) end
end
"""
)

# KEYS: the registry, the heartbeat of an instance, the vendors. ARGV: the instance, devices.
_SWEEP: Final = Script("""\
local removed = 0
if redis.call('EXISTS', KEYS[2]) == 1 then return removed end
for i = 2, #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[1] then
    removed = removed + redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
end
return removed
""")


async def state(
    redis: RedisConnection,
    instance_id: str,
    connected: Mapping[str, bool],
    vendors: Mapping[str, str] | None = None,
) -> None:
    """Say of devices whether they are connected to an instance, in one atomic call.

    It says how things are and not what has happened: so it may be late, and may be repeated.

    :param vendors: device → its vendor, where it is known.
    """
    arguments = [instance_id]
    for device_id, is_here in connected.items():
        arguments += (device_id, "1" if is_here else "0", (vendors or {}).get(device_id, ""))
    await _STATE.run(redis, [CONNECTED_VENDORS], *arguments)


async def owners(redis: RedisConnection, devices: Sequence[str]) -> list[str | None]:
    """The instance that each of these devices is connected to; None for one that is nowhere."""
    return await _look_up(redis, CONNECTIONS, devices)


async def vendors(redis: RedisConnection, devices: Sequence[str]) -> list[str | None]:
    """The vendor of each of these devices; None for one that is nowhere."""
    return await _look_up(redis, CONNECTED_VENDORS, devices)


async def _look_up(redis: RedisConnection, key: str, devices: Sequence[str]) -> list[str | None]:
    if not devices:
        return []
    reply = await redis.execute("HMGET", key, *devices)
    return [None if value is None else value.decode(errors="replace") for value in reply]


async def connections(redis: RedisConnection) -> AsyncIterator[dict[str, str]]:
    """Device → instance, page by page; what changes meanwhile may be there or not."""
    cursor = b"0"
    while True:
        cursor, reply = await redis.execute("HSCAN", CONNECTIONS, cursor, "COUNT", _PAGE)
        texts = [part.decode(errors="backslashreplace") for part in reply]
        yield dict(zip(texts[::2], texts[1::2], strict=True))
        if cursor == b"0":
            return


async def sweep(redis: RedisConnection, instance_id: str, devices: Sequence[str]) -> int:
    """Remove devices that are registered at an instance, if it is gone; how many there were.

    One that has moved, or an instance that lives, is left alone: it is looked at and done in
    one step.
    """
    keys = [CONNECTIONS, heartbeat(instance_id), CONNECTED_VENDORS]
    removed: int = await _SWEEP.run(redis, keys, instance_id, *devices)
    return removed
