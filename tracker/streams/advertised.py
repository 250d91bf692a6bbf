"""Which streams are written, as ingest instances tell in their heartbeats."""

from __future__ import annotations

import json
from typing import Final

from tracker.keys import heartbeat
from tracker.streams.connection import RedisConnection

_PAGE: Final = 1000


async def advertised_streams(redis: RedisConnection) -> dict[str, str]:
    """Stream → an ingest instance that writes it, from the heartbeats of those that live."""
    prefix = heartbeat("")
    found: dict[str, str] = {}
    cursor = b"0"
    while True:
        cursor, keys = await redis.execute("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", _PAGE)
        for key in keys:
            beat = await redis.execute("GET", key)
            for stream in _streams_in(beat):
                found[stream] = key.decode(errors="replace").removeprefix(prefix)
        if cursor == b"0":
            return found


def _streams_in(beat: bytes | None) -> list[str]:
    try:
        streams = json.loads(beat or b"{}").get("streams", [])
    except (ValueError, AttributeError):
        return []  # not ours
    return [stream for stream in streams if isinstance(stream, str)]
