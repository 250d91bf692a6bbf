"""Entries of commands as a test puts them into Redis, and what must not be left of them."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from tests.servers import RedisServer
from tests.system.commands import RESPONSES, fields
from tracker.command import Command
from tracker.log.entries import Delivered

DEVICE = "356307042441013"
OTHER = "356307042441021"
GROUP = "ingest"
WAITING = "commands:waiting"


def outbound(instance_id: str) -> str:
    return f"commands:outbound:{instance_id}"


def waiting(device_id: str = DEVICE) -> str:
    return f"{WAITING}:{device_id}"


def sent(command_id: str) -> str:
    return f"commands:sent:{command_id}"


def clock_of(redis: RedisServer) -> Clock:
    """A clock that stands where the server's does, so that expiries mean the same to both."""
    clock = Clock()
    seconds, microseconds = redis.client.time()
    clock.advance(seconds + microseconds / 1e6)
    return clock


def put(redis: RedisServer, stream: str, content: dict[str, str]) -> Delivered:
    """A new entry that nobody has read."""
    entry_id = redis.client.xadd(stream, content).decode()
    return found(redis, stream, entry_id)


def found(redis: RedisServer, stream: str, entry_id: str) -> Delivered:
    ((_, content),) = _entries(redis, stream, entry_id, entry_id)
    return Delivered(stream, entry_id, content)


def _entries(redis: RedisServer, stream: str, first: str, last: str) -> list[Any]:
    # The client would make a dictionary of each, which is less than what is there.
    script = "return redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2])"
    entries: list[Any] = redis.client.eval(script, 1, stream, first, last)
    return entries


def read(redis: RedisServer, stream: str, consumer: str = "one") -> list[Delivered]:
    """Have all new entries given to a consumer of the group, which is made if need be."""
    if not redis.client.exists(stream) or not redis.client.xinfo_groups(stream):
        redis.client.xgroup_create(stream, GROUP, "0", mkstream=True)
    return [
        found(redis, stream, entry_id.decode())
        for _, entries in redis.client.xreadgroup(GROUP, consumer, {stream: ">"})
        for entry_id, _ in entries
    ]


def given(
    redis: RedisServer,
    command_id: str = "c1",
    instance_id: str = "one",
    device_id: str = DEVICE,
    **options: Any,
) -> tuple[Delivered, Command]:
    """A command that its instance has read."""
    entry = put(redis, outbound(instance_id), fields(command_id, device_id, **options))
    read(redis, entry.stream, instance_id)
    return entry, Command.from_entry(entry.content or ())


def live(redis: RedisServer, *instances: str) -> None:
    for instance_id in instances:
        redis.client.set(f"instance:heartbeat:{instance_id}", "{}", ex=90)


def connect(redis: RedisServer, instance_id: str, *devices: str) -> None:
    """As if the devices had logged in there."""
    redis.client.hset("connections:registry", mapping=dict.fromkeys(devices, instance_id))


def raw(redis: RedisServer, stream: str) -> list[list[bytes]]:
    """The entries of a stream: names and values in turn, as they stand there."""
    return [content for _, content in _entries(redis, stream, "-", "+")]


def command_ids(redis: RedisServer, stream: str) -> list[str]:
    """The commands in a stream, in their order."""
    return [
        content[b"command_id"].decode()
        for _, content in redis.client.xrange(stream)
        if b"command_id" in content
    ]


def is_empty(redis: RedisServer, stream: str) -> bool:
    """Whether there is nothing in a stream, and its group waits for nothing."""
    if not redis.client.exists(stream):
        return True
    pending = [group["pending"] for group in redis.client.xinfo_groups(stream)]
    return redis.client.xlen(stream) == 0 and not any(pending)


def snapshot(redis: RedisServer) -> dict[bytes, bytes]:
    """All that is in Redis."""
    return {key: redis.client.dump(key) for key in redis.client.scan_iter()}


def said(redis: RedisServer) -> list[tuple[str, str, str]]:
    """Command id, status and reason of each response."""
    return [
        (content[b"command_id"].decode(), content[b"status"].decode(), content[b"reason"].decode())
        for _, content in redis.client.xrange(RESPONSES)
    ]
