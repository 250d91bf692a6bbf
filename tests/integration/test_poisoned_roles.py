"""Malformed keys in Redis: each reader still processes the healthy keys.

Each test uses the server of :mod:`tests.integration.poison` with one reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pytest_twisted import ensureDeferred

from tests.integration.bridge.bridges import IMEI, Bridges
from tests.integration.commands.instances import Instances
from tests.integration.commands.ledgers import clock_of
from tests.integration.conftest import Connected
from tests.integration.poison import (
    DEEP,
    DEVICE,
    GOOD_INSTANCE,
    HEALTHY,
    HUGE,
    LAST,
    LAST_ID,
    LONG,
    MAX_LINE,
    NO_STREAMS,
    OTHER,
    STREAM,
    STUCK_DEVICE,
    is_line,
    poison,
    position,
    quiet,
)
from tests.servers import RedisServer
from tests.system.commands import fields
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.ingestion.authority import AllowList
from tracker.ingestion.heartbeat import Heartbeat
from tracker.interfaces import Admission
from tracker.janitor.retention import Retention
from tracker.janitor.role import janitor_role
from tracker.log.redis.lagmetrics import LagMetrics
from tracker.observe.health import Condition, Health
from tracker.processing.consumer import BatchOptions
from tracker.processing.naming import Namer
from tracker.processing.service import process_role
from tracker.processing.unread import UnreadStreams


@pytest.fixture
def redis(redis: RedisServer) -> RedisServer:
    poison(redis)
    return redis


def statuses(redis: RedisServer) -> dict[str, str]:
    """Return command → last status, from the well-formed responses."""
    script = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    found = {}
    for _, content in redis.client.eval(script, 1, "commands:responses"):
        about = dict(zip(content[::2], content[1::2], strict=True))
        command_id = about.get(b"command_id", b"")[:100].decode(errors="replace")
        found[command_id] = about.get(b"status", b"")[:100].decode(errors="replace")
    return found


@ensureDeferred
async def test_janitor_survives_malformed_keys(redis: RedisServer) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    health, metrics_registry = Health(), CollectorRegistry()
    role = janitor_role(
        reactor,
        redis.address,
        [STREAM],
        Retention(age=3600.0, dead_age=86_400.0),
        commands_wait=True,
        interval=0.05,
        health=health,
        metrics_registry=metrics_registry,
    )

    def rounds() -> float:
        return metrics_registry.get_sample_value("tracker_janitor_rounds_total") or 0.0

    with quiet() as captured:
        role.startService()
        await until(lambda: rounds() >= 3, "three rounds are done")
        await role.stopService()
    for stream in HEALTHY:
        assert redis.client.xlen(stream) == 1, stream
    assert redis.client.hgetall("connections:registry") == {DEVICE.encode(): GOOD_INSTANCE.encode()}
    found = statuses(redis)
    assert (found["expired"], found["waited"]) == ("expired", "expired")
    assert not redis.client.exists("commands:outbound:last")
    # Each malformed key is logged once, not in each round.
    keys = [event["key"] for event in captured if "key" in event]
    assert len(keys) == len(set(keys))
    assert {
        *("instance:heartbeat:a-deep", "instance:heartbeat:a-hash", "instance:heartbeat:a-names"),
        *(r"instance:heartbeat:\xff\n", "commands:waiting:" + STUCK_DEVICE),
    } & set(keys)
    reason = health.reasons["retention"]
    assert is_line(reason)
    assert metrics_registry.get_sample_value("tracker_janitor_last_round_timestamp_seconds")


@ensureDeferred
async def test_lag_metrics_survive_malformed_keys(redis: RedisServer, connected: Connected) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    health, metrics_registry = Health(), CollectorRegistry()
    streams = [*HEALTHY, *NO_STREAMS, "telemetry:groups"]
    watch = LagMetrics(
        reactor, connected.connection, streams, health=health, metrics_registry=metrics_registry
    )
    with quiet():
        watch.startService()
        await until(lambda: health.details["lag"], "first reading")
        await watch.stopService()
    found = health.details["lag"]
    assert {"telemetry:groups", *HEALTHY} == set(found)
    assert found[STREAM]["groups"]["processor"]["lag"] == 1
    groups = found["telemetry:groups"]["groups"]
    assert "processor" in groups
    assert len(groups) <= 50
    text = generate_latest(metrics_registry).decode()
    assert max(map(len, text.splitlines())) < MAX_LINE
    assert text.count("tracker_group_consumer_idle_seconds{") <= 60


@ensureDeferred
async def test_unread_streams_survive_malformed_keys(
    redis: RedisServer, connected: Connected
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    reports: list[str | None] = []
    metrics_registry = CollectorRegistry()
    guard = UnreadStreams(
        reactor,
        connected.connection,
        [STREAM],
        Condition(reports.append),
        metrics_registry=metrics_registry,
    )
    redis.client.xreadgroup("processor", "alive", {LAST: ">"})
    with quiet():
        guard.startService()
        await until(lambda: len(reports) > 1, "first reading")
        await guard.stopService()
    assert reports[-1] is not None
    assert is_line(reports[-1])
    assert "cannot" not in reports[-1]
    unread = metrics_registry.get_sample_value("tracker_unread_streams")
    assert unread is not None
    # One stream without a group, two keys of another type, and 100 of one heartbeat's 1,000.
    assert unread == 103


@ensureDeferred
async def test_processor_survives_malformed_keys(redis: RedisServer, tmp_path: Path) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    wide = [text for number in range(9000) for text in (f"n{number}", "v")]
    good = position(20)
    number = good["payload"].replace("110", HUGE)
    for content in (
        {"codec": "8", "payload": HUGE},
        {"codec": "8", "payload": f"{HUGE}.5"},
        {"codec": "8", "payload": DEEP},
        {"codec": "8", "payload": number},
        {"codec": "8", "payload": good["payload"].replace("{}", '{"a":' * 500 + "1" + "}" * 500)},
        {"codec": LONG, "payload": good["payload"]},
        {"codec": "\x1b[31m", "payload": good["payload"]},
        {"codec": b"\xff" * 1000, "payload": good["payload"]},
        {b"\xff": b"\xff" * 100_000},
        {"codec": "8", "payload": good["payload"].replace(DEVICE, "\\ud800")},
    ):
        redis.client.xadd(STREAM, content)
    flat = [part for pair in good.items() for part in pair]
    redis.client.execute_command("XADD", STREAM, "*", *wide, *flat)
    redis.client.xadd(STREAM, position(21), id=LAST_ID)
    health, sink = Health(), FakeSink()
    role = process_role(
        reactor=reactor,
        address=redis.address,
        vendors={STREAM: "teltonika"},
        consumer="one",
        sink=sink,
        health=health,
        abort=lambda reason: None,
        options=BatchOptions(),
    )

    def is_done() -> bool:
        (group,) = redis.client.xinfo_groups(STREAM)
        last: bytes = group["last-delivered-id"]
        return last.decode() == LAST_ID and not group["pending"]

    with quiet():
        role.startService()
        await until(is_done, "all is processed")
        await role.stopService()
    stored = {one.position.timestamp[17:19] for batch in sink.batches for one in batch.positions}
    assert stored == {"03", "20", "21"}
    dead = dead_letter_reasons(redis)
    assert len(dead) == 10
    assert all(map(is_line, dead))


def dead_letter_reasons(redis: RedisServer) -> list[str]:
    """Return the reasons of the dead letters of this processor."""
    script = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    entries = redis.client.eval(script, 1, f"{STREAM}:dead")
    return [
        content[5].decode()
        for _, content in entries
        if content[:1] == [b"_id"] and content[2:3] == [b"_stream"]
    ]


@ensureDeferred
async def test_command_delivery_survives_malformed_keys(
    redis: RedisServer, instances: Instances
) -> None:
    stream = "commands:outbound:one"
    wide = [text for number in range(9000) for text in (f"n{number}", "v")]
    redis.client.execute_command("XADD", stream, "*", *wide)
    redis.client.xadd(stream, {"command_id": "\x1b[31m", "payload": HUGE, "expires_at": HUGE})
    redis.client.xadd(stream, fields("stuck", STUCK_DEVICE))
    redis.client.hset("commands:sent:doubtful", "a", "b")
    for command_id, entry_id in (("doubtful", "*"), ("good", "*"), ("last", LAST_ID)):
        redis.client.xadd(stream, fields(command_id, DEVICE, command_id), id=entry_id)
    with quiet():
        one = await instances.start()
        device = one.login()
        for text in ("good", "last"):
            await one.until(lambda: text in device.written, f"{text} is written")  # noqa: B023
            device.answer("fine")
            await one.until(lambda: statuses(redis).get(text) == "responded", f"{text}: answered")  # noqa: B023
    assert statuses(redis)["good"] == "responded"
    assert all(is_line(reason or "") for reason in one.reports)


@ensureDeferred
async def test_bridge_reports_responses_despite_malformed_ones(
    redis: RedisServer, bridges: Bridges
) -> None:
    first, last = bridges.rows(2)
    bridges.respond(first, "responded")
    redis.client.xadd("commands:responses", {"status": HUGE, "command_id": last})
    answer = {"command_id": last, "device_id": IMEI, "status": "responded", "at": LONG}
    redis.client.xadd("commands:responses", answer, id=LAST_ID)
    with quiet():
        await bridges.writer()
        await until(lambda: bridges.statuses() == {"responded"}, "reported")
        await bridges.all_written()


@ensureDeferred
async def test_bridge_replaces_lists_of_another_type(redis: RedisServer, bridges: Bridges) -> None:
    for key in ("devices:allowed", "devices:models"):
        redis.client.delete(key)
        redis.client.set(key, "x")
    blank = dict.fromkeys(bridges.double.tables["devices"].columns)
    bridges.double.rows("devices")["1"] = {
        **blank,
        "imei": IMEI,
        "enabled": True,
        "model": "FMB920",
    }
    with quiet():
        await bridges.devices()
        await until(lambda: redis.client.type("devices:allowed") == b"set", "written")
    assert set(redis.client.smembers("devices:allowed")) == {IMEI.encode()}
    assert redis.client.hgetall("devices:models") == {IMEI.encode(): b"FMB920"}


@ensureDeferred
async def test_allow_list_survives_malformed_keys(redis: RedisServer, connected: Connected) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    reports: list[str | None] = []
    allowed = AllowList(
        reactor,
        connected.connection,
        Admission.REFUSED,
        Condition(reports.append),
        vendors=["teltonika"],
        changed=lambda: None,
    )
    with quiet():
        allowed.startService()
        await until(lambda: reports, "read")
        await allowed.stopService()
    assert reports == [None]
    assert allowed.admission(DEVICE, "teltonika") is Admission.SERVED
    assert allowed.admission(OTHER, "teltonika") is Admission.REFUSED


@ensureDeferred
async def test_models_survive_malformed_keys(redis: RedisServer, connected: Connected) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    namer = Namer(reactor, connected.connection, {})
    with quiet():
        namer.startService()
        await until(lambda: namer._models, "read")
        await namer.stopService()
    assert namer._models[DEVICE] == "FMB920"
    assert max(map(len, (*namer._models, *namer._models.values()))) <= 200


@ensureDeferred
async def test_heartbeat_of_an_instance_survives_malformed_keys(
    redis: RedisServer, connected: Connected
) -> None:
    aborted: list[str] = []
    owned: list[str] = []
    ids = ("a-deep", "a-number", "a-hash", "a-list", "a-null", "a-empty")
    heartbeats = [
        Heartbeat(
            clock_of(redis),
            connected.connection,
            one,
            {},
            on_owned=lambda one=one: owned.append(one),  # type: ignore[misc]
            abort=aborted.append,
        )
        for one in ids
    ]
    with quiet():
        for heartbeat in heartbeats:
            heartbeat.startService()
        await until(lambda: set(owned) == set(ids), "owned")
        for heartbeat in heartbeats:
            await heartbeat.stopService()
    assert aborted == []
