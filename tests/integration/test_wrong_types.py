"""A key of a wrong type at each name affects nothing else, for each reader."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry
from pytest_twisted import ensureDeferred

from tests.integration.admin.doctor import examined
from tests.integration.conftest import Connected
from tests.integration.poison import GOOD_INSTANCE, HEALTHY, LAST, OTHER, STREAM, healthy
from tests.integration.test_poisoned_readers import sampler_of, strict
from tests.servers import RedisServer
from tests.waiting import until
from tracker import keys
from tracker.admin.lag import _from_redis
from tracker.janitor.retention import Retention
from tracker.janitor.role import janitor_role
from tracker.log.redis.lagmetrics import LagMetrics
from tracker.observe.findings import Status
from tracker.observe.health import Health

#: Key → the part of the console's overview that it affects, if any.
NAMES: Final = {
    STREAM: "lag",
    keys.dead_letters(STREAM): "dead",
    keys.checkpoint(STREAM): None,
    keys.RESPONSES: "commands",
    keys.dead_letters(keys.RESPONSES): "dead",
    keys.heartbeat("other"): None,
    keys.outbound(GOOD_INSTANCE): "queued",
    keys.WAITING: "waiting",
    keys.DEADLINES: None,
    keys.waiting_commands(OTHER): None,
    keys.command_record("c1"): None,
    keys.CONNECTIONS: "connected",
    keys.CONNECTED_VENDORS: None,
    keys.ALLOWED_DEVICES: None,
    keys.DEVICE_MODELS: None,
    keys.DEVICE_VENDORS: None,
}

#: Type → creates a key of this type.
TYPES: Final[dict[str, Any]] = {
    "string": lambda client, key: client.set(key, "x"),
    "list": lambda client, key: client.rpush(key, "x"),
    "set": lambda client, key: client.sadd(key, "x"),
    "zset": lambda client, key: client.zadd(key, {"x": 1}),
    "hash": lambda client, key: client.hset(key, "a", "b"),
    "stream": lambda client, key: client.xadd(key, {"a": "b"}),
}


@pytest.fixture
def redis(redis: RedisServer) -> RedisServer:
    redis.client.config_set("stream-node-max-entries", 1)
    healthy(redis.client)
    redis.client.xgroup_create(keys.RESPONSES, keys.DIRECTUS_GROUP, "0")
    return redis


def wrong_types(redis: RedisServer, *types: str) -> Iterator[str]:
    """Put a key of each wrong type at each name in turn; yield the name meanwhile."""
    for name in NAMES:
        before, right = redis.client.dump(name), redis.client.type(name).decode()
        for kind in types or TYPES:
            # Nothing stands at some names, whose right types are string, stream and zset.
            if kind == right or (right == "none" and kind in ("string", "stream", "zset")):
                continue
            redis.client.delete(name)
            TYPES[kind](redis.client, name)
            yield name
            redis.client.delete(name)
            if before is not None:
                redis.client.restore(name, 0, before)


def test_each_name_in_redis_is_covered() -> None:
    constants = {
        value
        for name, value in vars(keys).items()
        if name.isupper() and isinstance(value, str) and ":" in value and "{" not in value
    }
    assert {one for one in constants if not one.endswith(":")} <= NAMES.keys()
    functions = {name for name, _ in inspect.getmembers(keys, inspect.isfunction)}
    assert functions == {
        *("telemetry_stream", "dead_letters", "heartbeat", "outbound", "waiting_commands"),
        *("command_record", "checkpoint"),
    }


@ensureDeferred
async def test_console_loses_only_the_part_of_a_wrong_key(
    redis: RedisServer, connected: Connected
) -> None:
    async def overview() -> dict[str, Any]:
        published: list[bytes] = []
        await sampler_of(connected, published).sample()
        found: dict[str, Any] = strict(published[-1].decode().partition("data: ")[2])
        return found

    before = await overview()
    assert before["unknown"] == {}
    for name in wrong_types(redis):
        part, found = NAMES[name], await overview()
        assert found["redis"] is None
        assert set(found["unknown"]) == ({part} if part else set()), name
        if part is not None:
            assert found["unknown"][part].startswith(f"{name} is not a ")
            assert found["unknown"][part].endswith(": rename or delete it")
            assert found["malformed"]["count"] == 1
        lags = {row["stream"]: row["total"] for row in found["lag"] if row["group"] == "processor"}
        assert lags == {stream: 1 for stream in HEALTHY if stream != name}
        assert (found["dead"]["total"] is None) == (part == "dead")
        assert {row["stream"] for row in found["dead"]["latest"]} == {
            stream for stream in HEALTHY if keys.dead_letters(stream) != name
        }
        assert (found["connected"] is None) == (part == "connected")
        assert (found["commands"]["queued"] is None) == (part == "queued")
        assert (found["commands"]["waiting"] is None) == (part == "waiting")
        assert GOOD_INSTANCE in {one["id"] for one in found["instances"]}


@ensureDeferred
async def test_lag_of_other_streams_is_read_beside_a_wrong_key(
    redis: RedisServer, connected: Connected
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    for name in wrong_types(redis):
        found = {one["stream"]: one["lag"] for one in await _from_redis(connected.connection, [])}
        assert found[LAST] == 1
        assert (STREAM in found) == (name != STREAM)
        health = Health()
        metrics = LagMetrics(
            reactor,
            connected.connection,
            HEALTHY,
            health=health,
            metrics_registry=CollectorRegistry(),
        )
        metrics.startService()
        await until(lambda: LAST in health.details["lag"], f"{name}: lag is read")  # noqa: B023
        await metrics.stopService()
        assert (STREAM in health.details["lag"]) == (name != STREAM)


@ensureDeferred
async def test_doctor_makes_all_other_checks_beside_a_wrong_key(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_TELEMETRY_STREAM", raising=False)
    before = {one.check for one in (await examined(redis.url)).findings}
    for name in wrong_types(redis, "string", "hash"):
        report = await examined(redis.url)
        assert {one.check for one in report.findings} == before, name
        assert [one for one in report.findings if "internal error" in one.seen] == []
        skipped = {one.check for one in report.findings if "WRONGTYPE" in one.seen}
        assert skipped <= ({"device-registry"} if name == keys.CONNECTIONS else set()), name
        named = [one.seen for one in report.findings if one.status is not Status.OK]
        if name not in (keys.command_record("c1"), keys.checkpoint(STREAM)):
            assert any(name in seen for seen in named), (name, named)
        (lag,) = [one for one in report.all("lag") if one.seen.startswith(f"{LAST}: ")]
        assert lag.status is Status.OK


@ensureDeferred
async def test_janitor_completes_its_rounds_beside_a_wrong_key(
    redis: RedisServer, connected: Connected
) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed

    for name in wrong_types(redis, "string", "list"):
        metrics_registry = CollectorRegistry()
        role = janitor_role(
            reactor,
            redis.address,
            HEALTHY,
            Retention(age=3600.0, dead_age=86_400.0),
            commands_wait=True,
            interval=0.05,
            health=Health(),
            metrics_registry=metrics_registry,
        )
        redis.client.delete(LAST)
        old = f"{int((time.time() - 5 * 3600) * 1000)}-1"
        redis.client.xadd(LAST, {"a": "b"}, id=old)
        redis.client.xgroup_create(LAST, "processor", old)
        role.startService()
        value = metrics_registry.get_sample_value
        await until(
            lambda: value("tracker_janitor_last_round_timestamp_seconds"),  # noqa: B023
            f"{name}: a round is complete",
        )
        await role.stopService()
        assert value("tracker_living_instances") == 1 + (name == keys.heartbeat("other"))
        assert not redis.client.xrange(LAST, old, old), f"{name}: the other stream is not trimmed"
