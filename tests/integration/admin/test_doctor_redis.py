"""The doctor's findings on a real Redis with faults."""

from __future__ import annotations

import re
import resource
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import valkey
from pytest_twisted import ensureDeferred

from tests.integration.admin.doctor import Report, apply_fix, examined
from tests.integration.conftest import Connected
from tests.replyproxy import reply_proxy
from tests.servers import RedisServer, Sentinel, free_port
from tests.waiting import until
from tracker.admin.doctor.redis import latency, server_clock
from tracker.admin.doctor.server import Server
from tracker.observe.findings import Finding, Status
from tracker.redis.address import RedisAddress

WARNING, FAILURE, SKIPPED, OK = Status.WARNING, Status.FAILURE, Status.SKIPPED, Status.OK


@pytest.fixture
def cli(redis: RedisServer) -> str:
    """Return the redis-cli command with which fixes of this server begin."""
    return f"redis-cli -h 127.0.0.1 -p {redis.port}"


@pytest.fixture(autouse=True)
def _no_pinned_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_TELEMETRY_STREAM", raising=False)


def redis_checks(report: Report) -> dict[str, Status]:
    return {
        one.check: one.status for one in report.findings if one.check.startswith("redis-")
    }  # fmt: skip


@ensureDeferred
async def test_healthy_server_has_only_ok_findings(redis: RedisServer) -> None:
    before = redis.client.dbsize(), redis.client.info()["rdb_changes_since_last_save"]
    report = await examined(redis.url)
    assert set(redis_checks(report).values()) == {OK}
    assert len(redis_checks(report)) == 12
    assert report.one("replication").status is OK
    assert (redis.client.dbsize(), redis.client.info()["rdb_changes_since_last_save"]) == before


# Connecting and logging in.


@ensureDeferred
async def test_missing_server_is_a_failure_and_later_checks_are_skipped() -> None:
    started = time.monotonic()
    report = await examined(f"redis://:s3cret@127.0.0.1:{free_port()}")
    finding = report.one("redis-reachable")
    assert finding.status is FAILURE
    assert "refused" in finding.seen
    assert finding.fix.startswith("systemctl start redis-server")
    assert {one.status for one in report.findings if one.check.startswith("redis-v")} == {SKIPPED}
    assert time.monotonic() - started < 5
    assert "s3cret" not in repr(report.findings)


@pytest.mark.parametrize(
    ("login", "error"), [(":wr0ng@", "WRONGPASS"), ("", "NOAUTH"), ("eve:wr0ng@", "WRONGPASS")]
)
@ensureDeferred
async def test_refused_login_is_a_failure(redis: RedisServer, login: str, error: str) -> None:
    redis.client.config_set("requirepass", "s3cret")
    report = await examined(f"redis://{login}127.0.0.1:{redis.port}")
    finding = report.one("redis-reachable")
    assert finding.status is FAILURE
    assert error in finding.seen
    assert "REDIS_URL=redis://USER:PASSWORD@127.0.0.1" in finding.fix
    assert "wr0ng" not in repr(report.findings)
    assert set(redis_checks(report).values()) == {FAILURE, SKIPPED}


@ensureDeferred
async def test_hanging_server_is_reported_as_a_failure_within_the_time_limit(
    redis: RedisServer,
) -> None:
    redis.suspend()
    try:
        started = time.monotonic()
        report = await examined(redis.url, seconds=2)
        assert time.monotonic() - started < 5
    finally:
        redis.resume()
    finding = report.one("redis-reachable")
    assert (finding.status, finding.fix.partition("  #")[2]) == (
        FAILURE, " if it hangs: systemctl restart redis-server",
    )  # fmt: skip
    assert "not done within 2s" in finding.seen


@ensureDeferred
async def test_checks_after_a_hanging_reply_are_skipped(redis: RedisServer) -> None:
    seconds = 2.0

    def swallow(answer: bytes) -> bytes:
        if b"redis_version" in answer:
            time.sleep(seconds + 1)
        return answer

    with reply_proxy(redis.port, swallow) as port:
        report = await examined(f"redis://127.0.0.1:{port}", seconds=seconds)
    assert report.one("redis-reachable").status is OK
    assert report.one("redis-version") == Finding(
        SKIPPED, "not done within 2s", check="redis-version"
    )
    assert report.one("device-registry").status is SKIPPED
    assert report.one("machine-backlog").status in (OK, WARNING)


@ensureDeferred
async def test_missing_database_is_a_failure(redis: RedisServer, cli: str) -> None:
    finding = (await examined(f"redis://127.0.0.1:{redis.port}/99")).one("redis-reachable")
    assert finding.status is FAILURE
    assert finding.fix.startswith(f"{cli} -n 99 CONFIG GET databases")


@ensureDeferred
async def test_replica_is_a_failure_whose_fix_is_the_url_of_the_master(
    redis: RedisServer, tmp_path: Path
) -> None:
    replica = RedisServer(tmp_path / "replica")
    replica.start()
    try:
        replica.replicate(redis)
        report = await examined(replica.url)
    finally:
        replica.kill()
    finding = report.one("replication")
    assert (finding.status, finding.fix) == (
        FAILURE, f"REDIS_URL=redis://127.0.0.1:{redis.port}/0",
    )  # fmt: skip
    assert report.one("redis-reachable").status is OK
    assert (await examined(finding.fix.removeprefix("REDIS_URL="))).one("replication").status is OK


@ensureDeferred
async def test_old_version_of_the_server_is_a_failure(redis: RedisServer) -> None:
    def older(answer: bytes) -> bytes:
        answer = re.sub(rb"redis_version:\d\.", b"redis_version:6.", answer)
        return re.sub(rb"valkey_version:\d\.", b"valkey_version:7.", answer)

    with reply_proxy(redis.port, older) as port:
        finding = (await examined(f"redis://127.0.0.1:{port}")).one("redis-version")
    assert finding.status is FAILURE
    assert re.match(r"(Redis 6|Valkey 7)\.\S+ is too old", finding.seen)
    assert re.match(r"apt-get install (redis|valkey)-server", finding.fix)


@ensureDeferred
async def test_master_named_by_sentinels_is_checked(redis: RedisServer, tmp_path: Path) -> None:
    sentinel = Sentinel(tmp_path / "sentinel", redis)
    sentinel.start()
    try:
        report = await examined(sentinel.url)
        unknown = await examined(sentinel.url.replace("/tracker", "/other"))
    finally:
        sentinel.kill()
    assert report.one("redis-reachable").status is OK
    assert report.one("replication").status is OK
    finding = unknown.one("redis-reachable")
    assert (finding.status, finding.fix) == (FAILURE, "redis-cli -p 26379 SENTINEL MASTERS")


# Settings. Each fix repairs its finding.


@pytest.mark.parametrize(
    ("check", "setting", "value", "status", "fixed"),
    [
        ("redis-append-only", "appendonly", "no", FAILURE, "yes"),
        ("redis-fsync", "appendfsync", "everysec", WARNING, "always"),
        ("redis-fsync", "appendfsync", "no", FAILURE, "always"),
        ("redis-fsync-on-rewrite", "no-appendfsync-on-rewrite", "yes", FAILURE, "no"),
        ("redis-eviction", "maxmemory-policy", "allkeys-lru", FAILURE, "noeviction"),
        ("redis-eviction", "maxmemory-policy", "volatile-ttl", FAILURE, "noeviction"),
    ],
)
@ensureDeferred
async def test_unsafe_setting_is_found_and_fixed(
    redis: RedisServer,
    cli: str,
    check: str,
    setting: str,
    value: str,
    status: Status,
    fixed: str,
) -> None:
    redis.client.config_set(setting, value)
    report = await examined(redis.url)
    finding = report.one(check)
    assert finding.status is status
    assert f"{setting} {value}" in finding.seen
    assert finding.fix == f"{cli} CONFIG SET {setting} {fixed} && {cli} CONFIG REWRITE"
    apply_fix(redis, finding.fix)
    assert (await examined(redis.url)).one(check).status is OK


@pytest.mark.parametrize(("fraction", "status"), [(0.8, WARNING), (0.97, FAILURE)])
@ensureDeferred
async def test_low_memory_is_found_and_fixed(
    redis: RedisServer, fraction: float, status: Status
) -> None:
    redis.client.setrange("much", (40 << 20) - 1, "x")  # without a large buffer of a client
    redis.client.config_set("maxmemory", int(redis.client.info()["used_memory"] / fraction))
    finding = (await examined(redis.url)).one("redis-memory")
    assert finding.status is status
    assert re.search(r"CONFIG SET maxmemory [0-9]+mb && ", finding.fix)
    apply_fix(redis, finding.fix)
    assert (await examined(redis.url)).one("redis-memory").status is OK


@ensureDeferred
async def test_failed_write_to_the_append_only_file_is_a_failure(redis: RedisServer) -> None:
    redis.client.config_set("appendfsync", "everysec")  # with "always", Redis exits
    resource.prlimit(redis.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    with suppress(valkey.exceptions.ResponseError):
        redis.client.set("much", bytes(10_000))
    await until(
        lambda: redis.client.info()["aof_last_write_status"] == "err", "the write has failed"
    )
    report = await examined(redis.url)
    finding = report.one("redis-writes")
    assert finding.status is FAILURE
    assert "aof_last_write_status err" in finding.seen
    assert finding.fix.startswith("df -h")
    finding = report.one("redis-reachable")
    assert (finding.status, finding.fix[:5]) == (FAILURE, "df -h")
    assert "MISCONF" in finding.seen
    # The other checks run.
    assert report.one("redis-eviction").status is OK


@pytest.mark.parametrize(
    ("command", "field"),
    [("BGREWRITEAOF", "aof_last_bgrewrite_status"), ("BGSAVE", "rdb_last_bgsave_status")],
)
@ensureDeferred
async def test_failed_snapshot_or_rewrite_of_redis_is_a_failure(
    redis: RedisServer, cli: str, command: str, field: str
) -> None:
    shutil.rmtree(redis.folder.rename(redis.folder.with_name("gone")))
    with suppress(valkey.exceptions.ResponseError):  # the command may fail at once
        redis.client.execute_command(command)
    await until(lambda: redis.client.info()[field] == "err", "it has failed")
    finding = (await examined(redis.url)).one("redis-writes")
    assert finding.status is FAILURE
    assert f"{field} err" in finding.seen
    assert finding.fix.startswith(f"{cli} {command}  # ")


@pytest.fixture
def unprotected(tmp_path: Path) -> Iterator[RedisServer]:
    """Yield a server whose folder can be set."""
    server = RedisServer(tmp_path / "open", "--enable-protected-configs", "yes")
    server.start()
    yield server
    server.kill()


@ensureDeferred
async def test_full_disk_of_redis_is_a_failure(unprotected: RedisServer) -> None:
    unprotected.client.config_set("dir", "/proc")  # has no free space
    finding = (await examined(unprotected.url)).one("redis-disk")
    assert finding.status is FAILURE
    assert finding.seen == "0.0 GiB free in /proc"
    assert finding.fix.startswith("du -xh --max-depth=2 /proc | sort -h")


# Replies.


async def finding_of(port: int, check: Callable[[Server, Any], Awaitable[Finding]]) -> Finding:
    """Run a check on the server behind a port, and return its finding."""
    from twisted.internet import reactor

    address = RedisAddress.from_url(f"redis://127.0.0.1:{port}")
    connected = Connected(address)
    try:
        await connected.usable()
        return await check(Server(connected.connection, address), reactor)
    finally:
        await connected.connection.stopService()


@pytest.mark.parametrize(("delay", "status"), [(0.02, WARNING), (0.11, FAILURE)])
@ensureDeferred
async def test_high_latency_of_redis_is_found(
    redis: RedisServer, delay: float, status: Status
) -> None:
    with reply_proxy(redis.port, delay=delay) as port:
        finding = await finding_of(port, latency)
        assert finding.status is status
        assert finding.fix.startswith(f"redis-cli -h 127.0.0.1 -p {port} SLOWLOG GET 10")


@pytest.mark.parametrize(
    ("ahead", "status", "seen"),
    [(0, OK, "0.0s from"), (5, WARNING, "5.0s ahead"), (-40, FAILURE, "40.0s behind")],
)
@ensureDeferred
async def test_clock_of_redis_ahead_or_behind_is_found(
    redis: RedisServer, ahead: int, status: Status, seen: str
) -> None:
    def shifted(answer: bytes) -> bytes:
        return re.sub(
            rb"^(\*2\r\n\$10\r\n)(\d{10})",
            lambda found: found[1] + str(int(found[2]) + ahead).encode(),
            answer,
        )

    with reply_proxy(redis.port, shifted) as port:
        finding = await finding_of(port, server_clock)
    assert finding.status is status
    assert seen in finding.seen
    assert ("timedatectl set-ntp true" in finding.fix) is (status is not OK)


# Rights of the user.


def as_bob(redis: RedisServer, *rules: str) -> str:
    """Create a user with these rights, and return its URL."""
    redis.client.execute_command("ACL", "SETUSER", "bob", "reset", "on", ">s3cret", *rules)
    return f"redis://bob:s3cret@127.0.0.1:{redis.port}"


@pytest.mark.parametrize(
    ("rules", "role", "missing"),
    [
        (("+@all", "~*", "-xadd"), "ingest", "+xadd"),
        (("+@all", "~*", "-evalsha"), "process", "+evalsha"),
        (("+@all", "~*", "-xreadgroup", "-xack"), "process", "+xack +xreadgroup"),
        (("+@all", "~*", "-xtrim"), "janitor", "+xtrim"),
        (("+@all", "~*", "-scan"), "process", "+scan"),
        (("+@all", "~*", "-memory|usage"), "janitor", "'+memory|usage'"),
        (("+@all", "~*", "-hset"), "ingest", "+hset"),
        (
            ("+@all", "~telemetry:*", "~instance:*", "~devices:*"),
            "ingest",
            "'~' '~commands:deadlines' '~commands:outbound:*' '~commands:responses' "
            "'~commands:sent:*' '~commands:waiting' '~commands:waiting:*' '~connections:registry' "
            "'~connections:vendors'",
        ),
    ],
)
@ensureDeferred
async def test_missing_right_of_a_role_is_found_and_fixed(
    redis: RedisServer, cli: str, rules: tuple[str, ...], role: str, missing: str
) -> None:
    url = as_bob(redis, *rules)
    report = await examined(url)
    failed = {
        one.seen.split()[6]: one for one in report.all("redis-rights") if one.status is FAILURE
    }
    finding = failed[role]
    assert '"bob"' in finding.seen
    assert _words(finding.fix) == _words(f"{cli} --askpass ACL SETUSER bob {missing}")
    assert "s3cret" not in repr(report.findings)
    for one in failed.values():
        apply_fix(redis, one.fix)
    assert {one.status for one in (await examined(url)).all("redis-rights")} == {OK}


@ensureDeferred
async def test_missing_right_of_the_default_user_is_found_and_fixed(
    redis: RedisServer,
) -> None:
    url = as_bob(redis, "+@all", "~*")
    redis.client.execute_command("ACL", "SETUSER", "default", "-xclaim", "-hset")
    finding = (await examined(url)).worst("redis-rights")
    assert finding.status is FAILURE
    assert '"default"' in finding.seen
    assert finding.seen.endswith(": +hset +xclaim")
    assert finding.fix.endswith(" ACL SETUSER default +hset +xclaim")
    apply_fix(redis, finding.fix)
    assert {one.status for one in (await examined(url)).all("redis-rights")} == {OK}


def _words(line: str) -> list[str]:
    return [word.strip("'") for word in line.split()]


@ensureDeferred
async def test_missing_right_to_run_role_is_a_warning(redis: RedisServer) -> None:
    url = as_bob(redis, "+@all", "~*", "-role")
    report = await examined(url)
    finding = report.worst("redis-rights")
    assert finding.status is WARNING
    assert finding.fix.endswith(" ACL SETUSER bob +role")
    assert report.one("replication").status is OK
    apply_fix(redis, finding.fix)
    assert not [one for one in (await examined(url)).all("redis-rights") if one.status is not OK]


@pytest.mark.parametrize(
    ("right", "check"),
    [
        ("acl|dryrun", "redis-rights"),
        ("config|get", "redis-fsync"),
        ("config|get", "redis-fsync-on-rewrite"),
        ("config|get", "redis-disk"),
        ("info", "redis-version"),
        ("info", "redis-eviction"),
        ("time", "redis-clock"),
        ("xlen", "dead-letters"),
        ("hscan", "device-registry"),
    ],
)
@ensureDeferred
async def test_check_that_the_user_may_not_run_is_skipped_with_a_fix(
    redis: RedisServer, right: str, check: str
) -> None:
    url = as_bob(redis, "+@all", "~*", f"-{right}")
    finding = (await examined(url)).worst(check)
    assert finding.status is SKIPPED
    assert "bob" in finding.seen or "permission" in finding.seen
    assert _words(finding.fix)[-2:] == ["bob", f"+{right}"]
    apply_fix(redis, finding.fix)
    assert not [one for one in (await examined(url)).all(check) if one.fix]


@ensureDeferred
async def test_missing_right_to_ping_is_a_failure_with_a_fix(redis: RedisServer) -> None:
    url = as_bob(redis, "+@all", "~*", "-ping")
    finding = (await examined(url)).one("redis-reachable")
    assert finding.status is FAILURE
    assert finding.fix.endswith(" ACL SETUSER bob +ping")
    apply_fix(redis, finding.fix)
    assert (await examined(url)).one("redis-reachable").status is OK
