"""Write and read entries and records of commands in Redis."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from tests.servers import RedisServer
from tests.system.commands import RESPONSES, fields
from tracker.command import Command
from tracker.log.entries import StreamEntry

DEVICE = "356307042441013"
OTHER = "356307042441021"
GROUP = "ingest"
WAITING = "commands:waiting"


def outbound(instance_id: str) -> str:
    return f"commands:outbound:{instance_id}"


def waiting_stream(device_id: str = DEVICE) -> str:
    return f"{WAITING}:{device_id}"


def record_key(command_id: str) -> str:
    return f"commands:sent:{command_id}"


def clock_of(redis: RedisServer) -> Clock:
    """Return a clock that shows the server's time, so that both agree on expiries."""
    clock = Clock()
    seconds, microseconds = redis.client.time()
    clock.advance(seconds + microseconds / 1e6)
    return clock


def append_entry(redis: RedisServer, stream: str, content: dict[str, str]) -> StreamEntry:
    """Append an entry; return it."""
    entry_id = redis.client.xadd(stream, content).decode()
    return entry_at(redis, stream, entry_id)


def entry_at(redis: RedisServer, stream: str, entry_id: str) -> StreamEntry:
    ((_, content),) = _entries(redis, stream, entry_id, entry_id)
    return StreamEntry(stream, entry_id, content)


def _entries(redis: RedisServer, stream: str, first: str, last: str) -> list[Any]:
    # The client converts each entry to a dictionary, which loses repeated fields and their order.
    script = "return redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2])"
    entries: list[Any] = redis.client.eval(script, 1, stream, first, last)
    return entries


def read_new(redis: RedisServer, stream: str, consumer: str = "one") -> list[StreamEntry]:
    """Read all new entries as a consumer of the group, which is created if missing."""
    if not redis.client.exists(stream) or not redis.client.xinfo_groups(stream):
        redis.client.xgroup_create(stream, GROUP, "0", mkstream=True)
    return [
        entry_at(redis, stream, entry_id.decode())
        for _, entries in redis.client.xreadgroup(GROUP, consumer, {stream: ">"})
        for entry_id, _ in entries
    ]


def queued_command(
    redis: RedisServer,
    command_id: str = "c1",
    instance_id: str = "one",
    device_id: str = DEVICE,
    **options: Any,
) -> tuple[StreamEntry, Command]:
    """Append a command to the stream of an instance, and read it as that instance."""
    entry = append_entry(redis, outbound(instance_id), fields(command_id, device_id, **options))
    read_new(redis, entry.stream, instance_id)
    return entry, Command.from_entry(entry.content or ())


def set_heartbeats(redis: RedisServer, *instances: str) -> None:
    for instance_id in instances:
        redis.client.set(f"instance:heartbeat:{instance_id}", "{}", ex=90)


def register_devices(redis: RedisServer, instance_id: str, *devices: str) -> None:
    """Register devices as connected to an instance."""
    redis.client.hset("connections:registry", mapping=dict.fromkeys(devices, instance_id))


def contents(redis: RedisServer, stream: str) -> list[list[bytes]]:
    """Return the content of each entry of a stream: alternating names and values."""
    return [content for _, content in _entries(redis, stream, "-", "+")]


def command_ids(redis: RedisServer, stream: str) -> list[str]:
    """Return the command IDs in a stream, in their order."""
    return [
        content[b"command_id"].decode()
        for _, content in redis.client.xrange(stream)
        if b"command_id" in content
    ]


def is_empty(redis: RedisServer, stream: str) -> bool:
    """Return True if a stream has neither entries nor pending ones."""
    if not redis.client.exists(stream):
        return True
    pending = [group["pending"] for group in redis.client.xinfo_groups(stream)]
    return redis.client.xlen(stream) == 0 and not any(pending)


def dump_all(redis: RedisServer) -> dict[bytes, bytes]:
    """Return the serialized value of every key in Redis."""
    return {key: redis.client.dump(key) for key in redis.client.scan_iter()}


def summaries(redis: RedisServer) -> list[tuple[str, str, str]]:
    """Return command ID, status and reason of each response."""
    return [
        (content[b"command_id"].decode(), content[b"status"].decode(), content[b"reason"].decode())
        for _, content in redis.client.xrange(RESPONSES)
    ]
