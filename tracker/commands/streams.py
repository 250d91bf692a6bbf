"""The streams of commands: one for each instance, and one for each device with waiting commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from tracker.commands.scripts import REMOVE_EMPTY, REVIEW_WAITING
from tracker.keys import WAITING, heartbeat, outbound, waiting_commands
from tracker.log.entries import StreamEntry
from tracker.log.redis.ranges import read_range
from tracker.redis.connection import RedisConnection
from tracker.redis.scan import scan

#: Entries of one read.
_PAGE: Final = 100


async def outbound_entries(
    redis: RedisConnection, stream: str, first: str = "-"
) -> list[StreamEntry]:
    """Return a page of a stream of commands, pending entries included.

    :param first: ID of the first entry; ``(ID`` excludes the entry ID.
    """
    return await read_range(redis, stream, first, "+", count=_PAGE)


async def outbound_streams(redis: RedisConnection) -> AsyncIterator[str]:
    """Yield the IDs of instances that have a stream of commands.

    Bytes that are not UTF-8 are escaped: such an ID can be shown, but not looked up.
    """
    async for instance_id in raw_outbound_streams(redis):
        yield instance_id.decode(errors="backslashreplace")


async def raw_outbound_streams(redis: RedisConnection) -> AsyncIterator[bytes]:
    """Yield the IDs of instances that have a stream of commands, as raw bytes."""
    prefix = outbound("").encode()
    async for keys in scan(
        redis, ["SCAN"], "MATCH", prefix + b"*", "COUNT", 1000, "TYPE", "stream"
    ):
        for key in keys:
            yield key.removeprefix(prefix)


async def remove_empty_outbound(redis: RedisConnection, instance_id: str) -> bool:
    """Remove the empty stream of an instance that is gone, with its group.

    :return: True if it was removed; False if it has entries or the instance is alive.
    """
    removed = await REMOVE_EMPTY.run(redis, [outbound(instance_id), heartbeat(instance_id)])
    return bool(removed)


async def waiting_devices(redis: RedisConnection) -> AsyncIterator[str]:
    """Yield the devices for which commands wait.

    Bytes that are not UTF-8 are escaped: such an ID can be shown, but not looked up.
    """
    async for device_id in raw_waiting_devices(redis):
        yield device_id.decode(errors="backslashreplace")


async def raw_waiting_devices(redis: RedisConnection) -> AsyncIterator[bytes]:
    """Yield the devices for which commands wait, as raw bytes."""
    async for devices in scan(redis, ["SSCAN", WAITING], "COUNT", 1000):
        for device in devices:
            yield device


async def unlist_waiting(redis: RedisConnection, device: bytes) -> bool:
    """Remove a malformed member from the set of devices with waiting commands.

    A stream of that name is not removed.

    :return: True if the set contained the member.
    """
    return bool(await redis.execute("SREM", WAITING, device))


async def review_waiting(redis: RedisConnection, device_id: str) -> tuple[int, list[StreamEntry]]:
    """Move the waiting commands of a device to its instance, if the device is connected.

    :return: the number of commands that were moved, and the first of those that still wait.
    """
    moved = await REVIEW_WAITING.run(redis, [], device_id)
    return moved, await waiting_entries(redis, device_id)


async def waiting_entries(
    redis: RedisConnection, device_id: str, first: str = "-"
) -> list[StreamEntry]:
    """Return some of the commands that wait for a device, oldest first.

    :param first: ID of the first entry; ``(ID`` excludes the entry ID.
    """
    return await read_range(redis, waiting_commands(device_id), first, "+", count=_PAGE)
