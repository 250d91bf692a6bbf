"""The doctor's findings on streams, groups, dead letters and commands on a real Redis."""

from __future__ import annotations

import json
import shlex
import time

import pytest
from pytest_twisted import ensureDeferred

from tests.admin import admin as tracker_admin
from tests.integration.admin.doctor import STREAM, Report, apply_fix, examined, words
from tests.integration.poison import position
from tests.lags import make_lag_unknown
from tests.servers import REDIS_70, VALKEY, RedisServer
from tests.system.processes import environment
from tracker.admin.doctor import streams
from tracker.keys import checkpoint
from tracker.log.entries import LAST_ID
from tracker.observe.findings import Status
from tracker.position import iso_milliseconds

pytestmark = pytest.mark.parametrize("redis_program", [VALKEY, REDIS_70])

DEVICE = "356307042441013"
WARNING, FAILURE, SKIPPED, OK = Status.WARNING, Status.FAILURE, Status.SKIPPED, Status.OK
START = "systemctl start tracker-process@1"


@pytest.fixture(autouse=True)
def _no_pinned_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_TELEMETRY_STREAM", raising=False)


def set_heartbeat(redis: RedisServer, name: str = "eu-1", *written: str) -> None:
    """Write the heartbeat of an ingest instance."""
    heartbeat = json.dumps({"streams": written or [STREAM], "control": "unix:/run/control.sock"})
    redis.client.set(f"instance:heartbeat:{name}", heartbeat, ex=90)


def append(redis: RedisServer, *ages: float) -> None:
    """Append entries of these ages in seconds, oldest first."""
    for number, age in enumerate(ages):
        entry_id = f"{int((time.time() - age) * 1000)}-{number}"
        redis.client.xadd(STREAM, {"payload": "x"}, id=entry_id)


def read(redis: RedisServer, consumer: str = "host-1") -> None:
    """Read and acknowledge all entries."""
    entries = redis.client.xreadgroup("processor", consumer, {STREAM: ">"})
    for _, batch in entries:
        redis.client.xack(STREAM, "processor", *[entry_id for entry_id, _ in batch])


def make_healthy(redis: RedisServer) -> None:
    """Add an instance that writes a stream, and a processor that reads it."""
    set_heartbeat(redis)
    append(redis, 2, 1)
    redis.client.xgroup_create(STREAM, "processor", "0")
    read(redis)
    beginning = "-".join(["0" * 20] * 2)
    redis.client.zadd(checkpoint(STREAM), {f"{beginning}:{LAST_ID}": 0})


@ensureDeferred
async def test_healthy_streams_have_only_ok_findings(redis: RedisServer) -> None:
    make_healthy(redis)
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
async def test_streams_and_groups_are_not_checked_without_instances(redis: RedisServer) -> None:
    report = await examined(redis.url)
    finding = report.one("instances")
    assert (finding.status, finding.fix) == (WARNING, "systemctl start tracker-ingest@1")
    assert report.one("stream-names").status is SKIPPED
    assert any(STREAM in words(one) for one in report.all("streams"))
    assert {one.status for one in report.all("groups")} == {SKIPPED}
    assert report.one("lag").status is SKIPPED


@ensureDeferred
async def test_streams_of_vendors_without_devices_are_not_reported(redis: RedisServer) -> None:
    make_healthy(redis)
    redis.client.xgroup_create("telemetry:queclink", "processor", "0", mkstream=True)
    assert len((await examined(redis.url)).all("groups")) == 1
    redis.client.xadd("telemetry:queclink:dead", {"_reason": "x"})
    report = await examined(redis.url)
    assert "telemetry:queclink" in " ".join(one.seen for one in report.all("dead-letters"))
    set_heartbeat(redis, "eu-2", "telemetry:concox")
    report = await examined(redis.url)
    bad = [one.seen for one in report.all("groups") if one.status is not OK]
    assert "telemetry:concox: " in " ".join(bad)


@ensureDeferred
async def test_stream_that_no_configured_processor_reads_is_a_failure(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_healthy(redis)
    set_heartbeat(redis, "eu-2", "telemetry:fleet")
    report = await examined(redis.url)
    finding = report.worst("stream-names")
    assert finding.status is FAILURE
    assert {"eu-2", "telemetry:fleet", STREAM} <= words(finding)
    value = "telemetry:{vendor},telemetry:fleet"
    assert finding.fix.startswith(f"REDIS_TELEMETRY_STREAM='{value}'  # ")
    assert {"telemetry:fleet", "processor"} <= words(report.worst("groups"))
    monkeypatch.setenv("REDIS_TELEMETRY_STREAM", value)
    assert {one.status for one in (await examined(redis.url)).all("stream-names")} == {OK}


@ensureDeferred
async def test_stream_that_another_processor_reads_is_a_failure_with_a_note(
    redis: RedisServer,
) -> None:
    make_healthy(redis)
    set_heartbeat(redis, "eu-2", "telemetry:fleet")
    redis.client.xgroup_create("telemetry:fleet", "processor", "0", mkstream=True)
    redis.client.xgroup_createconsumer("telemetry:fleet", "processor", "host-9")
    finding = (await examined(redis.url)).worst("stream-names")
    assert finding.status is FAILURE
    assert "(another processor reads it)" in finding.seen


@ensureDeferred
async def test_stream_name_in_a_fix_is_quoted_for_a_shell(redis: RedisServer) -> None:
    name = "x; touch /tmp/y $(id) 'a'\x1b[2J"
    set_heartbeat(redis, "eu-1", name)
    report = await examined(redis.url)
    (word, *_) = shlex.split(report.worst("stream-names").fix, comments=True)
    assert word == f"REDIS_TELEMETRY_STREAM=telemetry:{{vendor}},{name}"


@ensureDeferred
async def test_malformed_pinned_stream_name_is_a_failure(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_healthy(redis)
    monkeypatch.setenv("REDIS_TELEMETRY_STREAM", "tele metry")
    finding = (await examined(redis.url)).one("stream-names")
    assert (finding.status, finding.fix) == (
        FAILURE,
        "REDIS_TELEMETRY_STREAM='telemetry:{vendor}'",
    )
    assert "a name must not contain spaces" in finding.seen


@ensureDeferred
async def test_key_of_another_type_is_found_and_renamed(redis: RedisServer) -> None:
    redis.client.hset(STREAM, "a", "b")
    report = await examined(redis.url)
    finding = report.one("streams")
    assert finding.status is FAILURE
    assert "hash" in words(finding)
    apply_fix(redis, finding.fix)
    assert {one.status for one in (await examined(redis.url)).all("streams")} == {OK}
    assert redis.client.hgetall(f"{STREAM}:hash") == {b"a": b"b"}


@ensureDeferred
async def test_stream_without_a_consumer_group_is_a_failure(redis: RedisServer) -> None:
    set_heartbeat(redis)
    append(redis, 1)
    finding = (await examined(redis.url)).one("groups")
    assert (finding.status, finding.fix) == (FAILURE, START)
    assert "processor" in words(finding)


@ensureDeferred
async def test_group_without_a_consumer_is_a_failure(redis: RedisServer) -> None:
    append(redis, 1)
    redis.client.xgroup_create(STREAM, "processor", "0")
    finding = (await examined(redis.url)).one("groups")
    assert (finding.status, finding.fix) == (FAILURE, START)
    assert "processor" in words(finding)


@ensureDeferred
async def test_idle_consumer_is_a_failure(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_healthy(redis)
    monkeypatch.setattr(streams, "MAX_IDLE", 0)
    time.sleep(0.05)
    finding = (await examined(redis.url)).one("groups")
    assert finding.status is FAILURE
    assert "host-1" in words(finding)
    assert finding.fix == "systemctl restart tracker-process@1  # on the machine of host-1"


@pytest.mark.parametrize(
    ("age", "shown", "status"), [(30, "30s", OK), (100, "1m", WARNING), (700, "11m", FAILURE)]
)
@ensureDeferred
async def test_age_of_the_oldest_entry_determines_the_status_of_the_lag(
    redis: RedisServer, age: int, shown: str, status: Status
) -> None:
    make_healthy(redis)
    redis.client.delete(STREAM)
    append(redis, age, 1)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xgroup_createconsumer(STREAM, "processor", "host-1")
    finding = (await examined(redis.url)).one("lag")
    assert finding.status is status
    assert {STREAM, "2", shown} <= words(finding)
    assert finding.fix.startswith(f"tracker-admin lag --stream {STREAM}") is (status is not OK)


@ensureDeferred
async def test_status_of_an_unknown_lag_depends_on_the_age_of_entries(redis: RedisServer) -> None:
    append(redis, 120, 110, 100)
    redis.client.xgroup_create(STREAM, "processor", "0")
    redis.client.xreadgroup("processor", "host-1", {STREAM: ">"}, count=1)
    make_lag_unknown(redis, STREAM)
    finding = (await examined(redis.url)).one("lag")
    assert finding.status is WARNING
    assert "unknown" in words(finding)


@ensureDeferred
async def test_dead_letters_are_a_warning(redis: RedisServer) -> None:
    make_healthy(redis)
    for _ in range(3):
        redis.client.xadd(f"{STREAM}:dead", {"_id": "1-1", "codec": "8"})
    finding = (await examined(redis.url)).one("dead-letters")
    assert finding.status is WARNING
    assert {STREAM, "3"} <= words(finding)
    assert finding.fix == f"tracker-admin dead list --stream {STREAM}"


@ensureDeferred
@pytest.mark.parametrize(
    ("name", "argument"),
    [("telemtry:a b", "'telemtry:a b'"), ("$(x)", "'$(x)'"), ("--help", "-- --help")],
)
async def test_stranded_stream_is_a_failure_whose_fix_adopts_it(
    redis: RedisServer, name: str, argument: str
) -> None:
    make_healthy(redis)
    for number in range(3):
        redis.client.xadd(name, position(number))
        redis.client.xadd("telemetry:advertised", position(number))
    set_heartbeat(redis, "eu-1", STREAM, "telemetry:advertised")
    finding = (await examined(redis.url)).one("stranded-streams")
    assert finding.status is FAILURE
    assert f"{name}: no processor reads it; 3 entries" in finding.seen
    assert finding.fix == f"tracker-admin streams adopt {argument}"
    tracker_admin(*shlex.split(finding.fix)[1:], env=environment(REDIS_URL=redis.url))
    assert (await examined(redis.url)).one("stranded-streams").status is OK


@ensureDeferred
async def test_leftovers_of_ended_instances_are_warnings(redis: RedisServer) -> None:
    make_healthy(redis)
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
async def test_expired_commands_are_warnings(redis: RedisServer) -> None:
    make_healthy(redis)

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
