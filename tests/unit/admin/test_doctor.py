"""The doctor's rules on given facts, and the output of its findings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import click
import pytest
from click.testing import CliRunner
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tracker.admin.cli import main
from tracker.admin.doctor import leftovers, machine, redis, streams
from tracker.admin.doctor.server import is_here, redis_cli, rights_in
from tracker.admin.report import as_json, as_table, exit_code
from tracker.errors import Refused
from tracker.log.redis.lag import ConsumerLag, GroupLag, StreamLag
from tracker.observe.examination import Examination, in_thread
from tracker.observe.findings import Finding, Status, failure, ok, skipped, warning
from tracker.observe.space import judge_free_space
from tracker.redis.address import RedisAddress
from tracker.storage.checks import no_psycopg
from tracker.storage.migrations import Migration, Schema, judge_schema

PACKAGE = Path(__file__).parents[3] / "tracker"
WARNING, FAILURE, SKIPPED, OK = Status.WARNING, Status.FAILURE, Status.SKIPPED, Status.OK
CLI = "redis-cli"
SOME = (ok("well"), warning("so\nso", "do\x1b[2J"), skipped("away"))


# Rules, at their limits and one beyond.


@pytest.mark.parametrize(
    ("info", "status"),
    [
        ({"redis_version": "7.0.0"}, OK),
        ({"redis_version": "6.2.14"}, FAILURE),
        ({"redis_version": "8.2.1"}, OK),
        ({"redis_version": "7.2.4", "valkey_version": "8.0.0"}, OK),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.9"}, FAILURE),
        ({"redis_version": "7.2.4", "valkey_version": "10.0.0"}, OK),
    ],
)
def test_old_version_of_redis_or_valkey_is_a_failure(info: dict[str, str], status: Status) -> None:
    assert redis.version(info, CLI).status is status


@pytest.mark.parametrize(
    ("used", "limit", "status"),
    [
        (10, 0, OK),
        (749, 1000, OK),
        (750, 1000, WARNING),
        (899, 1000, WARNING),
        (900, 1000, FAILURE),
    ],
)
def test_used_memory_is_compared_with_maxmemory(used: int, limit: int, status: Status) -> None:
    info = {"used_memory": str(used), "maxmemory": str(limit)}
    assert redis.memory(info, CLI).status is status


@pytest.mark.parametrize(
    ("typical", "status"), [(0.005, OK), (0.0051, WARNING), (0.1, WARNING), (0.101, FAILURE)]
)
def test_median_latency_determines_the_status(typical: float, status: Status) -> None:
    finding = redis.judge_latency(typical, 0.5, CLI)
    assert finding.status is status
    assert "500.0 ms" in finding.seen


@pytest.mark.parametrize(
    ("ahead", "status"),
    [(1.0, OK), (-1.0, OK), (1.1, WARNING), (-30.0, WARNING), (30.1, FAILURE), (-31, FAILURE)],
)
def test_clock_ahead_or_behind_is_reported(ahead: float, status: Status) -> None:
    assert redis.judge_clock(ahead).status is status


def test_each_kind_of_failed_write_to_disk_is_a_finding() -> None:
    names = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
    found = list(redis.writes(dict.fromkeys(names, "err"), CLI))
    assert [one.status for one in found] == [FAILURE] * 3
    assert all(name in one.seen for name, one in zip(names, found, strict=True))
    assert [one.status for one in redis.writes({}, CLI)] == [OK]


@pytest.mark.parametrize(
    ("info", "fix"),
    [
        ({"role": "slave", "master_host": "10.0.0.7", "master_port": "6380"},
         "REDIS_URL=redis://USER:PASSWORD@10.0.0.7:6380/2"),
        ({"role": "slave", "master_host": "fe80::1", "master_port": "6380"},
         "REDIS_URL='redis://USER:PASSWORD@[fe80::1]:6380/2'"),
        ({"redis_mode": "sentinel"}, "REDIS_URL=redis+sentinel://cache:26379/MASTER"),
    ],
)  # fmt: skip
def test_server_that_is_not_a_master_is_a_failure(info: dict[str, str], fix: str) -> None:
    address = RedisAddress.from_url("redis://bob:s3cret@cache:26379/2")
    finding = redis.replication(info, address)
    assert finding.status is FAILURE
    assert finding.fix.partition("  #")[0] == fix


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("connection refused (redis://cache)", "systemctl start redis"),
        ("login failed: WRONGPASS invalid username-password pair", "REDIS_URL="),
        ("NOAUTH Authentication required.", "REDIS_URL="),
        (
            "LOADING Redis is loading the dataset in memory",
            "redis-cli -h cache -p 6379 --askpass I",
        ),
        ("no reply within 3s", "redis-cli -h cache -p 6379 --askpass PING"),
        ("not done within 10s", "redis-cli -h cache -p 6379 --askpass PING"),
        ("DNS lookup failed: no results for hostname lookup: cache.", "nc -vz cache 6379"),
        ("certificate verify failed", "REDIS_URL='rediss://"),
        ("no Sentinel names the master: a:26379: unknown master x", "redis-cli -p 26379 SENTINEL"),
    ],
)
def test_fix_of_an_unusable_redis_depends_on_the_reason(reason: str, fix: str) -> None:
    finding = redis.unreachable(RedisAddress.from_url("redis://:s3cret@cache"), reason)
    assert finding.status is FAILURE
    assert finding.fix.startswith(fix)
    assert "s3cret" not in repr(finding)


@pytest.mark.parametrize(
    ("idle", "status"), [((10.0, 90.0), OK), ((60.0,), OK), ((61.0, 90.0), FAILURE), ((), FAILURE)]
)
def test_group_without_a_running_consumer_is_a_failure(
    idle: tuple[float, ...], status: Status
) -> None:
    consumers = [ConsumerLag(f"host-{number}", 0, one) for number, one in enumerate(idle)]
    lag = StreamLag("s", 1, 1, [GroupLag("processor", 0, 0, 0.0, consumers)])
    assert streams.judge_group("s", lag, True).status is status


def test_missing_stream_is_a_failure_only_if_an_instance_writes_it() -> None:
    assert streams.judge_group("s", None, False).status is SKIPPED
    assert streams.judge_group("s", None, True).status is FAILURE


@pytest.mark.parametrize(
    ("age", "status"), [(60.0, OK), (60.1, WARNING), (600.0, WARNING), (600.1, FAILURE)]
)
def test_age_of_the_oldest_entry_determines_the_status_of_the_lag(
    age: float, status: Status
) -> None:
    assert streams.judge_lag("s", GroupLag("processor", None, 5, age, [])).status is status


def test_stream_that_no_processor_reads_is_a_failure() -> None:
    living = {"eu-1": ["a"], "eu-2": ["a", "b"]}
    found = list(streams.judge_names(living, ["a", "c"], {"b"}))
    assert [one.status for one in found] == [OK, OK, FAILURE]
    assert found[2].fix.startswith("REDIS_TELEMETRY_STREAM='telemetry:{vendor},b'  #")


def test_leftovers_of_ended_instances_are_warnings() -> None:
    assert leftovers.judge_device_registry(3, {}).status is OK
    assert leftovers.judge_device_registry(3, {"eu-1": 2}).status is WARNING
    assert leftovers.judge_orphans({}).status is OK
    assert leftovers.judge_orphans({"eu-1": 0}).status is WARNING
    assert leftovers.judge_waiting(5, 0).status is OK
    assert leftovers.judge_waiting(5, 1).status is WARNING


@pytest.mark.parametrize(
    ("found", "status", "fix"),
    [
        (Schema(1, {2: "0.1.0"}), OK, ""),
        (Schema(1, {2: "0.1.0", 3: "0.1.0"}), OK, ""),
        (Schema(1), FAILURE, "tracker-admin migrate --sink 'sqlite:a b'"),
        (Schema(), FAILURE, "tracker-admin migrate --sink 'sqlite:a b'"),
        (Schema(2), FAILURE, "/opt/tracker/bin/pip install --upgrade tracker-plane"),
        (Schema(1, {3: "99"}), FAILURE, "/opt/tracker/bin/pip install --upgrade tracker-plane"),
    ],
)
def test_schema_that_cannot_be_used_is_a_failure(found: Schema, status: Status, fix: str) -> None:
    known = (Migration(1, "", None), Migration(2, "", "0.1.0"))
    finding = judge_schema(found, known, "a b", "sqlite:a b")
    assert (finding.status, finding.fix) == (status, fix)


def test_missing_psycopg_is_a_failure() -> None:
    finding = no_psycopg("No module named 'psycopg'")
    assert finding.status is FAILURE
    assert finding.fix == "/opt/tracker/bin/pip install 'tracker-plane[postgresql]'"


@pytest.mark.parametrize(
    ("free", "status"),
    [(1 << 30, OK), ((1 << 30) - 1, WARNING), (100 << 20, WARNING), ((100 << 20) - 1, FAILURE)],
)
def test_little_free_disk_space_is_a_warning_or_a_failure(free: int, status: Status) -> None:
    assert judge_free_space(free, "/var").status is status


# Checks of this machine.


def test_clock_of_this_machine_can_be_read() -> None:
    assert machine.clock().status in (OK, WARNING)


def test_unsynchronised_clock_is_a_warning() -> None:
    assert machine.judge_clock(15_999_999).status is OK
    finding = machine.judge_clock(16_000_000)
    assert finding.status is WARNING
    assert finding.fix.startswith("timedatectl set-ntp true")


@pytest.mark.parametrize(("hard", "status"), [(65_536, OK), (65_535, WARNING), (None, OK)])
def test_low_open_file_limit_is_a_warning(hard: int | None, status: Status) -> None:
    finding = machine.judge_files(hard)
    assert finding.status is status
    assert finding.fix.startswith("LimitNOFILE=65536") is (status is WARNING)


@pytest.mark.parametrize(
    ("check", "file", "good", "bad", "fix"),
    [
        (machine.backlog, "proc/sys/net/core/somaxconn", "1024\n", "1023\n",
         "sysctl -w net.core.somaxconn=1024"),
        (machine.overcommit, "proc/sys/vm/overcommit_memory", "1\n", "0\n",
         "sysctl -w vm.overcommit_memory=1"),
        (machine.huge_pages, "sys/kernel/mm/transparent_hugepage/enabled",
         "always [madvise] never\n", "[always] madvise never\n",
         "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"),
    ],
)  # fmt: skip
def test_unsuitable_kernel_setting_is_a_warning_with_a_fix(
    tmp_path: Path, check: Any, file: str, good: str, bad: str, fix: str
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(good)
    assert check(tmp_path).status is OK
    path.write_text(bad)
    assert check(tmp_path).status is WARNING
    assert check(tmp_path).fix.startswith(fix)


def test_kernel_without_huge_pages_passes_the_check(tmp_path: Path) -> None:
    assert machine.huge_pages(tmp_path).status is OK


# Command lines for Redis.


@pytest.mark.parametrize(
    ("url", "line", "here"),
    [
        ("redis://localhost", "redis-cli -h localhost -p 6379", True),
        ("redis://127.0.0.2:7000/3", "redis-cli -h 127.0.0.2 -p 7000 -n 3", True),
        ("redis://[::1]", "redis-cli -h ::1 -p 6379", True),
        ("redis://localhost.example", "redis-cli -h localhost.example -p 6379", False),
        ("unix:///run/a%20b.sock", "redis-cli -s '/run/a b.sock'", True),
        ("redis://bob:s3cret@cache", "redis-cli -h cache -p 6379 --askpass", False),
        ("rediss://:s3cret@cache?ca=/etc/ca.pem",
         "redis-cli -h cache -p 6379 --tls --cacert /etc/ca.pem --askpass", False),
        ("redis+sentinel://a,b/master", "redis-cli", False),
    ],
)  # fmt: skip
def test_redis_cli_command_has_the_options_of_the_url(url: str, line: str, here: bool) -> None:
    address = RedisAddress.from_url(url)
    assert redis_cli(address) == line
    assert is_here(address) is here


@pytest.mark.parametrize(
    ("text", "rights"),
    [
        ("User bob has no permissions to run the 'xadd' command", {"+xadd"}),
        ("NOPERM this user has no permissions to run the 'config|get' command", {"+config|get"}),
        ("This user has no permissions to access the 'a:*' key", {"~a:*"}),
        ("User bob has no permissions to access the '' key", {"~"}),
        ("ERR unknown command", set()),
    ],
)
def test_missing_rights_are_read_from_an_error_of_redis(text: str, rights: set[str]) -> None:
    assert rights_in(text) == rights


# Running checks.


def test_exception_in_a_check_is_a_finding_and_other_checks_run() -> None:
    def refused(error: Exception) -> Finding | None:
        return skipped(f"no: {error}", "grant") if isinstance(error, Refused) else None

    examination = Examination(Clock(), 10, expected=refused)

    def lazily() -> Iterator[Finding]:
        yield ok("one")
        raise KeyError("used_memory")

    def refuse() -> Finding:
        raise Refused("NOPERM")

    async def make() -> None:
        await examination.make("broken", lazily)
        await examination.make("refused", refuse)
        await examination.make("fine", lambda: [ok("a"), ok("b")])

    Deferred.fromCoroutine(make())
    assert examination.findings == [
        Finding(
            SKIPPED,
            "the check failed with an internal error: KeyError: 'used_memory'",
            check="broken",
        ),
        Finding(SKIPPED, "no: NOPERM", "grant", "refused"),
        Finding(OK, "a", check="fine"),
        Finding(OK, "b", check="fine"),
    ]


def test_checks_are_skipped_when_no_time_is_left() -> None:
    clock = Clock()
    examination = Examination(clock, 10)

    async def hang() -> Finding:
        await Deferred()
        return ok("never")

    async def make() -> None:
        await examination.make("first", hang)
        await examination.make("second", hang, late=lambda why: failure(why, "fix"))

    done = Deferred.fromCoroutine(make())
    clock.advance(9.9)
    assert not examination.findings
    clock.advance(0.1)
    clock.advance(0)
    assert done.called
    assert [(one.check, one.status, one.seen) for one in examination.findings] == [
        ("first", SKIPPED, "not done within 10s"),
        ("second", FAILURE, "not done within 10s"),
    ]
    assert not examination.has_time


def test_exception_in_a_thread_fails_its_deferred() -> None:
    called = Event()

    class Reactor:
        def callFromThread(self, function: Any, *arguments: Any) -> None:
            function(*arguments)
            called.set()

    def fail() -> None:
        raise ZeroDivisionError

    failures: list[Any] = []
    reactor: Any = Reactor()
    deferred = in_thread(reactor, fail)
    assert called.wait(20)
    deferred.addErrback(failures.append)
    assert failures[0].check(ZeroDivisionError)


# Output.


def test_exit_code_is_1_if_a_check_failed() -> None:
    assert exit_code(SOME) == 0
    assert exit_code([*SOME, failure("bad", "do")]) == 1


def test_table_has_a_line_for_each_finding_with_its_fix_below() -> None:
    plain = click.unstyle(as_table(SOME))
    assert plain.splitlines() == [
        "STATUS   CHECK  SEEN",
        "ok              well",
        "warning         so so",
        "    fix: do\\x1b[2J",
        "skipped         away",
        "1 ok, 1 warning, 0 failures, 1 skipped",
    ]


def test_json_object_has_check_status_seen_and_fix() -> None:
    assert json.loads(as_json(SOME))[:2] == [
        {"check": "", "status": "ok", "seen": "well", "fix": None},
        {"check": "", "status": "warning", "seen": "so\nso", "fix": "do\x1b[2J"},
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--redis", "http://:s3cret@x"), "Redis URL: must begin with"),
        (("--sink", "x:s3cret"), "unknown sink 'x'"),
        (("--sink", "postgresql://u:s3cret@h:port/x"), "port must be a number"),
        (("--port", "5027"), "'5027' is not an address"),
        (("--port", "host:0"), "'host:0' is not an address"),
        (("--port", "::1:5027"), "'::1:5027' is not an address"),
        (("--timeout", "0"), "--timeout"),
        (("-o", "xml"), "'xml' is not one of"),
        (("everything",), "unexpected extra argument"),
    ],
)
def test_invalid_option_is_a_usage_error_without_secrets(
    arguments: tuple[str, ...], text: str
) -> None:
    result = CliRunner().invoke(main, ["doctor", *arguments])
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())
    assert "s3cret" not in result.output
