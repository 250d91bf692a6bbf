"""A Redis server with healthy keys, and malformed keys that any client may have written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.servers import RedisServer
from tests.system.commands import fields
from tracker.position import Position

DEVICE: Final = "356307042441013"
OTHER: Final = "356307042441021"
STUCK_DEVICE: Final = "356307042441039"

#: Healthy streams: a configured one, and one that only the last heartbeat names.
STREAM: Final = "telemetry:teltonika"
LAST: Final = "telemetry:zebra"
#: The instance that writes both, and one that does not exist.
GOOD_INSTANCE: Final = "zebra"
MISSING_INSTANCE: Final = "gone"
HEALTHY: Final = (STREAM, LAST)

#: A stream's name with control characters that a terminal would interpret.
ANSI: Final = "telemetry:a b\n\x1b[31m"
DEEP: Final = "[" * 100_000
HUGE: Final = "9" * 3_000_000
LONG: Final = "x" * 100_000

#: Keys that heartbeats name as streams, but that are not streams.
NO_STREAMS: Final = ("telemetry:hash", "telemetry:text")

#: The largest possible ID.
LAST_ID: Final = "18446744073709551615-18446744073709551615"
_HOUR_MS: Final = 3_600_000


def position(number: int) -> dict[str, str]:
    """Return the fields of a healthy entry."""
    healthy = Position(
        DEVICE, f"2026-11-22T10:00:{number:02}.000Z", 41.3, 19.8, 110, 214, 43, 14, 0, 0, {}
    )
    return healthy.to_entry("8E")._asdict()


def poison(redis: RedisServer) -> None:
    """Fill the server: 2 old processed entries and 1 new one in each healthy stream."""
    redis.client.config_set("stream-node-max-entries", 1)
    redis.client.config_set("appendfsync", "no")
    for build in (_heartbeats, _streams, _dead_letters, _commands, _hashes, healthy):
        build(redis.client)


def healthy(client: Any) -> None:
    now = int(time.time() * 1000)
    for stream in HEALTHY:
        for number in (1, 2):
            client.xadd(stream, position(number), id=f"{now - 5 * _HOUR_MS}-{number}")
        client.xgroup_create(stream, "processor", "0")
        client.xreadgroup("processor", "one", {stream: ">"})
        client.xack(stream, "processor", *(f"{now - 5 * _HOUR_MS}-{number}" for number in (1, 2)))
        client.xadd(stream, position(3))
        client.xadd(f"{stream}:dead", {"_id": "1-1", "_reason": "odd", **position(4)})
    heartbeat = {"streams": list(HEALTHY), "connections": 3, "control": "unix:/run/zebra.sock"}
    client.set(f"instance:heartbeat:{GOOD_INSTANCE}", json.dumps(heartbeat), ex=90)
    client.hset("connections:registry", mapping={DEVICE: GOOD_INSTANCE, OTHER: MISSING_INSTANCE})
    client.hset("connections:vendors", DEVICE, "teltonika")
    client.xadd(f"commands:outbound:{MISSING_INSTANCE}", fields("expired", OTHER, expires_in=-1))
    client.xadd(f"commands:waiting:{OTHER}", fields("waited", OTHER, expires_in=-1))
    client.sadd("commands:waiting", OTHER)
    client.sadd("devices:allowed", DEVICE)
    client.hset("devices:models", DEVICE, "FMB920")
    client.hset("devices:vendors", DEVICE, "teltonika")
    response = {"command_id": "c1", "device_id": DEVICE, "status": "responded", "response": "fine"}
    client.xadd("commands:responses", response)


def _heartbeats(client: Any) -> None:
    names = ["\ud800", "", LONG[:1000], ANSI, 3, None, ["x"], *NO_STREAMS, "telemetry:groups"]
    for instance_id, heartbeat in {
        "a-deep": DEEP,
        "a-number": HUGE,
        "a-decimal": f'{{"connections": {HUGE}.5}}',
        "a-list": "[]",
        "a-null": "null",
        "a-empty": "",
        "a-bytes": b"\xff\xfe",
        "a-huge": json.dumps({"host": "x" * 1_000_000}),
        "a-names": json.dumps({"streams": names, "version": LONG[:5000], "host": "\x1b[31m"}),
        "a-long": json.dumps({"streams": [LONG]}),
        "a-many": json.dumps({"streams": [f"none:{number}" for number in range(1000)]}),
        "a-types": '{"streams": "x", "control": 3, "connections": 1e999, "version": [[]]}',
        "a-nan": '{"connections": NaN}',
        "a-control": json.dumps({"control": "unix:/\ud800\0"}),
        "a-int": json.dumps({"connections": int("9" * 900)}),
        "a\n\x1b[31m": "{}",
    }.items():
        client.set(f"instance:heartbeat:{instance_id}", heartbeat)
    client.hset("instance:heartbeat:a-hash", "a", "b")
    client.set(b"instance:heartbeat:\xff\n", "{}")
    client.set(f"instance:heartbeat:{LONG}", "{}")


def _streams(client: Any) -> None:
    client.hset("telemetry:hash", "a", "b")
    client.set("telemetry:text", "x")
    client.xadd(ANSI, {"a": "b"})
    client.xgroup_create(ANSI, "\n\x1b[31m", "0")
    client.xadd("telemetry:groups", {b"\xff": b"\xff", LONG: LONG})
    for name in (b"\xff\n", LONG, LONG + "y", *map(str, range(100))):
        client.xgroup_create("telemetry:groups", name, "0")
    client.xgroup_create("telemetry:groups", "processor", "0")
    for name in (b"\xff\n", LONG, *map(str, range(150))):
        client.xgroup_createconsumer("telemetry:groups", "processor", name)


def _wide() -> list[str]:
    return [text for number in range(9000) for text in (f"n{number}", "v")]


def _dead_letters(client: Any) -> None:
    for stream in HEALTHY:
        client.xadd(f"{stream}:dead", {"_attempts": "9" * 5000, "_reason": "\x1b[31m" + HUGE})
        client.execute_command("XADD", f"{stream}:dead", "*", "_id", "1-1", *_wide())
        client.xadd(f"{stream}:dead", {b"\xff": b"\xff", b"device_id": b"\xff" * 5000})
    client.set("telemetry:hash:dead", "x")
    client.xadd("telemetry:groups:dead", {"a": "b"}, id=LAST_ID)


def _commands(client: Any) -> None:
    stream = f"commands:outbound:{MISSING_INSTANCE}"
    client.execute_command("XADD", stream, "*", *_wide())
    client.xadd(stream, {b"command_id": b"\xff", "payload": HUGE, "expires_at": HUGE})
    client.xadd(stream, fields("stuck", STUCK_DEVICE))
    client.hset(f"commands:waiting:{STUCK_DEVICE}", "a", "b")
    client.sadd("commands:waiting", STUCK_DEVICE, b"\xff", LONG, "\n\x1b[31m", "")
    client.xadd(b"commands:outbound:\xff", fields("never", DEVICE))
    client.hset("commands:outbound:a-list", "a", "b")
    client.xadd("commands:outbound:last", fields("last", DEVICE, expires_in=-1), id=LAST_ID)
    client.hset("commands:sent:hash", "a", "b")
    client.set("commands:sent:huge", "sent " + HUGE)
    client.set("commands:sent:nowhere", "done responded 99999999999999999999-0")
    for response in (
        {"status": HUGE},
        {"status": "\x1b[31m"},
        {"a": "b"},
        {"status": "failed", "command_id": LONG, "at": HUGE, "response": HUGE, "device_id": LONG},
        {b"status": b"responded", b"\xff": b"\xff", b"command_id": b"\xff"},
    ):
        client.xadd("commands:responses", response)
    client.execute_command("XADD", "commands:responses", "*", *_wide())


def _hashes(client: Any) -> None:
    for key in ("connections:registry", "connections:vendors", "devices:models", "devices:vendors"):
        client.hset(key, mapping={b"\xff": b"\xff", LONG: LONG + "y", "": "", "\n\x1b[31m": "\n"})
    client.sadd("devices:allowed", b"\xff", LONG, "", "\n\x1b[31m")


#: Maximum number of characters of a log line, a reason or a finding.
MAX_LINE: Final = 2500


@contextmanager
def quiet() -> Iterator[Sequence[LogEvent]]:
    """Check that all lines logged in the block are short, printable and not failures."""
    with capturedLogs() as captured:
        yield captured
    lines = [formatEvent(event) for event in captured]
    assert [
        event["log_failure"].getTraceback() for event in captured if "log_failure" in event
    ] == []
    assert [line[:200] for line in lines if len(line) > MAX_LINE] == []
    assert [line for line in lines if not line.isprintable()] == []


def is_line(text: str) -> bool:
    return text.isprintable() and len(text) <= MAX_LINE
