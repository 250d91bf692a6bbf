"""Which ingest instances live, and which streams they write, as their heartbeats tell."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from attrs import frozen

from tracker.keys import heartbeat
from tracker.streams.connection import RedisConnection

#: Seconds after which an instance without a beat counts as dead.
EXPIRY: Final = 90

_PAGE: Final = 1000


@frozen
class Beat:
    """The latest heartbeat of an instance."""

    instance_id: str
    age: float
    """Seconds since then."""
    facts: Mapping[str, Any]
    """What it tells; each of it may be missing, or be anything."""

    @property
    def streams(self) -> list[str]:
        """That the instance writes."""
        return _streams_in(self.facts)

    @property
    def control(self) -> str | None:
        """Where its control port is, if it has one."""
        address = self.facts.get("control")
        return address if isinstance(address, str) else None


async def heartbeats(redis: RedisConnection) -> list[Beat]:
    """The heartbeats of all instances that live, by their ids."""
    found = []
    async for instance_id, facts in _beats(redis):
        left = await redis.execute("PTTL", heartbeat(instance_id))
        found.append(Beat(instance_id, max(0.0, EXPIRY - max(0, left) / 1000), facts))
    return sorted(found, key=lambda beat: beat.instance_id)


async def living_instances(redis: RedisConnection) -> frozenset[str]:
    """The ids of the instances that have a heartbeat."""
    found: set[str] = set()
    async for page in _heartbeats(redis):
        found.update(page)
    return frozenset(found)


async def streams_by_instance(redis: RedisConnection) -> dict[str, list[str]]:
    """Instance that has a heartbeat → the streams that it writes, as that tells."""
    return {instance_id: _streams_in(facts) async for instance_id, facts in _beats(redis)}


async def control_ports(redis: RedisConnection) -> dict[str, str]:
    """Instance → where its control port is, of those that live and have one."""
    found = {}
    async for instance_id, facts in _beats(redis):
        if isinstance(address := facts.get("control"), str):
            found[instance_id] = address
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


async def _beats(redis: RedisConnection) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Instance and what its heartbeat tells; nothing where that is none of ours."""
    async for page in _heartbeats(redis):
        for instance_id in page:
            # Unlike GET it takes a key of another type for none.
            (beat,) = await redis.execute("MGET", heartbeat(instance_id))
            if beat is not None:  # else it has expired meanwhile
                yield instance_id, _facts(beat)


def _facts(beat: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(beat)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _streams_in(facts: Mapping[str, Any]) -> list[str]:
    streams = facts.get("streams", [])
    if not isinstance(streams, list):
        return []
    return [stream for stream in streams if isinstance(stream, str)]
