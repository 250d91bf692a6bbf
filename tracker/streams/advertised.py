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


async def advertised_streams(redis: RedisConnection) -> dict[str, str]:
    """Stream → an ingest instance that writes it, from the heartbeats of those that live."""
    found: dict[str, str] = {}
    async for page in _heartbeats(redis):
        for instance_id in page:
            # Unlike GET it takes a key of another type for none.
            (beat,) = await redis.execute("MGET", heartbeat(instance_id))
            for stream in _streams_in(beat):
                found[stream] = instance_id
    return found


async def _heartbeats(redis: RedisConnection) -> AsyncIterator[list[str]]:
    prefix = heartbeat("")
    cursor = b"0"
    while True:
        cursor, keys = await redis.execute("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _PAGE)
        yield [key.decode(errors="replace").removeprefix(prefix) for key in keys]
        if cursor == b"0":
            return


def _streams_in(beat: bytes | None) -> list[str]:
    try:
        streams = json.loads(beat or b"{}").get("streams", [])
    except (ValueError, AttributeError):
        return []  # not ours
    if not isinstance(streams, list):
        return []
    return [stream for stream in streams if isinstance(stream, str)]
