"""The janitor on a real server: trimming, alarms, metrics and cleanup."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import pytest_twisted
from prometheus_client import CollectorRegistry
from pytest_twisted import ensureDeferred
from twisted.logger import capturedLogs, formatEvent

from tests.integration.conftest import Connected
from tests.integration.poison import position
from tests.servers import REDIS_70, VALKEY, RedisServer
from tests.system.commands import fields, statuses
from tests.waiting import until
from tracker.janitor.retention import Retention
from tracker.janitor.role import janitor_role
from tracker.keys import checkpoint
from tracker.log.redis.checkpoint import create_checkpoint, record_finished
from tracker.observe.health import Health
from tracker.runtime.lifecycle import Role

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

STREAM = "telemetry:teltonika"
RESPONSES = "commands:responses"
HOUR = 3600.0
DAY = 24 * HOUR


class Janitor:
    """A janitor role on a real server."""

    def __init__(self, redis: RedisServer, retention: Retention) -> None:
        from twisted.internet import reactor as installed

        reactor: Any = installed

        self.health = Health()
        self.metrics_registry = CollectorRegistry()
        self.role: Role = janitor_role(
            reactor,
            redis.address,
            [STREAM],
            retention,
            commands_wait=True,
            interval=0.05,
            health=self.health,
            metrics_registry=self.metrics_registry,
        )
        self.role.startService()

    async def round(self) -> None:
        """Wait until a complete round has been made."""
        seen: set[float | None] = set()

        def has_passed() -> bool:
            seen.add(self.last_round())
            return len(seen) == 3

        await until(has_passed, "a round has ended")

    def last_round(self) -> float | None:
        return self.metrics_registry.get_sample_value(
            "tracker_janitor_last_round_timestamp_seconds"
        )

    def value(self, name: str, stream: str = STREAM) -> float | None:
        return self.metrics_registry.get_sample_value(name, {"stream": stream})

    def number(self, name: str, **labels: str) -> float | None:
        return self.metrics_registry.get_sample_value(name, labels)


Start = Callable[[Retention], Janitor]


@pytest_twisted.async_yield_fixture
async def janitor(redis: RedisServer) -> AsyncIterator[Start]:
    """Yield a function that starts a janitor, on a server that removes single entries."""
    redis.client.config_set("stream-node-max-entries", 1)
    started: list[Janitor] = []

    def start(retention: Retention) -> Janitor:
        started.append(Janitor(redis, retention))
        return started[-1]

    yield start
    for one in started:
        await one.role.stopService()


def append(redis: RedisServer, *ages: float, stream: str = STREAM) -> list[str]:
    ids = [f"{int((time.time() - age) * 1000)}-{number}" for number, age in enumerate(ages)]
    for entry_id in ids:
        redis.client.xadd(stream, {"payload": "x" * 100}, id=entry_id)
    return ids


def ids(redis: RedisServer, stream: str = STREAM) -> list[str]:
    return [entry_id.decode() for entry_id, _ in redis.client.xrange(stream)]


def finish(redis: RedisServer, stream: str = STREAM, group: str = "processor") -> None:
    for entry_id, _ in redis.client.xreadgroup(group, "one", {stream: ">"})[0][1]:
        redis.client.xack(stream, group, entry_id)


@ensureDeferred
async def test_streams_are_trimmed_and_counted(redis: RedisServer, janitor: Start) -> None:
    appended = append(redis, 3 * HOUR, 2 * HOUR, 60)
    redis.client.xgroup_create(STREAM, "processor", "0")
    finish(redis)
    running = janitor(Retention(age=HOUR))
    await running.round()
    assert ids(redis) == appended[2:]
    assert running.health.ready
    assert running.value("tracker_stream_trimmed_entries_total") == 2
    assert running.value("tracker_stream_retention_exceeded") == 0
    assert (running.value("tracker_stream_bytes") or 0) > 100


@ensureDeferred
async def test_missing_streams_are_not_created(redis: RedisServer, janitor: Start) -> None:
    running = janitor(Retention(HOUR, 1 << 20, HOUR))
    await running.round()
    assert running.health.ready
    assert redis.client.keys() == []


@ensureDeferred
async def test_unread_entries_are_kept_and_reported(redis: RedisServer, janitor: Start) -> None:
    appended = append(redis, 3 * HOUR, 2 * HOUR, 60)
    redis.client.xgroup_create(STREAM, "processor", appended[0])
    with capturedLogs() as captured:
        running = janitor(Retention(age=HOUR))
        await until(lambda: "retention" in running.health.reasons, "the condition exists")
        await until(lambda: running.health.reasons != {"retention": "starting"}, "reported")
        for _ in range(3):
            await running.round()
    assert ids(redis) == appended[1:]
    assert running.health.reasons == {
        "retention": f"{STREAM} exceeds --retain: group processor has not processed all of it"
    }
    assert running.value("tracker_stream_retention_exceeded") == 1
    logged = cast("list[Any]", captured)
    lines = [
        formatEvent(one)
        for one in logged
        if one["log_namespace"] == "tracker.janitor.retention.StreamTrimmer"
    ]
    (alarm,) = [line for line in lines if line is not None and "exceeds --retain" in line]
    assert "entries: 2," in alarm
    finish(redis)
    await until(lambda: running.health.ready, "ready again")
    assert ids(redis) == appended[2:]
    assert running.value("tracker_stream_retention_exceeded") == 0


@ensureDeferred
async def test_deleted_stream_has_no_metrics_of_the_janitor(
    redis: RedisServer, janitor: Start
) -> None:
    append(redis, 3 * HOUR, 2 * HOUR)
    running = janitor(Retention(age=HOUR))
    exceeded = "tracker_stream_retention_exceeded"
    await until(lambda: running.value(exceeded) == 1, "reported")
    redis.client.delete(STREAM)
    await until(lambda: running.value(exceeded) is None, "removed")
    assert running.value("tracker_stream_bytes") is None


@ensureDeferred
async def test_stream_without_a_group_is_kept_and_reported(
    redis: RedisServer, janitor: Start
) -> None:
    appended = append(redis, 3 * HOUR)
    running = janitor(Retention(age=HOUR))
    await until(lambda: "no group reads it" in str(running.health.reasons), "reported")
    assert ids(redis) == appended


@ensureDeferred
async def test_stranded_streams_are_measured_and_not_trimmed(
    redis: RedisServer, janitor: Start
) -> None:
    for stream in (STREAM, "telemtry"):
        redis.client.xadd(stream, position(1), id="1-1")
    running = janitor(Retention(age=HOUR))
    await running.round()
    await until(lambda: running.number("tracker_stranded_streams") == 1, "it has searched")
    assert running.value("tracker_stranded_entries", "telemtry") == 1
    assert redis.client.xlen("telemtry") == 1


@ensureDeferred
async def test_advertised_streams_are_trimmed(redis: RedisServer, janitor: Start) -> None:
    other = "telemetry:other"
    redis.client.set("instance:heartbeat:eu-1", json.dumps({"streams": [other, "not:a:stream", 7]}))
    redis.client.set("instance:heartbeat:eu-2", "not JSON")
    redis.client.set("not:a:stream", "text")
    appended = append(redis, 3 * HOUR, 60, stream=other)
    redis.client.xgroup_create(other, "processor", "0")
    finish(redis, other)
    running = janitor(Retention(age=HOUR))
    await until(lambda: ids(redis, other) == appended[1:], "trimmed")
    # A key of another type is reported, and does not affect the others.
    await until(lambda: "not:a:stream: " in str(running.health.reasons), "reported")
    assert "WRONGTYPE" in str(running.health.reasons)


@ensureDeferred
@pytest.mark.parametrize("dead_age", [None, 30 * HOUR])
async def test_dead_letters_are_trimmed_only_with_retain_dead(
    redis: RedisServer, janitor: Start, dead_age: float | None
) -> None:
    dead = f"{STREAM}:dead"
    appended = append(redis, 40 * HOUR, 20 * HOUR, stream=dead)
    running = janitor(Retention(HOUR, 1 << 20, dead_age))
    await running.round()
    assert ids(redis, dead) == (appended if dead_age is None else appended[1:])
    assert running.health.ready


@ensureDeferred
async def test_idle_consumers_are_removed(
    redis: RedisServer, janitor: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(redis, 60)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xgroup_createconsumer(STREAM, "processor", "gone")
    redis.client.xreadgroup("processor", "busy", {STREAM: ">"})
    running = janitor(Retention())
    await running.round()
    assert len(redis.client.xinfo_consumers(STREAM, "processor")) == 2
    monkeypatch.setattr("tracker.janitor.retention.CONSUMER_IDLE_TIMEOUT", 0.01)
    await until(lambda: len(redis.client.xinfo_consumers(STREAM, "processor")) == 1, "removed")
    assert redis.client.xpending(STREAM, "processor")["pending"] == 1


@ensureDeferred
@pytest.mark.parametrize("heartbeat", ['{"streams": null}', "a hash"])
async def test_malformed_heartbeat_does_not_prevent_trimming(
    redis: RedisServer, janitor: Start, heartbeat: str
) -> None:
    if heartbeat == "a hash":
        redis.client.hset("instance:heartbeat:eu-1", "a", "b")
    else:
        redis.client.set("instance:heartbeat:eu-1", heartbeat)
    appended = append(redis, 3 * HOUR, 60)
    redis.client.xgroup_create(STREAM, "processor", "0")
    finish(redis)
    running = janitor(Retention(age=HOUR))
    await running.round()
    assert ids(redis) == appended[1:]
    assert running.health.ready


# The responses to commands.


@ensureDeferred
@pytest.mark.parametrize("retention", [Retention(age=HOUR), Retention(bytes=1)], ids=str)
async def test_only_responses_that_the_group_has_read_are_trimmed(
    redis: RedisServer, janitor: Start, retention: Retention
) -> None:
    appended = append(redis, 30 * DAY, 3 * HOUR, 2 * HOUR, stream=RESPONSES)
    redis.client.xgroup_create(RESPONSES, "directus", "0")
    running = janitor(retention)
    await running.round()
    assert ids(redis, RESPONSES) == appended  # unread entries of any age are kept
    redis.client.xreadgroup("directus", "one", {RESPONSES: ">"}, count=2)
    redis.client.xack(RESPONSES, "directus", appended[0])
    await until(lambda: ids(redis, RESPONSES) == appended[1:], "trimmed")
    await running.round()
    assert ids(redis, RESPONSES) == appended[1:]  # the second is pending, the third unread
    redis.client.xack(RESPONSES, "directus", appended[1])
    await until(lambda: ids(redis, RESPONSES) == appended[2:], "trimmed")
    total = "tracker_stream_trimmed_entries_total"
    await until(lambda: running.value(total, RESPONSES) == 2, "counted")


@ensureDeferred
@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (Retention(), 2),
        (Retention(age=HOUR), 2),
        (Retention(bytes=1), 2),
        (Retention(age=60 * DAY), 3),
    ],
    ids=str,
)
async def test_responses_without_a_group_are_kept_for_a_week(
    redis: RedisServer, janitor: Start, retention: Retention, left: int
) -> None:
    appended = append(redis, 8 * DAY, 6 * DAY, 3 * HOUR, stream=RESPONSES)
    with capturedLogs() as captured:
        running = janitor(retention)
        await running.round()
        await running.round()
    assert ids(redis, RESPONSES) == appended[-left:]
    assert running.health.ready
    assert running.value("tracker_stream_retention_exceeded", RESPONSES) is None
    assert not [one for one in cast("list[Any]", captured) if one["log_level"].name == "error"]


# Instances that are gone.


@ensureDeferred
async def test_cleanup_after_a_dead_instance_is_counted_and_logged(
    redis: RedisServer, janitor: Start
) -> None:
    device, other = "356307042441013", "356307042441021"
    redis.client.hset("connections:registry", mapping={device: "dead", "a": "dead", other: "one"})
    redis.client.set("instance:heartbeat:one", "{}", ex=90)
    dead = "commands:outbound:dead"
    for command in (fields("c1", device), fields("c2", other), fields("c3", device, expires_in=-1)):
        redis.client.xadd(dead, command)
    claimed = redis.client.xadd(dead, fields("c4", device)).decode()
    redis.client.set("commands:sent:c4", f"sent {dead} {claimed}")
    redis.client.xadd(dead, {"colour": "red"})
    with capturedLogs() as captured:
        running = janitor(Retention())
        await running.round()
    assert statuses(redis) == {"c3": "expired", "c4": "failed/in_doubt", "": "failed/malformed"}
    assert redis.client.hgetall("connections:registry") == {other.encode(): b"one"}
    assert not redis.client.exists(dead)
    assert running.number("tracker_janitor_stale_connections_total") == 2
    assert running.number("tracker_janitor_outbound_streams_removed_total") == 1
    assert running.number("tracker_commands_waiting_devices") == 1
    assert running.number("tracker_living_instances") == 1
    assert (running.number("tracker_janitor_rounds_total") or 0) >= 1
    counted = {
        result: running.number("tracker_janitor_commands_total", result=result)
        for result in ("expired", "ended", "malformed", "moved", "waiting")
    }
    assert counted == dict.fromkeys(counted, 1)
    assert running.number("tracker_janitor_commands_total", result="offline") == 0
    assert (running.number("tracker_janitor_round_duration_seconds") or 0) > 0
    rounds = [
        one
        for one in cast("list[Any]", captured)
        if str(one.get("log_format")).startswith("cleanup: ")
    ]
    first, second, *_ = [str(formatEvent(one)) for one in rounds]
    # A round that had nothing to do is not worth a line a minute.
    assert [one["log_level"].name for one in rounds[:2]] == ["info", "debug"]
    assert first.startswith(
        "cleanup: 2 stale connections removed, 1 command stream removed, 1 command ended, "
        "1 command expired, 1 command malformed, 1 command moved, 1 command waiting; "
        "commands wait for 1 device ("
    )
    assert second.startswith("cleanup: nothing to do; commands wait for 1 device (")


@ensureDeferred
async def test_figures_of_redis_are_unknown_during_an_outage(
    redis: RedisServer, janitor: Start, connected: Connected
) -> None:
    device = "356307042441013"
    redis.client.sadd("commands:waiting", device)
    redis.client.xadd(f"commands:waiting:{device}", fields("c1", device, expires_in=3600))
    append(redis, 60)
    redis.client.xgroup_create(STREAM, "processor", "0")
    await create_checkpoint(connected.connection, STREAM)
    redis.client.xadd("telemtry:teltonika", position(1))
    running = janitor(Retention())

    def figures() -> set[float | None]:
        return {
            running.number("tracker_commands_waiting_devices"),
            running.number("tracker_living_instances"),
            running.number("tracker_stranded_streams"),
            running.value("tracker_stranded_entries", "telemtry:teltonika"),
            running.value("tracker_stranded_oldest_age_seconds", "telemtry:teltonika"),
            running.value("tracker_stream_bytes"),
            running.value("tracker_stream_retention_exceeded"),
            running.value("tracker_skipped_entries"),
        }

    await until(lambda: None not in figures(), "all figures are known")
    redis.kill()
    await until(lambda: figures() == {None}, "all figures are unknown")
    redis.start()
    await until(lambda: None not in figures(), "all figures are known again")


@ensureDeferred
async def test_cleanup_resumes_after_an_outage_of_redis(redis: RedisServer, janitor: Start) -> None:
    append(redis, 3 * HOUR, 2 * HOUR)
    redis.client.xgroup_create(STREAM, "processor", "0")
    running = janitor(Retention(age=150 * 60))
    await until(lambda: "retention" in str(running.health.reasons), "the alarm")
    redis.kill()
    await until(lambda: "redis (janitor)" in running.health.reasons, "reported")
    redis.extra = ("--stream-node-max-entries", "1")
    redis.start()
    finish(redis)
    await until(lambda: running.health.ready, "ready again")
    assert len(ids(redis)) == 1


@ensureDeferred
@pytest.mark.parametrize("what", ["a device", "all devices", "an instance"])
async def test_step_that_redis_refuses_does_not_block_other_steps(
    what: str, janitor: Start, redis: RedisServer
) -> None:
    gone, other = "commands:outbound:gone", "commands:outbound:other"
    expired = fields("expired", "356307042441021", expires_in=-1)
    match what:
        case "a device":
            redis.client.set("commands:waiting:356307042441013", "x")
            redis.client.sadd("commands:waiting", "356307042441013", "356307042441021")
            redis.client.xadd("commands:waiting:356307042441021", expired)
        case "all devices":
            redis.client.set("commands:waiting", "x")
            redis.client.xadd(other, expired)
        case "an instance":
            redis.client.set("commands:waiting:356307042441013", "x")
            redis.client.xadd(gone, fields("stuck", "356307042441013"))
            redis.client.xadd(other, expired)
    with capturedLogs() as captured:
        await janitor(Retention()).round()
    assert statuses(redis) == {"expired": "expired"}
    assert any("WRONGTYPE" in event.get("why", "") for event in captured)
    redis.client.delete("commands:waiting:356307042441013")


@pytest.mark.parametrize("stream", [STREAM, RESPONSES])
@ensureDeferred
async def test_wrong_lag_in_redis_is_corrected(
    redis: RedisServer, janitor: Start, stream: str
) -> None:
    append(redis, 3, 2, 1, stream=stream)
    redis.client.xgroup_create(stream, "processor", "0")
    finish(redis, stream)
    last = redis.client.xinfo_groups(stream)[0]["last-delivered-id"]
    redis.client.xgroup_setid(stream, "processor", last, entries_read=1)
    assert redis.client.xinfo_groups(stream)[0]["lag"] == 2
    janitor(Retention())
    await until(lambda: redis.client.xinfo_groups(stream)[0]["lag"] == 0, "corrected")
    assert redis.client.xinfo_groups(stream)[0]["last-delivered-id"] == last


@ensureDeferred
async def test_skipped_entries_are_kept_and_reported_until_they_are_settled(
    redis: RedisServer, janitor: Start
) -> None:
    appended = append(redis, 3 * HOUR, 2 * HOUR, 90 * 60)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xreadgroup("processor", "one", {STREAM: ">"}, count=1)
    redis.client.xack(STREAM, "processor", appended[0])
    connected = Connected(redis.address)
    await connected.usable()
    await create_checkpoint(connected.connection, STREAM)
    redis.client.xgroup_setid(STREAM, "processor", "$")
    with capturedLogs() as captured:
        running = janitor(Retention(age=HOUR))
        await until(lambda: running.value("tracker_skipped_entries") == 2, "reported")
        await until(lambda: "retention" in running.health.reasons, "the alarm")
        await running.round()
    assert "skipped entries" in running.health.reasons["retention"]
    (line,) = [line for line in map(formatEvent, captured) if line and "entries skipped" in line]
    assert f"2 from {appended[1]} to {appended[2]}" in line
    assert ids(redis) == appended[1:]
    await record_finished(connected.connection, STREAM, [(appended[1], appended[2])])
    await until(lambda: running.health.ready, "settled")
    await until(lambda: ids(redis) == [], "trimmed")
    assert running.value("tracker_skipped_entries") == 0
    redis.client.set(checkpoint(STREAM), "text")
    await until(lambda: running.value("tracker_skipped_entries") is None, "unknown")
    await connected.connection.stopService()


@ensureDeferred
async def test_deleted_entries_move_the_checkpoint(redis: RedisServer, janitor: Start) -> None:
    appended = append(redis, 3, 2, 1)
    redis.client.xgroup_create(STREAM, "processor", "0")
    connected = Connected(redis.address)
    await connected.usable()
    await create_checkpoint(connected.connection, STREAM)
    await record_finished(connected.connection, STREAM, [(appended[1], appended[1])])
    redis.client.xdel(STREAM, appended[0])
    assert redis.client.zcard(checkpoint(STREAM)) == 2
    janitor(Retention())
    await until(lambda: redis.client.zcard(checkpoint(STREAM)) == 1, "advanced")
    await connected.connection.stopService()
