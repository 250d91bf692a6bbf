"""Malformed keys in Redis, which the console, the control port and tracker-admin show.

Each test uses the server of :mod:`tests.integration.poison` with one reader.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry
from pytest_twisted import ensureDeferred

from tests.integration.admin.doctor import examined
from tests.integration.conftest import Connected
from tests.integration.control.bench import ControlBench
from tests.integration.poison import (
    DEEP,
    DEVICE,
    GOOD_INSTANCE,
    HEALTHY,
    HUGE,
    LAST,
    LAST_ID,
    STREAM,
    STUCK_DEVICE,
    is_line,
    poison,
    position,
    quiet,
)
from tests.servers import RedisServer
from tests.unit.fakes import FakeSink
from tests.waiting import until
from tracker.admin.lag import _from_redis
from tracker.admin.replay import Replay, _ends, _replay
from tracker.console.commands import CommandLog
from tracker.console.devices import Devices
from tracker.console.ports import ControlPorts
from tracker.console.sampler import Sampler, Thresholds
from tracker.console.snapshot import take_snapshot
from tracker.control.commands import (
    CommandStatus,
    GetDevice,
    Info,
    Lag,
    ListDeviceRegistry,
    NoSuchCommand,
    RedisUnavailable,
)
from tracker.control.pool import Credentials
from tracker.janitor.retention import Retention
from tracker.janitor.role import janitor_role
from tracker.log.redis.dead import read_dead, retry_dead
from tracker.observe.findings import Status
from tracker.observe.health import Health


@pytest.fixture
def redis(redis: RedisServer) -> RedisServer:
    poison(redis)
    return redis


def sampler_of(connected: Connected, published: list[bytes]) -> Sampler:
    """Take samples of this Redis for a console."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    return Sampler(
        reactor,
        take_snapshot=lambda: take_snapshot(connected.connection, HEALTHY),
        commands=CommandLog(reactor, connected.connection),
        ports=ControlPorts(reactor, Credentials()),
        thresholds=Thresholds(),
        publish=published.append,
    )


def strict(data: bytes | str) -> Any:
    """Parse JSON as strictly as a browser."""

    def none(name: str) -> None:
        raise AssertionError(name)

    return json.loads(data, parse_constant=none)


@ensureDeferred
async def test_console_survives_malformed_keys(redis: RedisServer, connected: Connected) -> None:
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
    assert GOOD_INSTANCE in {one["id"] for one in overview["instances"]}
    assert "c1" in {one["command_id"] for one in overview["commands"]["latest"]}
    assert overview["malformed"]["count"] >= 12
    assert all(is_line(one["key"] + one["reason"]) for one in overview["malformed"]["first"])


@ensureDeferred
async def test_console_shows_devices_despite_malformed_keys(
    redis: RedisServer, connected: Connected
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    ports = ControlPorts(reactor, Credentials())
    devices = Devices(reactor, connected.connection, positions=None, ports=ports, namings={})
    page = await devices.page("", "id", "", 50)
    expected = {"device_id": DEVICE, "instance_id": GOOD_INSTANCE, "vendor": "teltonika"}
    assert expected in page["devices"]
    assert len(json.dumps(page)) < 10_000
    one = await devices.one(DEVICE)
    facts = (one["instance_id"], one["vendor"], one["model"])
    assert facts == (GOOD_INSTANCE, "teltonika", "FMB920")


@ensureDeferred
async def test_control_port_survives_malformed_keys(bench: ControlBench) -> None:
    with quiet():
        await bench.ask(Info)
        groups: list[dict[str, Any]] = []
        more = True
        while more:
            page = await bench.ask(Lag, skip=len(groups))
            groups += page["groups"]
            more = page["more"]
        found = {one["stream"]: one for one in groups if one["group"] == "processor"}
        assert all((found[stream]["lag"], found[stream]["entries"]) == (1, 3) for stream in [LAST])
        rows = (await bench.ask(ListDeviceRegistry))["devices"]
        assert {"device_id": DEVICE, "instance_id": GOOD_INSTANCE, "vendor": "teltonika"} in rows
        assert (await bench.ask(GetDevice, device_id=DEVICE))["instance_id"] == GOOD_INSTANCE
        for command_id in ("hash", "huge"):
            error = await bench.refusal(
                CommandStatus, command_id=command_id, device_id=STUCK_DEVICE
            )
            assert isinstance(error, NoSuchCommand), error
        answer = await bench.ask(CommandStatus, command_id="nowhere")
        assert answer["status"] == "responded"


@ensureDeferred
async def test_admin_lag_survives_malformed_keys(redis: RedisServer, connected: Connected) -> None:
    found = await _from_redis(connected.connection, [])
    processed = {one["stream"]: one["lag"] for one in found if one["group"] == "processor"}
    assert processed[LAST] == 1
    assert all(is_line(one["stream"]) and is_line(one["group"] or "") for one in found)


@ensureDeferred
async def test_dead_letters_are_retried_despite_malformed_ones(
    redis: RedisServer, connected: Connected
) -> None:
    for stream in HEALTHY:
        letters = await read_dead(connected.connection, stream)
        retried = await retry_dead(connected.connection, stream, [one.id for one in letters])
        # The dead letter without fields of its entry stays.
        assert (retried.moved, len(retried.failed)) == (len(letters) - 1, 1)
        assert redis.client.xlen(stream) == 3 + retried.moved
    retried = await retry_dead(connected.connection, "telemetry:groups", [LAST_ID])
    assert retried.moved == 1


@ensureDeferred
async def test_replay_survives_malformed_keys(redis: RedisServer, connected: Connected) -> None:
    for number in range(5, 8):
        redis.client.xadd(LAST, {"codec": "8E", "payload": (HUGE, DEEP, "\x1b")[number - 5]})
        redis.client.xadd(LAST, position(number))
    redis.client.xadd(LAST, position(9), id=LAST_ID)
    replayed = Replay(FakeSink(), "teltonika")
    await replayed.sink.open()
    ends = await _ends(connected.connection, LAST, "0", None)
    assert ends is not None
    await _replay(connected.connection, LAST, *ends, replayed=replayed)
    assert (replayed.read, replayed.new, replayed.bad) == (10, 7, 3)
    assert all(map(is_line, replayed.errors))


@ensureDeferred
async def test_doctor_survives_malformed_keys(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_TELEMETRY_STREAM", raising=False)
    report = await examined(redis.url)
    assert [one for one in report.findings if "internal error" in one.seen] == []
    assert [one for one in report.findings if not is_line(one.seen)] == []
    assert len(report.findings) < 1000
    checks = (
        "streams",
        "groups",
        "lag",
        "dead-letters",
        "stream-names",
        "device-registry",
        "instances",
    )
    for check in (*checks, "orphaned-commands", "waiting-commands"):
        assert any(one.status is not Status.SKIPPED for one in report.all(check)), check
    seen = [one for one in report.all("lag") if one.seen.startswith(f"{LAST}: 1 ")]
    assert len(seen) == 1
    assert any("a-deep" in one.seen for one in report.all("instances"))


#: Keys that occur once in Redis.
SINGLE: Final = ("connections:registry", "connections:vendors", "commands:waiting",
                 "commands:responses", "devices:allowed", "devices:models")  # fmt: skip


@ensureDeferred
async def test_key_of_another_type_does_not_stop_readers_of_others(
    redis: RedisServer, connected: Connected, bench: ControlBench
) -> None:
    for key in SINGLE:
        before = redis.client.dump(key)
        redis.client.delete(key)
        redis.client.zadd(key, {"x": math.inf})
        with quiet():
            await check_other_readers(redis, connected, bench, key)
        redis.client.restore(key, 0, before, replace=True)


async def check_other_readers(
    redis: RedisServer, connected: Connected, bench: ControlBench, key: str
) -> None:
    """Check that readers of other keys work, and that the janitor trims."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    published: list[bytes] = []
    await sampler_of(connected, published).sample()
    overview = strict(published[-1].decode().partition("data: ")[2])
    assert overview["redis"] is None
    assert len(overview["lag"]) >= 2
    assert (await bench.ask(Lag))["groups"]
    if key != "connections:registry":
        assert (await bench.ask(GetDevice, device_id=DEVICE))["instance_id"] == GOOD_INSTANCE
    else:
        error = await bench.refusal(GetDevice, device_id=DEVICE)
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
        metrics_registry=CollectorRegistry(),
    )
    role.startService()
    await until(lambda: not redis.client.xrange(f"{LAST}:dead", old[0], old[0]), f"{key}: trimmed")
    await role.stopService()


@ensureDeferred
async def test_flood_of_heartbeats_is_bounded(redis: RedisServer, connected: Connected) -> None:
    # 10,000 heartbeats, each with a control port and a stream.
    from twisted.internet import reactor as installed

    reactor: Any = installed

    clock: Any = reactor
    heartbeats = {
        f"instance:heartbeat:f{number}": json.dumps(
            {"streams": [f"flood:{number}"], "control": f"tcp:127.0.0.1:{number + 1}"}
        )
        for number in range(10_000)
    }
    redis.client.mset(heartbeats)
    health = Health()
    role = janitor_role(
        clock,
        redis.address,
        [STREAM],
        Retention(age=3600.0),
        commands_wait=True,
        interval=0.05,
        health=health,
        metrics_registry=CollectorRegistry(),
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
