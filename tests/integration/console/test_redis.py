"""The console's data from a real Redis."""

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
from tracker.console.ports import ControlPorts
from tracker.console.snapshot import MAX_LETTERS, MAX_SNAPSHOT_BYTES, MAX_STREAMS, take_snapshot
from tracker.control.pool import Credentials
from tracker.errors import Refused
from tracker.log.redis.heartbeats import EXPIRY, heartbeats
from tracker.log.redis.stranded import StrandedStream
from tracker.redis.address import RedisAddress

STREAM = "telemetry:teltonika"
RESPONSES = "commands:responses"
DEVICE = "356307042441013"


def set_heartbeat(redis: RedisServer, instance: str, expires: int = EXPIRY, **facts: Any) -> None:
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
async def test_snapshot_of_an_empty_redis_is_empty(connected: Connected) -> None:
    snapshot = await take_snapshot(connected.connection, [STREAM])
    assert (
        snapshot.lags,
        snapshot.responses,
        snapshot.heartbeats,
        snapshot.dead,
        snapshot.entries,
    ) == (
        [],
        None,
        [],
        [],
        [],
    )
    assert (snapshot.connected, snapshot.waiting, snapshot.queued) == (0, 0, 0)


@ensureDeferred
async def test_snapshot_contains_lag_instances_commands_and_counts(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.xadd(STREAM, {"a": 1})
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xadd("telemetry:other", {"a": 1})
    redis.client.hset("connections:registry", mapping={DEVICE: "one", "356307042441021": "two"})
    redis.client.sadd("commands:waiting", DEVICE)
    redis.client.xadd("commands:outbound:one", {"command_id": "c1", "payload": "getinfo"})
    set_heartbeat(redis, "one", streams=["telemetry:other"])
    set_heartbeat(redis, "two", expires=80, control="unix:/run/x.sock")
    snapshot = await take_snapshot(connected.connection, [STREAM])
    assert [lag.stream for lag in snapshot.lags] == ["telemetry:other", STREAM]
    assert [one.instance_id for one in snapshot.heartbeats] == ["one", "two"]
    assert 10 <= snapshot.heartbeats[1].age < 30
    assert snapshot.heartbeats[1].control == "unix:/run/x.sock"
    assert (snapshot.connected, snapshot.waiting, snapshot.queued) == (2, 1, 1)
    assert snapshot.entries[0].fields[b"payload"] == b"getinfo"


@ensureDeferred
async def test_streams_beyond_the_limit_are_counted(
    redis: RedisServer, connected: Connected
) -> None:
    advertised = [f"telemetry:a{number:02}" for number in range(MAX_STREAMS + 4)]
    for stream in (STREAM, *advertised):
        redis.client.xadd(stream, {"a": 1})
    set_heartbeat(redis, "one", streams=advertised)
    snapshot = await take_snapshot(connected.connection, [STREAM])
    assert [lag.stream for lag in snapshot.lags] == [*advertised[: MAX_STREAMS - 1], STREAM]
    assert snapshot.left_out == 5
    assert (await take_snapshot(connected.connection, [])).left_out == 4


@ensureDeferred
async def test_snapshot_has_stranded_streams_that_no_instance_advertises(
    redis: RedisServer, connected: Connected
) -> None:
    set_heartbeat(redis, "one", streams=["positions"])
    stranded = [StrandedStream(name, 1, 1.0) for name in ("positions", "telemtry")]
    snapshot = await take_snapshot(connected.connection, [STREAM], stranded)
    assert [one.name for one in snapshot.stranded] == ["telemtry"]
    many = [StrandedStream(f"s{number}", 1, 1.0) for number in range(MAX_STREAMS + 2)]
    snapshot = await take_snapshot(connected.connection, [STREAM], many)
    assert (snapshot.stranded, snapshot.left_out) == (many[:MAX_STREAMS], 2)
    assert list((await take_snapshot(connected.connection, [STREAM], None)).unknown) == ["lag"]


@ensureDeferred
async def test_malformed_heartbeats_are_read_without_their_facts(
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
async def test_snapshot_contains_the_latest_dead_letters(
    redis: RedisServer, connected: Connected
) -> None:
    for number in range(MAX_LETTERS + 5):
        fields = {"_id": f"{number}-1", "_stream": STREAM, "_reason": "bad", "_attempts": 1}
        redis.client.xadd(f"{STREAM}:dead", {**fields, "payload": "x"})
    (dead,) = (await take_snapshot(connected.connection, [STREAM])).dead
    assert (dead.stream, dead.total, len(dead.latest)) == (STREAM, MAX_LETTERS + 5, MAX_LETTERS)
    assert dead.latest[0].original_id == f"{MAX_LETTERS + 4}-1"


@ensureDeferred
async def test_dead_letters_beyond_the_size_limit_are_only_counted(
    redis: RedisServer, connected: Connected
) -> None:
    streams = [f"telemetry:long{number}" for number in range(4)]
    size = MAX_SNAPSHOT_BYTES // 8
    for stream in streams:
        for _ in range(MAX_LETTERS):
            redis.client.xadd(f"{stream}:dead", {"payload": "x" * size})
    dead = (await take_snapshot(connected.connection, streams)).dead
    assert [one.total for one in dead] == [MAX_LETTERS] * len(streams)
    read = [len(one.latest) for one in dead]
    assert read[0] > 1
    assert sum(read) * size <= MAX_SNAPSHOT_BYTES + size


@ensureDeferred
async def test_key_of_another_type_counts_as_no_stream(
    redis: RedisServer, connected: Connected
) -> None:
    redis.client.set(RESPONSES, "text")
    assert (await take_snapshot(connected.connection, [STREAM])).responses is None


@ensureDeferred
async def test_statuses_of_commands_are_returned_newest_first(
    redis: RedisServer, log: CommandLog
) -> None:
    await log.update([])
    assert log.latest(10) == []
    respond(redis, "c1", "delivered")
    respond(redis, "c2", "failed", reason="offline")
    respond(redis, "c1", "responded", response="GPS:1")
    await log.update([])
    first, second = log.latest(10)
    assert (first["command_id"], first["status"], first["response"]) == ("c1", "responded", "GPS:1")
    assert (second["command_id"], second["status"], second["reason"]) == ("c2", "failed", "offline")
    assert log.counts() == {"responded": 1, "rejected": 0, "failed": 1, "expired": 0}
    await log.update([])
    assert log.counts()["responded"] == 1
    assert log.latest(10, "356307042441021") == []


@ensureDeferred
async def test_statuses_older_than_an_hour_are_not_counted(
    redis: RedisServer, log: CommandLog, clock: Clock
) -> None:
    old = int((time.time() - PERIOD - 120) * 1000)
    fields = {"command_id": "c0", "device_id": DEVICE, "status": "expired"}
    redis.client.xadd(RESPONSES, fields, id=f"{old}-0")
    respond(redis, "c1", "responded")
    await log.update([])
    assert [one["command_id"] for one in log.latest(10)] == ["c1"]
    clock.advance(PERIOD + 60)
    assert sum(log.counts().values()) == 0


@ensureDeferred
async def test_many_responses_are_read_completely_over_several_updates(
    redis: RedisServer, log: CommandLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 10)
    monkeypatch.setattr(module, "_PAGES", 3)
    monkeypatch.setattr(module, "MAX_COMMANDS", 20)
    for number in range(75):
        respond(redis, f"c{number}", "responded")
    for counted in (30, 60, 75, 75):
        await log.update([])
        assert log.counts()["responded"] == counted
    assert len(log.latest(1000)) == 20


@ensureDeferred
async def test_recreated_stream_is_read_from_its_beginning(
    redis: RedisServer, log: CommandLog
) -> None:
    later = int((time.time() + 1000) * 1000)
    fields = {"command_id": "c1", "device_id": DEVICE, "status": "responded"}
    redis.client.xadd(RESPONSES, fields, id=f"{later}-0")
    await log.update([])
    redis.client.flushall()
    respond(redis, "c2", "responded")
    await log.update([])
    assert "c2" in [one["command_id"] for one in log.latest(10)]


@ensureDeferred
async def test_text_of_a_queued_command_is_kept_after_its_response(
    redis: RedisServer, connected: Connected, log: CommandLog
) -> None:
    fields = {"command_id": "c1", "device_id": DEVICE, "payload": "getinfo"}
    redis.client.xadd("commands:outbound:one", fields)
    set_heartbeat(redis, "one")
    snapshot = await take_snapshot(connected.connection, [])
    await log.update(snapshot.entries)
    (known,) = log.latest(10)
    assert (known["text"], known["status"], known["instance_id"]) == ("getinfo", "queued", "one")
    respond(redis, "c1", "responded")
    await log.update(snapshot.entries)
    (known,) = log.latest(10)
    assert (known["text"], known["status"]) == ("getinfo", "responded")


@ensureDeferred
async def test_command_that_has_ended_is_shown_with_its_text_sender_and_times(
    redis: RedisServer, log: CommandLog
) -> None:
    sent_at, ended_at = "2026-11-22T10:00:00.000Z", "2026-11-22T10:00:03.000Z"
    recorded = {"payload": "getinfo", "payload_hex": "", "sender": "anna", "sent_at": sent_at}
    respond(redis, "c1", "delivered", at="2026-11-22T10:00:01.000Z", **recorded)
    respond(redis, "c1", "responded", at=ended_at, **recorded)
    respond(redis, "c2", "expired", **recorded | {"payload": "", "payload_hex": "0a0b"})
    respond(redis, "old", "expired")
    await log.update([])
    known = {one["command_id"]: one for one in log.latest(10)}
    first = known["c1"]
    assert (first["text"], first["by"], first["sent_at"]) == ("getinfo", "anna", sent_at)
    assert (first["delivered_at"], first["at"]) == ("2026-11-22T10:00:01.000Z", ended_at)
    assert known["c2"]["text"] == "0x0a0b"
    assert known["old"]["text"] is None  # of an earlier version: shown as not recorded


@ensureDeferred
async def test_waiting_command_is_shown_with_its_expiry_until_it_is_queued(
    redis: RedisServer, connected: Connected, log: CommandLog
) -> None:
    expires_at = "2026-11-22T10:00:00.000Z"
    fields = {"command_id": "c1", "device_id": DEVICE, "payload": "getinfo", "sender": "anna"}
    fields["expires_at"] = expires_at
    redis.client.sadd("commands:waiting", DEVICE, "not a device")
    redis.client.xadd(f"commands:waiting:{DEVICE}", fields)
    snapshot = await take_snapshot(connected.connection, [])
    await log.update(snapshot.entries)
    (known,) = log.latest(10)
    assert (known["status"], known["expires_at"], known["by"]) == ("waiting", expires_at, "anna")
    assert known["instance_id"] == ""
    redis.client.xadd("commands:outbound:one", fields)
    redis.client.delete("commands:waiting", f"commands:waiting:{DEVICE}")
    set_heartbeat(redis, "one")
    await log.update((await take_snapshot(connected.connection, [])).entries)
    (known,) = log.latest(10)
    assert (known["status"], known["instance_id"]) == ("queued", "one")
    assert snapshot.unknown == {}


@ensureDeferred
async def test_commands_that_wait_for_one_device_are_read_on_request(
    redis: RedisServer, log: CommandLog
) -> None:
    for number in range(3):
        fields = {"command_id": f"c{number}", "device_id": DEVICE, "payload": "getinfo"}
        redis.client.xadd(f"commands:waiting:{DEVICE}", fields)
    await log.read_waiting(DEVICE)
    assert [one["status"] for one in log.latest(10, DEVICE)] == ["waiting"] * 3
    redis.client.set("commands:waiting:356307042441021", "x")
    await log.read_waiting("356307042441021")


@ensureDeferred
async def test_bytes_of_a_queued_command_are_shown_in_hex(
    redis: RedisServer, connected: Connected, log: CommandLog
) -> None:
    fields = {"command_id": "c1", "device_id": DEVICE, "payload_hex": "0a0bff"}
    redis.client.xadd("commands:outbound:one", fields)
    set_heartbeat(redis, "one")
    await log.update((await take_snapshot(connected.connection, [])).entries)
    assert [known["text"] for known in log.latest(10)] == ["0x0a0bff"]


@ensureDeferred
async def test_malformed_responses_are_ignored(redis: RedisServer, log: CommandLog) -> None:
    redis.client.xadd(RESPONSES, {"status": "odd"})
    redis.client.xadd(RESPONSES, {b"\xff": b"\xff"})
    respond(redis, "c1", "rejected")
    await log.update([])
    assert [one["command_id"] for one in log.latest(10)] == ["c1"]


@ensureDeferred
async def test_connected_devices_are_listed_without_a_database(
    redis: RedisServer, connected: Connected
) -> None:
    from twisted.internet import reactor

    fleet = {f"35630704{number:07}": "one" for number in range(3000)}
    redis.client.hset("connections:registry", mapping=fleet)
    redis.client.hset("connections:vendors", "356307040002999", "concox")
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
    assert [(row["device_id"], row["vendor"]) for row in page["devices"]] == [
        ("356307040002999", "concox")
    ]
    one = await devices.one("356307040002999")
    assert (one["instance_id"], one["position"], one["connection"]) == ("one", None, None)


#: The commands that docs/console.rst lists; none of them writes.
COMMANDS = (
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
async def test_documented_read_permissions_suffice_for_the_console(redis: RedisServer) -> None:
    from twisted.internet import reactor

    redis.client.xadd(STREAM, {"a": 1})
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xadd(f"{STREAM}:dead", {"a": 1})
    redis.client.xadd("commands:outbound:one", {"command_id": "c1", "payload": "getinfo"})
    respond(redis, "c1", "responded")
    set_heartbeat(redis, "one")
    allowed = [f"+{command}" for command in COMMANDS]
    redis.client.acl_setuser("console", True, passwords=["+secret"], keys=["*"], commands=allowed)
    limited = Connected(RedisAddress.from_url(f"redis://console:secret@127.0.0.1:{redis.port}/0"))
    try:
        await limited.usable()
        connection = limited.connection
        snapshot = await take_snapshot(connection, [STREAM])
        assert (len(snapshot.lags), len(snapshot.dead), snapshot.queued) == (1, 1, 1)
        log = CommandLog(reactor, connection)
        await log.update(snapshot.entries)
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
