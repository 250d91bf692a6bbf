"""What the doctor says of streams, groups, dead letters and commands on a real Redis."""

from __future__ import annotations

import json
import shlex
import time

import pytest
from pytest_twisted import ensureDeferred

from tests.integration.admin.doctor import STREAM, Report, examined, obey, words
from tests.servers import RedisServer
from tracker.admin.doctor import streams
from tracker.observe.findings import Finding, Status
from tracker.position import iso_milliseconds

DEVICE = "356307042441013"
WARNING, FAILURE, SKIPPED, OK = Status.WARNING, Status.FAILURE, Status.SKIPPED, Status.OK
START = "systemctl start tracker-process@1"


@pytest.fixture(autouse=True)
def _no_pinned_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_TELEMETRY_STREAM", raising=False)


def live(redis: RedisServer, name: str = "eu-1", *written: str) -> None:
    """A heartbeat, as an ingest instance has it."""
    beat = json.dumps({"streams": written or [STREAM]})
    redis.client.set(f"instance:heartbeat:{name}", beat, ex=90)


def append(redis: RedisServer, *ages: float) -> None:
    """Entries appended so many seconds ago, oldest first."""
    for number, age in enumerate(ages):
        entry_id = f"{int((time.time() - age) * 1000)}-{number}"
        redis.client.xadd(STREAM, {"payload": "x"}, id=entry_id)


def read(redis: RedisServer, consumer: str = "host-1") -> None:
    """Read all, and acknowledge it."""
    entries = redis.client.xreadgroup("processor", consumer, {STREAM: ">"})
    for _, batch in entries:
        redis.client.xack(STREAM, "processor", *[entry_id for entry_id, _ in batch])


def healthy(redis: RedisServer) -> None:
    """An instance that writes a stream, and a processor that reads it."""
    live(redis)
    append(redis, 2, 1)
    redis.client.xgroup_create(STREAM, "processor", "0")
    read(redis)


@ensureDeferred
async def test_what_is_written_and_read_is_all_ok(redis: RedisServer) -> None:
    healthy(redis)
    redis.client.hset("connections:registry", DEVICE, "eu-1")
    before = redis.client.info()["rdb_changes_since_last_save"]
    report = await examined(redis.url)
    assert report.bad == {"sink-reachable"}
    assert {"1", "eu-1"} <= words(report.one("instances"))
    assert {STREAM, "eu-1"} <= words(report.one("stream-names"))
    assert {STREAM, "2"} <= words(report.one("streams"))
    assert {STREAM, "host-1"} <= words(report.one("groups"))
    assert {STREAM, "0"} <= words(report.one("lag"))
    assert "1" in words(report.one("device-registry"))
    assert redis.client.info()["rdb_changes_since_last_save"] == before


@ensureDeferred
async def test_nobody_is_alive(redis: RedisServer) -> None:
    report = await examined(redis.url)
    assert report.one("instances") == Finding(
        WARNING, "no ingest instance is alive", "systemctl start tracker-ingest@1", "instances"
    )
    assert report.one("stream-names").status is SKIPPED
    assert STREAM in words(report.one("streams"))
    assert report.one("groups").status is SKIPPED
    assert report.one("lag").status is SKIPPED


@ensureDeferred
async def test_names_that_have_drifted_apart(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy(redis)
    live(redis, "eu-2", "telemetry:fleet")
    report = await examined(redis.url)
    finding = report.worst("stream-names")
    assert finding.status is FAILURE
    assert {"eu-2", "telemetry:fleet", STREAM} <= words(finding)
    value = f"{STREAM},telemetry:fleet"
    assert finding.fix.startswith(f"REDIS_TELEMETRY_STREAM={value}  # ")
    assert {"telemetry:fleet", "processor"} <= words(report.worst("groups"))
    monkeypatch.setenv("REDIS_TELEMETRY_STREAM", value)
    assert {one.status for one in (await examined(redis.url)).all("stream-names")} == {OK}


@ensureDeferred
async def test_a_drifted_stream_that_is_read_elsewhere(redis: RedisServer) -> None:
    healthy(redis)
    live(redis, "eu-2", "telemetry:fleet")
    redis.client.xgroup_create("telemetry:fleet", "processor", "0", mkstream=True)
    redis.client.xreadgroup("processor", "host-9", {"telemetry:fleet": ">"})
    finding = (await examined(redis.url)).worst("stream-names")
    assert finding.status is FAILURE
    assert finding.seen.endswith(" (a processor elsewhere reads it)")


@ensureDeferred
async def test_a_name_can_be_pasted_into_a_shell(redis: RedisServer) -> None:
    name = "x; touch /tmp/y $(id) 'a'\x1b[2J"
    live(redis, "eu-1", name)
    report = await examined(redis.url)
    (word, *_) = shlex.split(report.worst("stream-names").fix, comments=True)
    assert word == f"REDIS_TELEMETRY_STREAM={STREAM},{name}"


@ensureDeferred
async def test_a_pinned_name_that_is_none(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy(redis)
    monkeypatch.setenv("REDIS_TELEMETRY_STREAM", "tele metry")
    finding = (await examined(redis.url)).one("stream-names")
    assert (finding.status, finding.fix) == (
        FAILURE,
        "REDIS_TELEMETRY_STREAM='telemetry:{vendor}'",
    )
    assert "a name must not contain spaces" in finding.seen


@ensureDeferred
async def test_a_key_that_is_no_stream(redis: RedisServer) -> None:
    redis.client.hset(STREAM, "a", "b")
    report = await examined(redis.url)
    finding = report.one("streams")
    assert finding.status is FAILURE
    assert "is no stream but a hash" in finding.seen
    obey(redis, finding.fix)
    assert (await examined(redis.url)).one("streams").status is OK
    assert redis.client.hgetall(f"{STREAM}:hash") == {b"a": b"b"}


@ensureDeferred
async def test_a_stream_without_a_group(redis: RedisServer) -> None:
    live(redis)
    append(redis, 1)
    finding = (await examined(redis.url)).one("groups")
    assert (finding.status, finding.fix) == (FAILURE, START)
    assert "processor" in words(finding)


@ensureDeferred
async def test_a_group_without_a_consumer(redis: RedisServer) -> None:
    append(redis, 1)
    redis.client.xgroup_create(STREAM, "processor", "0")
    finding = (await examined(redis.url)).one("groups")
    assert (finding.status, finding.fix) == (FAILURE, START)
    assert "no consumer" in finding.seen


@ensureDeferred
async def test_consumers_that_ask_no_more(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy(redis)
    monkeypatch.setattr(streams, "ALIVE", 0)
    time.sleep(0.05)
    finding = (await examined(redis.url)).one("groups")
    assert finding.status is FAILURE
    assert "host-1" in words(finding)
    assert finding.fix == "systemctl restart tracker-process@1  # on the machine of host-1"


@pytest.mark.parametrize(("age", "status"), [(30, OK), (100, WARNING), (700, FAILURE)])
@ensureDeferred
async def test_what_is_not_processed(redis: RedisServer, age: int, status: Status) -> None:
    healthy(redis)
    redis.client.delete(STREAM)
    append(redis, age, 1)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xgroup_createconsumer(STREAM, "processor", "host-1")
    finding = (await examined(redis.url)).one("lag")
    assert finding.status is status
    assert {STREAM, "2", str(age)} <= words(finding)
    assert finding.fix.startswith(f"tracker-admin lag --stream {STREAM}") is (status is not OK)


@ensureDeferred
async def test_a_lag_that_redis_cannot_tell(redis: RedisServer) -> None:
    append(redis, 120, 110, 100)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xreadgroup("processor", "host-1", {STREAM: ">"}, count=1)
    redis.client.xdel(STREAM, redis.client.xrange(STREAM)[1][0])
    finding = (await examined(redis.url)).one("lag")
    assert finding.status is WARNING
    assert "an unknown number of entries" in finding.seen


@ensureDeferred
async def test_dead_letters(redis: RedisServer) -> None:
    healthy(redis)
    for _ in range(3):
        redis.client.xadd(f"{STREAM}:dead", {"_id": "1-1", "codec": "8"})
    finding = (await examined(redis.url)).one("dead-letters")
    assert finding.status is WARNING
    assert {STREAM, "3"} <= words(finding)
    assert finding.fix == f"tracker-admin dead list --stream {STREAM}"


@ensureDeferred
async def test_what_instances_have_left_behind(redis: RedisServer) -> None:
    healthy(redis)
    redis.client.hset("connections:registry", mapping={DEVICE: "eu-9", "356307042441014": "eu-1"})
    redis.client.xadd("commands:outbound:eu-9", {"command_id": "c"})
    redis.client.xadd("commands:outbound:eu-1", {"command_id": "c"})
    report = await examined(redis.url)
    finding = report.one("device-registry")
    assert (finding.status, finding.fix) == (WARNING, "systemctl start tracker-janitor")
    assert {"1", "2", "eu-9"} <= words(finding)
    finding = report.one("orphaned-commands")
    assert (finding.status, finding.fix) == (WARNING, "systemctl start tracker-janitor")
    assert {"1", "eu-9"} <= words(finding)


def command(expired: float) -> dict[str, str]:
    return {
        "command_id": "c-1", "device_id": DEVICE, "payload": "getver",
        "expires_at": iso_milliseconds(int((time.time() - expired) * 1000)),
    }  # fmt: skip


@ensureDeferred
async def test_commands_that_nobody_ends(redis: RedisServer) -> None:
    healthy(redis)

    async def waiting() -> Report:
        return await examined(redis.url)

    redis.client.sadd("commands:waiting", DEVICE)
    redis.client.xadd(f"commands:waiting:{DEVICE}", command(expired=-60))
    redis.client.xadd("commands:outbound:eu-1", command(expired=0))
    report = await waiting()
    devices, instance = report.all("waiting-commands")
    assert "1" in words(devices)
    assert {"eu-1", "1"} <= words(instance)
    assert report.bad == {"sink-reachable"}
    redis.client.xadd(f"commands:waiting:{DEVICE}", command(expired=300))
    finding = (await waiting()).worst("waiting-commands")
    assert (finding.status, finding.fix) == (WARNING, "systemctl start tracker-janitor")
    assert "1" in words(finding)
    redis.client.delete(f"commands:waiting:{DEVICE}", "commands:waiting")
    redis.client.xadd("commands:outbound:eu-1", command(expired=300))
    finding = (await waiting()).worst("waiting-commands")
    assert finding.status is WARNING
    assert {"eu-1", "2", "1"} <= words(finding)
    assert finding.fix.startswith("systemctl restart 'tracker-ingest@*'")
