"""Which ingest instances live, and which streams they write, as their heartbeats tell."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final

from tracker.keys import heartbeat
from tracker.streams.connection import RedisConnection

_PAGE: Final = 1000


async def living_instances(redis: RedisConnection) -> frozenset[str]:
    """The ids of the instances that have a heartbeat."""
    found: set[str] = set()
    async for page in _heartbeats(redis):
        found.update(page)
    return frozenset(found)


async def streams_by_instance(redis: RedisConnection) -> dict[str, list[str]]:
    """Instance that has a heartbeat → the streams that it writes, as that tells."""
    found: dict[str, list[str]] = {}
    async for page in _heartbeats(redis):
        for instance_id in page:
            # Unlike GET it takes a key of another type for none.
            (beat,) = await redis.execute("MGET", heartbeat(instance_id))
            if beat is not None:  # else it has expired meanwhile
                found[instance_id] = _streams_in(beat)
    return found


async def advertised_streams(redis: RedisConnection) -> dict[str, str]:
    """Stream → an ingest instance that writes it, from the heartbeats of those that live."""
    found = await streams_by_instance(redis)
    return {stream: instance_id for instance_id, streams in found.items() for stream in streams}


async def _heartbeats(redis: RedisConnection) -> AsyncIterator[list[str]]:
    prefix = heartbeat("")
    cursor = b"0"
    while True:
        cursor, keys = await redis.execute("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _PAGE)
        yield [key.decode(errors="replace").removeprefix(prefix) for key in keys]
        if cursor == b"0":
            return


def _streams_in(beat: bytes) -> list[str]:
    try:
        streams = json.loads(beat).get("streams", [])
    except (ValueError, AttributeError):
        return []  # not ours
    if not isinstance(streams, list):
        return []
    return [stream for stream in streams if isinstance(stream, str)]
