"""What the console sees in a real Redis."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from tests.integration.conftest import Connected
from tests.servers import RedisServer
from tracker.console import commands as module
from tracker.console.commands import PERIOD, CommandLog
from tracker.console.devices import Devices
from tracker.console.look import LOOK_BYTES, MOST_LETTERS, MOST_STREAMS, look
from tracker.console.ports import ControlPorts
from tracker.control.pool import Credentials
from tracker.errors import Refused
from tracker.log.redis.heartbeats import EXPIRY, heartbeats
from tracker.redis.address import RedisAddress

STREAM = "telemetry:teltonika"
RESPONSES = "commands:responses"
DEVICE = "356307042441013"


def beat(redis: RedisServer, instance: str, expires: int = EXPIRY, **facts: Any) -> None:
    text = json.dumps({"streams": [STREAM], "connections": 3, **facts})
    redis.client.set(f"instance:heartbeat:{instance}", text, ex=expires)


def respond(redis: RedisServer, command_id: str, status: str, **fields: str) -> None:
    about = {"command_id": command_id, "device_id": DEVICE, "instance_id": "one"}
    redis.client.xadd(RESPONSES, {**about, "status": status, **fields})


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.rightNow = time.time()
    return clock


@pytest.fixture
def log(connected: Connected, clock: Clock) -> CommandLog:
    return CommandLog(clock, connected.connection)


@ensureDeferred
async def test_an_empty_redis_is_seen(connected: Connected) -> None:
    seen = await look(connected.connection, [STREAM])
    assert (seen.lags, seen.responses, seen.heartbeats, seen.dead, seen.entries) == (
        [],
        None,
        [],
        [],
        [],
    )
    assert (seen.connected, seen.waiting, seen.queued) == (0, 0, 0)


@ensureDeferred
async def test_all_there_is_is_seen(redis: RedisServer, connected: Connected) -> None:
    redis.client.xadd(STREAM, {"a": 1})
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xadd("telemetry:other", {"a": 1})
    redis.client.hset("connections:registry", mapping={DEVICE: "one", "356307042441021": "two"})
    redis.client.sadd("commands:waiting", DEVICE)
    redis.client.xadd("commands:outbound:one", {"command_id": "c1", "payload": "getinfo"})
    beat(redis, "one", streams=["telemetry:other"])
    beat(redis, "two", expires=80, control="unix:/run/x.sock")
    seen = await look(connected.connection, [STREAM])
    assert [lag.stream for lag in seen.lags] == ["telemetry:other", STREAM]
    assert [beat.instance_id for beat in seen.heartbeats] == ["one", "two"]
    assert 10 <= seen.heartbeats[1].age < 30
    assert seen.heartbeats[1].control == "unix:/run/x.sock"
    assert (seen.connected, seen.waiting, seen.queued) == (2, 1, 1)
    assert seen.entries[0].fields[b"payload"] == b"getinfo"


@ensureDeferred
async def test_streams_that_are_not_looked_at_are_counted(
    redis: RedisServer, connected: Connected
) -> None:
    told = [f"telemetry:a{number:02}" for number in range(MOST_STREAMS + 4)]
    for stream in (STREAM, *told):
        redis.client.xadd(stream, {"a": 1})
    beat(redis, "one", streams=told)
    seen = await look(connected.connection, [STREAM])
    assert [lag.stream for lag in seen.lags] == [*told[: MOST_STREAMS - 1], STREAM]
    assert seen.left_out == 5
    assert (await look(connected.connection, [])).left_out == 4


@ensureDeferred
async def test_heartbeats_that_are_none_do_no_harm(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.set("instance:heartbeat:odd", "[1]")
    redis.client.set("instance:heartbeat:odder", json.dumps({"streams": 7, "control": 7}), ex=9)
    found = await heartbeats(connected.connection)
    assert [(one.instance_id, one.streams, one.control) for one in found] == [
        ("odd", [], None),
        ("odder", [], None),
    ]


@ensureDeferred
async def test_the_latest_dead_letters_are_seen(redis: RedisServer, connected: Connected) -> None:
    for number in range(MOST_LETTERS + 5):
        fields = {"_id": f"{number}-1", "_stream": STREAM, "_reason": "bad", "_attempts": 1}
        redis.client.xadd(f"{STREAM}:dead", {**fields, "payload": "x"})
    (dead,) = (await look(connected.connection, [STREAM])).dead
    assert (dead.stream, dead.total, len(dead.latest)) == (STREAM, MOST_LETTERS + 5, MOST_LETTERS)
    assert dead.latest[0].original_id == f"{MOST_LETTERS + 4}-1"


@ensureDeferred
async def test_long_dead_letters_are_counted_but_not_all_read(
    redis: RedisServer, connected: Connected
) -> None:
    streams = [f"telemetry:long{number}" for number in range(4)]
    size = LOOK_BYTES // 8
    for stream in streams:
        for _ in range(MOST_LETTERS):
            redis.client.xadd(f"{stream}:dead", {"payload": "x" * size})
    dead = (await look(connected.connection, streams)).dead
    assert [one.total for one in dead] == [MOST_LETTERS] * len(streams)
    read = [len(one.latest) for one in dead]
    assert read[0] > 1
    assert sum(read) * size <= LOOK_BYTES + size


@ensureDeferred
async def test_a_key_of_another_type_is_no_stream(redis: RedisServer, connected: Connected) -> None:
    redis.client.set(RESPONSES, "text")
    assert (await look(connected.connection, [STREAM])).responses is None


@ensureDeferred
async def test_what_became_of_commands_is_told_newest_first(
    redis: RedisServer, log: CommandLog
) -> None:
    await log.look([])
    assert log.latest(10) == []
    respond(redis, "c1", "delivered")
    respond(redis, "c2", "failed", reason="offline")
    respond(redis, "c1", "responded", response="GPS:1")
    await log.look([])
    first, second = log.latest(10)
    assert (first["command_id"], first["status"], first["response"]) == ("c1", "responded", "GPS:1")
    assert (second["command_id"], second["status"], second["reason"]) == ("c2", "failed", "offline")
    assert log.counts() == {"responded": 1, "rejected": 0, "failed": 1, "expired": 0}
    await log.look([])
    assert log.counts()["responded"] == 1
    assert log.latest(10, "356307042441021") == []


@ensureDeferred
async def test_only_an_hour_is_counted(redis: RedisServer, log: CommandLog, clock: Clock) -> None:
    old = int((time.time() - PERIOD - 120) * 1000)
    fields = {"command_id": "c0", "device_id": DEVICE, "status": "expired"}
    redis.client.xadd(RESPONSES, fields, id=f"{old}-0")
    respond(redis, "c1", "responded")
    await log.look([])
    assert [one["command_id"] for one in log.latest(10)] == ["c1"]
    clock.advance(PERIOD + 60)
    assert sum(log.counts().values()) == 0


@ensureDeferred
async def test_many_responses_are_read_in_turns_and_none_is_left_out(
    redis: RedisServer, log: CommandLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 10)
    monkeypatch.setattr(module, "_PAGES", 3)
    monkeypatch.setattr(module, "MOST_COMMANDS", 20)
    for number in range(75):
        respond(redis, f"c{number}", "responded")
    for counted in (30, 60, 75, 75):
        await log.look([])
        assert log.counts()["responded"] == counted
    assert len(log.latest(1000)) == 20


@ensureDeferred
async def test_a_stream_that_was_made_anew_is_read_from_its_beginning(
    redis: RedisServer, log: CommandLog
) -> None:
    later = int((time.time() + 1000) * 1000)
    fields = {"command_id": "c1", "device_id": DEVICE, "status": "responded"}
    redis.client.xadd(RESPONSES, fields, id=f"{later}-0")
    await log.look([])
    redis.client.flushall()
    respond(redis, "c2", "responded")
    await log.look([])
    assert "c2" in [one["command_id"] for one in log.latest(10)]


@ensureDeferred
async def test_the_text_of_a_command_is_known_while_it_is_under_way(
    redis: RedisServer, connected: Connected, log: CommandLog
) -> None:
    fields = {"command_id": "c1", "device_id": DEVICE, "payload": "getinfo"}
    redis.client.xadd("commands:outbound:one", fields)
    beat(redis, "one")
    seen = await look(connected.connection, [])
    await log.look(seen.entries)
    (known,) = log.latest(10)
    assert (known["text"], known["status"], known["instance_id"]) == ("getinfo", "queued", "one")
    respond(redis, "c1", "responded")
    await log.look(seen.entries)
    (known,) = log.latest(10)
    assert (known["text"], known["status"]) == ("getinfo", "responded")


@ensureDeferred
async def test_what_is_no_response_is_left_out(redis: RedisServer, log: CommandLog) -> None:
    redis.client.xadd(RESPONSES, {"status": "odd"})
    redis.client.xadd(RESPONSES, {b"\xff": b"\xff"})
    respond(redis, "c1", "rejected")
    await log.look([])
    assert [one["command_id"] for one in log.latest(10)] == ["c1"]


@ensureDeferred
async def test_without_a_database_devices_are_those_that_are_connected(
    redis: RedisServer, connected: Connected
) -> None:
    from twisted.internet import reactor

    fleet = {f"35630704{number:07}": "one" for number in range(3000)}
    redis.client.hset("connections:registry", mapping=fleet)
    ports = ControlPorts(reactor, Credentials())
    devices = Devices(reactor, connected.connection, positions=None, ports=ports, namings={})
    found: list[str] = []
    after = ""
    while True:
        page = await devices.page("", "id", after, 100)
        assert page["stored"] is False
        assert len(page["devices"]) < 1000
        found += [row["device_id"] for row in page["devices"]]
        if page["after"] is None:
            break
        after = page["after"]
    assert set(found) == fleet.keys()
    page = await devices.page("0002999", "id", "", 100)
    while page["after"] is not None and not page["devices"]:
        page = await devices.page("0002999", "id", page["after"], 100)
    assert [row["device_id"] for row in page["devices"]] == ["356307040002999"]
    one = await devices.one("356307040002999")
    assert (one["instance_id"], one["place"], one["connection"]) == ("one", None, None)


#: Of the documentation: nothing that writes.
RIGHTS = (
    *(
        "ping",
        "role",
        "scan",
        "mget",
        "exists",
        "time",
        "eval",
        "evalsha",
        "xinfo",
        "xpending",
    ),
    *("xrange", "xrevrange", "xlen", "hlen", "hmget", "hscan", "scard", "pttl"),
)


@ensureDeferred
async def test_it_needs_no_right_to_write(redis: RedisServer) -> None:
    from twisted.internet import reactor

    redis.client.xadd(STREAM, {"a": 1})
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xadd(f"{STREAM}:dead", {"a": 1})
    redis.client.xadd("commands:outbound:one", {"command_id": "c1", "payload": "getinfo"})
    respond(redis, "c1", "responded")
    beat(redis, "one")
    rights = [f"+{command}" for command in RIGHTS]
    redis.client.acl_setuser("console", True, passwords=["+secret"], keys=["*"], commands=rights)
    limited = Connected(RedisAddress.from_url(f"redis://console:secret@127.0.0.1:{redis.port}/0"))
    try:
        await limited.usable()
        connection = limited.connection
        seen = await look(connection, [STREAM])
        assert (len(seen.lags), len(seen.dead), seen.queued) == (1, 1, 1)
        log = CommandLog(reactor, connection)
        await log.look(seen.entries)
        assert log.latest(1)[0]["status"] == "responded"
        devices = Devices(
            reactor,
            connection,
            positions=None,
            ports=ControlPorts(reactor, Credentials()),
            namings={},
        )
        assert (await devices.one(DEVICE))["instance_id"] is None
        assert (await devices.page("", "id", "", 10))["devices"] == []
        with pytest.raises(Refused, match="NOPERM"):
            await connection.execute("XADD", STREAM, "*", "a", "b")
    finally:
        await connection.stopService()
