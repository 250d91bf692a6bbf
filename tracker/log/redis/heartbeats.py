"""Heartbeats of ingest instances, and the streams and control ports that they advertise.

Heartbeats are untrusted input: any client of Redis can write any number of them, with any name
and content. Malformed heartbeats are left out, and reported to callers that ask for it. They do
not prevent other heartbeats from being read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from itertools import chain, islice, zip_longest
from typing import Any, Final

from attrs import field, frozen

from tracker.keys import heartbeat
from tracker.redis.connection import RedisConnection
from tracker.redis.pipeline import existing, pipelined
from tracker.redis.scan import scan
from tracker.untrusted import is_unicode, parse_json, shown
from tracker.wording import counted

#: Seconds after its last heartbeat until an instance counts as dead.
EXPIRY: Final = 90

#: Maximum number of heartbeats that are read. Further instances only count as alive.
MAX_INSTANCES: Final = 20_000
#: Maximum number of streams that are used: of one heartbeat, and of all heartbeats together.
MAX_STREAMS_PER_INSTANCE: Final = 100
MAX_STREAMS: Final = 1000
#: Maximum characters of an instance ID or a stream's name, and of a control port's address.
MAX_NAME: Final = 255
MAX_ADDRESS: Final = 1000
#: Maximum bytes that are parsed: of one heartbeat, and of all heartbeats together.
MAX_HEARTBEAT_BYTES: Final = 16 * 1024
MAX_TOTAL_BYTES: Final = 32 * 1024 * 1024
#: Maximum number of malformed heartbeats that one call reports.
MAX_MALFORMED: Final = 1000

_SCAN_COUNT: Final = 1000
#: Number of heartbeats in one MGET.
_PAGE: Final = 100


@frozen
class InstanceHeartbeat:
    """The last heartbeat of an instance."""

    instance_id: str
    age: float
    """Seconds since the heartbeat."""
    facts: Mapping[str, Any]
    """Untrusted content: any part may be missing or malformed."""

    @property
    def streams(self) -> list[str]:
        """The streams that the instance writes."""
        return _streams_in(self.facts)[0]

    @property
    def control(self) -> str | None:
        """The address of the instance's control port, or None."""
        return _control_in(self.facts)


@frozen
class AdvertisedStreams:
    """The streams named by all heartbeats, and the malformed heartbeats."""

    streams: Mapping[str, str] = field(factory=dict)
    """Stream → an instance that writes it; at most :data:`MAX_STREAMS`."""
    malformed: Mapping[str, str] = field(factory=dict)
    """Key, printable and shortened → the error in it; at most :data:`MAX_MALFORMED`."""
    left_out: int = 0
    """Number of streams beyond :data:`MAX_STREAMS`."""


async def heartbeats(
    redis: RedisConnection, malformed: dict[str, str] | None = None, max_aged: int = MAX_INSTANCES
) -> list[InstanceHeartbeat]:
    """Return the heartbeats of all live instances, sorted by instance ID.

    :param malformed: receives the keys of malformed heartbeats, and the error in each.
    :param max_aged: maximum number of heartbeats whose age is read; the age of the others is 0.
    """
    found = [
        (instance_id, facts)
        async for page in _pages(redis, malformed)
        for instance_id, facts in page.items()
    ]
    found.sort(key=lambda one: one[0])
    listed = []
    for start in range(0, len(found), _PAGE):
        page = found[start : start + _PAGE]
        aged = page if start < max_aged else []
        left = await pipelined(redis, (("PTTL", heartbeat(name)) for name, _ in aged))
        ages = [_age(milliseconds) for milliseconds in left]
        ages += [0.0] * (len(page) - len(ages))
        listed += [
            InstanceHeartbeat(name, age, facts)
            for (name, facts), age in zip(page, ages, strict=True)
        ]
    return listed


def _age(left: Any) -> float:
    """Return the age in seconds of a heartbeat that expires in ``left`` ms; 0 if unknown."""
    return max(0.0, EXPIRY - max(0, left) / 1000) if isinstance(left, int) else 0.0


async def living_instances(redis: RedisConnection) -> frozenset[str]:
    """Return the IDs of the instances that have a heartbeat."""
    found: set[str] = set()
    async for keys in _scan(redis):
        found.update(instance_id for key in keys if (instance_id := _instance_of(key)) is not None)
    return frozenset(found)


async def streams_by_instance(redis: RedisConnection) -> dict[str, list[str]]:
    """Return instance → the streams in its heartbeat."""
    return {
        instance_id: _streams_in(facts)[0]
        async for page in _pages(redis)
        for instance_id, facts in page.items()
    }


async def control_ports(redis: RedisConnection) -> dict[str, str | None]:
    """Return live instance → the address of its control port; None if it has none."""
    return {
        instance_id: _control_in(facts)
        async for page in _pages(redis)
        for instance_id, facts in page.items()
    }


async def advertised_streams(redis: RedisConnection) -> dict[str, str]:
    """Return stream → an instance that advertises it."""
    return dict((await read_advertised(redis)).streams)


async def read_advertised(redis: RedisConnection) -> AdvertisedStreams:
    """Return the streams that all heartbeats advertise.

    If there are more than :data:`MAX_STREAMS`, existing streams take precedence, and among them
    the first stream of each instance precedes the second one of any instance.
    """
    malformed: dict[str, str] = {}
    by_instance: dict[str, list[str]] = {}
    async for page in _pages(redis, malformed):
        for instance_id, facts in page.items():
            by_instance[instance_id] = _streams_in(facts)[0]
    writers = {stream: name for name, streams in by_instance.items() for stream in streams}
    if len(writers) <= MAX_STREAMS:
        return AdvertisedStreams(writers, malformed)
    alternating = chain.from_iterable(zip_longest(*by_instance.values()))
    names = dict.fromkeys(name for name in alternating if name is not None)
    found = await existing(redis, list(names))
    kept = list(islice(dict.fromkeys([*found, *names]), MAX_STREAMS))
    return AdvertisedStreams(
        {name: writers[name] for name in kept}, malformed, len(writers) - len(kept)
    )


async def _scan(redis: RedisConnection) -> AsyncIterator[list[bytes]]:
    pattern = f"{heartbeat('')}*"
    async for keys in scan(redis, ["SCAN"], "MATCH", pattern, "COUNT", _SCAN_COUNT):
        yield keys


async def _pages(
    redis: RedisConnection, malformed: dict[str, str] | None = None
) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """Yield pages of instance → content of its heartbeat, which is empty if it is malformed.

    :param malformed: receives the keys of malformed heartbeats; None: they are not reported.
    """
    seen, size = 0, 0
    async for keys in _scan(redis):
        names = []
        for key in keys:
            if (instance_id := _instance_of(key)) is not None:
                names.append(instance_id)
            else:
                _note(malformed, key, f"the ID must have 1 to {MAX_NAME} characters in UTF-8")
        for start in range(0, min(len(names), MAX_INSTANCES - seen), _PAGE):
            page = names[start : start + _PAGE]
            # Unlike GET, MGET returns nil for a key of another type.
            replies = await redis.execute("MGET", *map(heartbeat, page))
            listed = dict(zip(page, replies, strict=True))
            if malformed is not None:
                await _note_other_types(redis, listed, malformed)
            found = {}
            for name, value in listed.items():
                if value is not None:  # otherwise it has expired meanwhile
                    size += len(value)
                    found[name] = _facts(name, value, malformed) if size <= MAX_TOTAL_BYTES else {}
            yield found
        seen += len(names)


async def _note_other_types(
    redis: RedisConnection, listed: Mapping[str, bytes | None], malformed: dict[str, str]
) -> None:
    missing = [heartbeat(name) for name, value in listed.items() if value is None]
    for key in await existing(redis, missing):
        _note(malformed, key, "not a string")


def _instance_of(key: bytes) -> str | None:
    """Return the instance ID in a key; None if it is not valid."""
    try:
        instance_id = key.decode().removeprefix(heartbeat(""))
    except UnicodeDecodeError:
        return None
    return instance_id if 0 < len(instance_id) <= MAX_NAME else None


def _facts(instance_id: str, value: bytes, malformed: dict[str, str] | None) -> dict[str, Any]:
    try:
        facts = parse_json(value, MAX_HEARTBEAT_BYTES)
        if not isinstance(facts, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        _note(malformed, heartbeat(instance_id), f"not a valid heartbeat: {error}")
        return {}
    if error_text := _streams_in(facts)[1]:
        _note(malformed, heartbeat(instance_id), error_text)
    return facts


def _streams_in(facts: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the valid names of streams, and the error in the others; empty if all are valid."""
    streams = facts.get("streams", [])
    if not isinstance(streams, list):
        return [], '"streams" is not an array'
    good = [name for name in streams[:MAX_STREAMS_PER_INSTANCE] if is_stream_name(name)]
    if len(good) < min(len(streams), MAX_STREAMS_PER_INSTANCE):
        return good, f'"streams" must contain names of 1 to {MAX_NAME} characters'
    if len(streams) > MAX_STREAMS_PER_INSTANCE:
        names = counted(len(streams), "name")
        return good, f'"streams" has {names}; only {MAX_STREAMS_PER_INSTANCE} of them count'
    return good, ""


def is_stream_name(name: Any) -> bool:
    """Return True if this is a valid name of a stream."""
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME and is_unicode(name)


def _control_in(facts: Mapping[str, Any]) -> str | None:
    address = facts.get("control")
    if isinstance(address, str) and len(address) <= MAX_ADDRESS and address.isprintable():
        return address
    return None


def _note(malformed: dict[str, str] | None, key: str | bytes, error: str) -> None:
    if malformed is not None and len(malformed) < MAX_MALFORMED:
        malformed[shown(key)] = error
