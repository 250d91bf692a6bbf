"""Read the heartbeats of ingest instances: which are alive, and which streams they write.

Heartbeats are untrusted input: every client of Redis can write any number of them, with any name
and content. Malformed ones are left out, and reported to callers that ask for it; they never
prevent others from being read.
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

#: Seconds from its last heartbeat until an instance counts as dead.
EXPIRY: Final = 90

#: Heartbeats that are read. Instances beyond this number only count as alive.
MAX_INSTANCES: Final = 20_000
#: Streams of one heartbeat, and of all heartbeats together, that are used.
MAX_STREAMS_OF_ONE: Final = 100
MAX_STREAMS: Final = 1000
#: Characters of an instance's id, of a stream's name, and of a control port's address.
MAX_NAME: Final = 255
MAX_ADDRESS: Final = 1000
#: Bytes of one heartbeat, and of all heartbeats together, that are parsed.
MAX_BEAT: Final = 16 * 1024
MAX_BEATS: Final = 32 * 1024 * 1024
#: Malformed heartbeats that one reading reports.
MAX_MALFORMED: Final = 1000

_SCANNED: Final = 1000
#: Heartbeats of one MGET.
_PAGE: Final = 100


@frozen
class InstanceHeartbeat:
    """The latest heartbeat of an instance."""

    instance_id: str
    age: float
    """Seconds since then."""
    facts: Mapping[str, Any]
    """Its content, which is untrusted: any part may be missing or malformed."""

    @property
    def streams(self) -> list[str]:
        """The streams that the instance writes."""
        return _streams_in(self.facts)[0]

    @property
    def control(self) -> str | None:
        """The address of its control port, if it has one."""
        return _control_in(self.facts)


@frozen
class Advertised:
    """The streams that all heartbeats name, and the malformed heartbeats."""

    streams: Mapping[str, str] = field(factory=dict)
    """Stream → an instance that writes it; at most :data:`MAX_STREAMS`."""
    malformed: Mapping[str, str] = field(factory=dict)
    """Key, printable and short → what is wrong with it; at most :data:`MAX_MALFORMED`."""
    left_out: int = 0
    """Streams beyond :data:`MAX_STREAMS`."""


async def heartbeats(
    redis: RedisConnection, malformed: dict[str, str] | None = None, max_aged: int = MAX_INSTANCES
) -> list[InstanceHeartbeat]:
    """Return the heartbeats of all living instances, sorted by instance id.

    :param malformed: receives the keys of malformed heartbeats, and what is wrong with each.
    :param max_aged: number of heartbeats whose age is read; the age of the others is 0.
    """
    found = [
        (instance_id, facts)
        async for page in _pages(redis, malformed)
        for instance_id, facts in page.items()
    ]
    found.sort(key=lambda beat: beat[0])
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
    """Return the seconds since a beat that expires in ``left`` milliseconds; 0 if unknown."""
    return max(0.0, EXPIRY - max(0, left) / 1000) if isinstance(left, int) else 0.0


async def living_instances(redis: RedisConnection) -> frozenset[str]:
    """Return the ids of the instances that have a heartbeat."""
    found: set[str] = set()
    async for keys in _scan(redis):
        found.update(instance_id for key in keys if (instance_id := _instance_of(key)) is not None)
    return frozenset(found)


async def streams_by_instance(redis: RedisConnection) -> dict[str, list[str]]:
    """Return instance → the streams that its heartbeat names."""
    return {
        instance_id: _streams_in(facts)[0]
        async for page in _pages(redis)
        for instance_id, facts in page.items()
    }


async def control_ports(redis: RedisConnection) -> dict[str, str]:
    """Return instance → the address of its control port, of living instances that have one."""
    found = {}
    async for page in _pages(redis):
        for instance_id, facts in page.items():
            if (address := _control_in(facts)) is not None:
                found[instance_id] = address
    return found


async def advertised_streams(redis: RedisConnection) -> dict[str, str]:
    """Return stream → an instance whose heartbeat names it."""
    return dict((await advertised(redis)).streams)


async def advertised(redis: RedisConnection) -> Advertised:
    """Read all heartbeats.

    If they name more than :data:`MAX_STREAMS`, existing streams are preferred, and among these
    the first one of each instance to the second one of any.
    """
    malformed: dict[str, str] = {}
    by_instance: dict[str, list[str]] = {}
    async for page in _pages(redis, malformed):
        for instance_id, facts in page.items():
            by_instance[instance_id] = _streams_in(facts)[0]
    writers = {stream: name for name, streams in by_instance.items() for stream in streams}
    if len(writers) <= MAX_STREAMS:
        return Advertised(writers, malformed)
    in_turn = chain.from_iterable(zip_longest(*by_instance.values()))
    names = dict.fromkeys(name for name in in_turn if name is not None)
    found = await existing(redis, list(names))
    kept = list(islice(dict.fromkeys([*found, *names]), MAX_STREAMS))
    return Advertised({name: writers[name] for name in kept}, malformed, len(writers) - len(kept))


async def _scan(redis: RedisConnection) -> AsyncIterator[list[bytes]]:
    pattern = f"{heartbeat('')}*"
    async for keys in scan(redis, ["SCAN"], "MATCH", pattern, "COUNT", _SCANNED):
        yield keys


async def _pages(
    redis: RedisConnection, malformed: dict[str, str] | None = None
) -> AsyncIterator[dict[str, dict[str, Any]]]:
    """Yield pages of instance → facts of its heartbeat; no facts if it is malformed.

    :param malformed: receives the keys of malformed heartbeats; None: they are not reported.
    """
    seen, size = 0, 0
    async for keys in _scan(redis):
        names = []
        for key in keys:
            if (instance_id := _instance_of(key)) is not None:
                names.append(instance_id)
            else:
                _note(malformed, key, f"its name is not 1 to {MAX_NAME} characters of UTF-8")
        for start in range(0, min(len(names), MAX_INSTANCES - seen), _PAGE):
            page = names[start : start + _PAGE]
            # Unlike GET, MGET returns nil for a key of another type.
            answers = await redis.execute("MGET", *map(heartbeat, page))
            listed = dict(zip(page, answers, strict=True))
            if malformed is not None:
                await _note_other_types(redis, listed, malformed)
            found = {}
            for name, beat in listed.items():
                if beat is not None:  # otherwise it has expired meanwhile
                    size += len(beat)
                    found[name] = _facts(name, beat, malformed) if size <= MAX_BEATS else {}
            yield found
        seen += len(names)


async def _note_other_types(
    redis: RedisConnection, listed: Mapping[str, bytes | None], malformed: dict[str, str]
) -> None:
    missing = [heartbeat(name) for name, beat in listed.items() if beat is None]
    for key in await existing(redis, missing):
        _note(malformed, key, "not a string")


def _instance_of(key: bytes) -> str | None:
    """Return the instance id in a key's name; None if no instance can have such a key."""
    try:
        instance_id = key.decode().removeprefix(heartbeat(""))
    except UnicodeDecodeError:
        return None
    return instance_id if 0 < len(instance_id) <= MAX_NAME else None


def _facts(instance_id: str, beat: bytes, malformed: dict[str, str] | None) -> dict[str, Any]:
    try:
        facts = parse_json(beat, MAX_BEAT)
        if not isinstance(facts, dict):
            raise ValueError("not an object")
    except ValueError as error:
        _note(malformed, heartbeat(instance_id), f"not a heartbeat in JSON: {error}")
        return {}
    if why := _streams_in(facts)[1]:
        _note(malformed, heartbeat(instance_id), why)
    return facts


def _streams_in(facts: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the valid names of streams, and what is wrong with the others."""
    streams = facts.get("streams", [])
    if not isinstance(streams, list):
        return [], '"streams" is not an array'
    good = [name for name in streams[:MAX_STREAMS_OF_ONE] if is_stream_name(name)]
    if len(good) < min(len(streams), MAX_STREAMS_OF_ONE):
        return good, f'"streams" holds what is not a name of 1 to {MAX_NAME} characters'
    if len(streams) > MAX_STREAMS_OF_ONE:
        return good, f'"streams" holds {len(streams):,} names; {MAX_STREAMS_OF_ONE} of them count'
    return good, ""


def is_stream_name(name: Any) -> bool:
    """Return whether this is a valid name of a stream."""
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME and is_unicode(name)


def _control_in(facts: Mapping[str, Any]) -> str | None:
    address = facts.get("control")
    if isinstance(address, str) and len(address) <= MAX_ADDRESS and address.isprintable():
        return address
    return None


def _note(malformed: dict[str, str] | None, key: str | bytes, why: str) -> None:
    if malformed is not None and len(malformed) < MAX_MALFORMED:
        malformed[shown(key)] = why
