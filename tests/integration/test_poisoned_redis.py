"""Malformed keys in Redis: each reader still processes the healthy keys.

Every test has the same server, see :mod:`tests.integration.poison`, and one reader.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry, generate_latest
from pytest_twisted import ensureDeferred
from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.integration.admin.doctor import examined
from tests.integration.bridge.bridges import IMEI, Bridges
from tests.integration.commands.instances import Instances
from tests.integration.commands.ledgers import clock_of
from tests.integration.conftest import Connected
from tests.integration.control.asking import Asking
from tests.integration.poison import (
    DEEP,
    DEVICE,
    GOOD,
    HEALTHY,
    HUGE,
    LAST,
    LAST_ID,
    LONG,
    NO_STREAMS,
    OTHER,
    STREAM,
    STUCK,
    poison,
    position,
)
from tests.servers import RedisServer
from tests.system.commands import fields
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.admin.lag import _from_redis
from tracker.admin.replay import Replay, _ends, _replay
from tracker.console.commands import CommandLog
from tracker.console.devices import Devices
from tracker.console.look import look
from tracker.console.ports import ControlPorts
from tracker.console.sampler import Sampler, Thresholds
from tracker.control.commands import (
    CommandStatus,
    GetDevice,
    Info,
    Lag,
    ListRegistry,
    NoSuchCommand,
    RedisUnavailable,
)
from tracker.control.pool import Credentials
from tracker.ingestion.authority import AllowList
from tracker.ingestion.heartbeat import Heartbeat
from tracker.interfaces import Admission
from tracker.janitor.retention import Retention
from tracker.janitor.role import janitor_role
from tracker.log.redis.dead import read_dead, retry_dead
from tracker.log.redis.lagwatch import LagWatch
from tracker.observe.findings import Status
from tracker.observe.health import Condition, Health
from tracker.processing.consumer import Pace
from tracker.processing.drift import DriftGuard
from tracker.processing.naming import Namer
from tracker.processing.service import process_role

#: Characters of a log line, a reason or a finding.
MAX_LINE: Final = 2500


@pytest.fixture
def redis(redis: RedisServer) -> RedisServer:
    poison(redis)
    return redis


@pytest_twisted.async_yield_fixture
async def bridges(redis: RedisServer) -> AsyncIterator[Bridges]:
    bridges = Bridges(redis)
    yield bridges
    await bridges.end()


@contextmanager
def quiet() -> Iterator[Sequence[LogEvent]]:
    """Check that all lines logged meanwhile are short and printable, and not failures."""
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


def sampler_of(connected: Connected, published: list[bytes]) -> Sampler:
    """Take samples of this Redis for a console."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    return Sampler(
        reactor,
        see=lambda: look(connected.connection, HEALTHY),
        commands=CommandLog(reactor, connected.connection),
        ports=ControlPorts(reactor, Credentials()),
        thresholds=Thresholds(),
        publish=published.append,
    )


def strict(data: bytes | str) -> Any:
    """JSON as a browser reads it."""

    def none(name: str) -> None:
        raise AssertionError(name)

    return json.loads(data, parse_constant=none)


def fates(redis: RedisServer) -> dict[str, str]:
    """Return command → last status, from the well-formed responses."""
    script = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    found = {}
    for _, content in redis.client.eval(script, 1, "commands:responses"):
        about = dict(zip(content[::2], content[1::2], strict=True))
        command_id = about.get(b"command_id", b"")[:100].decode(errors="replace")
        found[command_id] = about.get(b"status", b"")[:100].decode(errors="replace")
    return found


@ensureDeferred
async def test_janitor(redis: RedisServer) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    health, registry = Health(), CollectorRegistry()
    role = janitor_role(
        reactor,
        redis.address,
        [STREAM],
        Retention(age=3600.0, dead_age=86_400.0),
        commands_wait=True,
        interval=0.05,
        health=health,
        registry=registry,
    )

    def rounds() -> float:
        return registry.get_sample_value("tracker_janitor_rounds_total") or 0.0

    with quiet() as captured:
        role.startService()
        await until(lambda: rounds() >= 3, "some rounds have been made")
        await role.stopService()
    for stream in HEALTHY:
        assert redis.client.xlen(stream) == 1, stream
    assert redis.client.hgetall("connections:registry") == {DEVICE.encode(): GOOD.encode()}
    told = fates(redis)
    assert (told["expired"], told["waited"]) == ("expired", "expired")
    assert not redis.client.exists("commands:outbound:last")
    # Each malformed key is named once, and the same in each round.
    keys = [event["key"] for event in captured if "key" in event]
    assert len(keys) == len(set(keys))
    assert {
        *("instance:heartbeat:a-deep", "instance:heartbeat:a-hash", "instance:heartbeat:a-names"),
        *(r"instance:heartbeat:\xff\n", "commands:waiting:" + STUCK),
    } & set(keys)
    reason = health.reasons["retention"]
    assert is_line(reason)
    assert registry.get_sample_value("tracker_janitor_last_round_timestamp_seconds")


@ensureDeferred
async def test_lag_watch(redis: RedisServer, connected: Connected) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    health, registry = Health(), CollectorRegistry()
    streams = [*HEALTHY, *NO_STREAMS, "telemetry:groups"]
    watch = LagWatch(reactor, connected.connection, streams, health=health, registry=registry)
    with quiet():
        watch.startService()
        await until(lambda: health.details["lag"], "looked")
        await watch.stopService()
    found = health.details["lag"]
    assert {"telemetry:groups", *HEALTHY} == set(found)
    assert found[STREAM]["groups"]["processor"]["lag"] == 1
    groups = found["telemetry:groups"]["groups"]
    assert "processor" in groups
    assert len(groups) <= 50
    text = generate_latest(registry).decode()
    assert max(map(len, text.splitlines())) < MAX_LINE
    assert text.count("tracker_group_consumer_idle_seconds{") <= 60


@ensureDeferred
async def test_drift_guard(redis: RedisServer, connected: Connected) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    reports: list[str | None] = []
    registry = CollectorRegistry()
    guard = DriftGuard(
        reactor, connected.connection, [STREAM], Condition(reports.append), registry=registry
    )
    redis.client.xreadgroup("processor", "alive", {LAST: ">"})
    with quiet():
        guard.startService()
        await until(lambda: len(reports) > 1, "looked")
        await guard.stopService()
    assert reports[-1] is not None
    assert is_line(reports[-1])
    assert "cannot" not in reports[-1]
    unread = registry.get_sample_value("tracker_unread_streams")
    assert unread is not None
    # One that no group reads, two that are no streams, and 100 of one heartbeat's 1,000.
    assert unread == 103


@ensureDeferred
async def test_console(redis: RedisServer, connected: Connected) -> None:
    published: list[bytes] = []
    sampler = sampler_of(connected, published)
    with quiet():
        for _ in range(2):
            await sampler.sample()
    overview = strict(published[-1].decode().partition("data: ")[2])
    assert overview["redis"] is None
    assert len(published[-1]) < 200_000
    lags = {lag["stream"]: lag for lag in overview["lag"] if lag["group"] == "processor"}
    assert all(lags[stream]["total"] == 1 for stream in HEALTHY)
    assert overview["dead"]["total"] >= 2 * 4
    assert all(is_line(letter["reason"]) for letter in overview["dead"]["latest"])
    assert GOOD in {one["id"] for one in overview["instances"]}
    assert "c1" in {one["command_id"] for one in overview["commands"]["latest"]}
    assert overview["malformed"]["count"] >= 12
    assert all(is_line(one["key"] + one["why"]) for one in overview["malformed"]["first"])


@ensureDeferred
async def test_console_shows_devices(redis: RedisServer, connected: Connected) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    ports = ControlPorts(reactor, Credentials())
    devices = Devices(reactor, connected.connection, positions=None, ports=ports, namings={})
    page = await devices.page("", "id", "", 50)
    assert {"device_id": DEVICE, "instance_id": GOOD} in page["devices"]
    assert len(json.dumps(page)) < 10_000
    one = await devices.one(DEVICE)
    assert (one["instance_id"], one["vendor"], one["model"]) == (GOOD, "teltonika", "FMB920")


@ensureDeferred
async def test_control_port(asking: Asking) -> None:
    with quiet():
        await asking.ask(Info)
        groups: list[dict[str, Any]] = []
        more = True
        while more:
            page = await asking.ask(Lag, skip=len(groups))
            groups += page["groups"]
            more = page["more"]
        found = {one["stream"]: one for one in groups if one["group"] == "processor"}
        assert all((found[stream]["lag"], found[stream]["entries"]) == (1, 3) for stream in [LAST])
        rows = (await asking.ask(ListRegistry))["devices"]
        assert {"device_id": DEVICE, "instance_id": GOOD, "vendor": "teltonika"} in rows
        assert (await asking.ask(GetDevice, device_id=DEVICE))["instance_id"] == GOOD
        for command_id in ("hash", "huge"):
            error = await asking.refusal(CommandStatus, command_id=command_id, device_id=STUCK)
            assert isinstance(error, NoSuchCommand), error
        answer = await asking.ask(CommandStatus, command_id="nowhere")
        assert answer["status"] == "responded"


@ensureDeferred
async def test_admin_lag(redis: RedisServer, connected: Connected) -> None:
    found = await _from_redis(connected.connection, [])
    processed = {one["stream"]: one["lag"] for one in found if one["group"] == "processor"}
    assert processed[LAST] == 1
    assert all(is_line(one["stream"]) and is_line(one["group"] or "") for one in found)


@ensureDeferred
async def test_dead_letters_are_retried(redis: RedisServer, connected: Connected) -> None:
    for stream in HEALTHY:
        letters = await read_dead(connected.connection, stream)
        retried = await retry_dead(connected.connection, stream, [one.id for one in letters])
        # The one with nothing but an account of itself stays.
        assert (retried.moved, len(retried.stuck)) == (len(letters) - 1, 1)
        assert redis.client.xlen(stream) == 3 + retried.moved
    retried = await retry_dead(connected.connection, "telemetry:groups", [LAST_ID])
    assert retried.moved == 1


@ensureDeferred
async def test_replay(redis: RedisServer, connected: Connected) -> None:
    for number in range(5, 8):
        redis.client.xadd(LAST, {"codec": "8E", "payload": (HUGE, DEEP, "\x1b")[number - 5]})
        redis.client.xadd(LAST, position(number))
    redis.client.xadd(LAST, position(9), id=LAST_ID)
    outcome = Replay(FakeSink(), "teltonika")
    await outcome.sink.open()
    ends = await _ends(connected.connection, LAST, "0", None)
    assert ends is not None
    await _replay(connected.connection, LAST, *ends, outcome=outcome)
    assert (outcome.read, outcome.new, outcome.bad) == (10, 7, 3)
    assert all(map(is_line, outcome.complaints))


@ensureDeferred
async def test_doctor(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_TELEMETRY_STREAM", raising=False)
    report = await examined(redis.url)
    assert [one for one in report.findings if "the check broke" in one.seen] == []
    assert [one for one in report.findings if not is_line(one.seen)] == []
    assert len(report.findings) < 1000
    checks = ("streams", "groups", "lag", "dead-letters", "stream-names", "registry", "instances")
    for check in (*checks, "orphaned-commands", "waiting-commands"):
        assert any(one.status is not Status.SKIPPED for one in report.all(check)), check
    seen = [one for one in report.all("lag") if one.seen.startswith(f"{LAST}: 1 ")]
    assert len(seen) == 1
    assert any("a-deep" in one.seen for one in report.all("instances"))


@ensureDeferred
async def test_processor(redis: RedisServer, tmp_path: Path) -> None:
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
        pace=Pace(),
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
    dead = await_reasons(redis)
    assert len(dead) == 10
    assert all(map(is_line, dead))


def await_reasons(redis: RedisServer) -> list[str]:
    """Return the reasons of the dead letters of this processor."""
    script = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    entries = redis.client.eval(script, 1, f"{STREAM}:dead")
    return [
        content[5].decode()
        for _, content in entries
        if content[:1] == [b"_id"] and content[2:3] == [b"_stream"]
    ]


@ensureDeferred
async def test_command_delivery(redis: RedisServer, instances: Instances) -> None:
    stream = "commands:outbound:one"
    wide = [text for number in range(9000) for text in (f"n{number}", "v")]
    redis.client.execute_command("XADD", stream, "*", *wide)
    redis.client.xadd(stream, {"command_id": "\x1b[31m", "payload": HUGE, "expires_at": HUGE})
    redis.client.xadd(stream, fields("stuck", STUCK))
    redis.client.hset("commands:sent:doubtful", "a", "b")
    for command_id, entry_id in (("doubtful", "*"), ("good", "*"), ("last", LAST_ID)):
        redis.client.xadd(stream, fields(command_id, DEVICE, command_id), id=entry_id)
    with quiet():
        one = await instances.start()
        device = one.login()
        for text in ("good", "last"):
            await one.until(lambda: text in device.written, f"{text} is written")  # noqa: B023
            device.say("fine")
            await one.until(lambda: fates(redis).get(text) == "responded", f"{text}: answered")  # noqa: B023
    assert fates(redis)["good"] == "responded"
    assert all(is_line(reason or "") for reason in one.reports)


@ensureDeferred
async def test_bridge_reports_responses(redis: RedisServer, bridges: Bridges) -> None:
    first, last = bridges.rows(2)
    bridges.say(first, "responded")
    redis.client.xadd("commands:responses", {"status": HUGE, "command_id": last})
    answer = {"command_id": last, "device_id": IMEI, "status": "responded", "at": LONG}
    redis.client.xadd("commands:responses", answer, id=LAST_ID)
    with quiet():
        await bridges.writer()
        await until(lambda: bridges.statuses() == {"responded"}, "told")
        await bridges.all_told()


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
async def test_allow_list(redis: RedisServer, connected: Connected) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    reports: list[str | None] = []
    allowed = AllowList(
        *(reactor, connected.connection, Admission.REFUSED, Condition(reports.append), lambda: None)
    )
    with quiet():
        allowed.startService()
        await until(lambda: reports, "read")
        await allowed.stopService()
    assert reports == [None]
    assert allowed.admission(DEVICE) is Admission.SERVED
    assert allowed.admission(OTHER) is Admission.REFUSED


@ensureDeferred
async def test_models(redis: RedisServer, connected: Connected) -> None:
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
async def test_heartbeat_of_an_instance(redis: RedisServer, connected: Connected) -> None:
    aborted: list[str] = []
    begun: list[str] = []
    ids = ("a-deep", "a-number", "a-hash", "a-list", "a-null", "a-empty")
    heartbeats = [
        Heartbeat(
            *(clock_of(redis), connected.connection, one, {}, lambda one=one: begun.append(one)),
            aborted.append,
        )
        for one in ids
    ]
    with quiet():
        for heartbeat in heartbeats:
            heartbeat.startService()
        await until(lambda: set(begun) == set(ids), "begun")
        for heartbeat in heartbeats:
            await heartbeat.stopService()
    assert aborted == []


#: The keys of which there is one, and what does not depend on it.
SINGLE: Final = ("connections:registry", "connections:vendors", "commands:waiting",
                 "commands:responses", "devices:allowed", "devices:models")  # fmt: skip


@ensureDeferred
async def test_a_single_key_of_another_type_stops_no_reader_of_others(
    redis: RedisServer, connected: Connected, asking: Asking
) -> None:
    for key in SINGLE:
        before = redis.client.dump(key)
        redis.client.delete(key)
        redis.client.zadd(key, {"x": math.inf})
        with quiet():
            await see_the_others(redis, connected, asking, key)
        redis.client.restore(key, 0, before, replace=True)


async def see_the_others(
    redis: RedisServer, connected: Connected, asking: Asking, key: str
) -> None:
    """Look at what does not depend on a key, and trim what is old."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    published: list[bytes] = []
    await sampler_of(connected, published).sample()
    overview = strict(published[-1].decode().partition("data: ")[2])
    assert overview["redis"] is None
    assert len(overview["lag"]) >= 2
    assert (await asking.ask(Lag))["groups"]
    if key != "connections:registry":
        assert (await asking.ask(GetDevice, device_id=DEVICE))["instance_id"] == GOOD
    else:
        error = await asking.refusal(GetDevice, device_id=DEVICE)
        assert isinstance(error, RedisUnavailable)
    redis.client.xadd(f"{LAST}:dead", {"a": "b"})
    (old,) = redis.client.xrange(f"{LAST}:dead", "-", "+", 1)
    role = janitor_role(
        reactor,
        redis.address,
        [STREAM],
        Retention(dead_age=0.0),
        commands_wait=True,
        interval=0.05,
        health=Health(),
        registry=CollectorRegistry(),
    )
    role.startService()
    await until(lambda: not redis.client.xrange(f"{LAST}:dead", old[0], old[0]), f"{key}: trimmed")
    await role.stopService()


@ensureDeferred
async def test_a_flood_of_heartbeats(redis: RedisServer, connected: Connected) -> None:
    """10,000 heartbeats, each with a control port and a stream."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    clock: Any = reactor
    beats = {
        f"instance:heartbeat:f{number}": json.dumps(
            {"streams": [f"flood:{number}"], "control": f"tcp:127.0.0.1:{number + 1}"}
        )
        for number in range(10_000)
    }
    redis.client.mset(beats)
    health = Health()
    role = janitor_role(
        clock,
        redis.address,
        [STREAM],
        Retention(age=3600.0),
        commands_wait=True,
        interval=0.05,
        health=health,
        registry=CollectorRegistry(),
    )
    published: list[bytes] = []
    sampler = sampler_of(connected, published)
    with quiet():
        role.startService()
        await until(lambda: redis.client.xlen(LAST) == 1, "the last stream is trimmed")
        await role.stopService()
        await sampler.sample()
    assert strict(published[-1].decode().partition("data: ")[2])["redis"] is None
    assert len(published[-1]) < 200_000
