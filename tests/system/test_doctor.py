"""``tracker-admin doctor`` on a whole installation, and on parts of one."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin import admin
from tests.servers import RedisServer, free_port
from tests.system.conftest import Stack
from tests.system.processes import BIN, Daemon, environment, run
from tests.waiting import wait_for

#: Checks whose result depends on the machine that runs the tests. Their findings are warnings.
MACHINE = {
    *("machine-clock", "machine-files", "machine-backlog", "machine-overcommit"),
    *("machine-huge-pages", "redis-latency"),
}


def doctor(*arguments: str, code: int, **variables: str) -> str:
    """Run the doctor and return its output."""
    ended = admin("doctor", *arguments, env=environment(**variables))
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert (ended.stderr == "") is (code < 2)
    return ended.stdout


def findings(*arguments: str, code: int, **variables: str) -> dict[str, list[dict[str, Any]]]:
    """Run the doctor and return its findings by check."""
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(doctor("-o", "json", *arguments, code=code, **variables)):
        assert list(finding) == ["check", "status", "seen", "fix"]
        assert finding["status"] in ("ok", "warning", "failure", "skipped")
        assert finding["status"] not in ("warning", "failure") or finding["fix"]
        found.setdefault(finding.pop("check"), []).append(finding)
    return found


@pytest.fixture
def janitor(tmp_path: Path, redis: RedisServer) -> Iterator[Daemon]:
    """Yield a janitor that is not started, and kill it at the end."""
    daemon = Daemon(tmp_path, "janitor", "janitor", "--redis", redis.url)
    yield daemon
    daemon.kill()


def test_doctor_accepts_a_healthy_installation_and_finds_drifted_names(
    stack: Stack, janitor: Daemon
) -> None:
    janitor.start()
    fleet = stack.fleet("--devices", "20", "--interval", "0.1")
    fleet.wait_for_more(100)
    found = findings(
        *("--redis", stack.redis.url, "--sink", f"sqlite:{stack.database}"),
        *("--port", f"127.0.0.1:{stack.port}", "--port", f"localhost:{stack.port}"),
        code=0,
    )
    bad = {name for name, its in found.items() if any(one["status"] != "ok" for one in its)}
    assert bad <= MACHINE
    assert len(found["port"]) == 2
    assert found["device-registry"][0]["seen"] == "20 devices registered, all at running instances"
    assert {"redis-reachable", "stream-names", "groups", "lag", "sink-schema"} <= set(found)
    stack.account(fleet)  # the doctor has changed nothing

    stack.process.kill()
    fleet = stack.fleet("--devices", "5", "--interval", "0.1", "--first", "100")
    fleet.wait_for_more(20)
    variables = {
        "REDIS_URL": stack.redis.url,
        "TRACKER_SINK": f"sqlite:{stack.database}",
        "REDIS_TELEMETRY_STREAM": "telemetry:other,{vendor}:positions",
    }
    found = findings("--port", f"127.0.0.1:{free_port()}", code=1, **variables)
    failed = {name for name, its in found.items() if any(one["status"] == "failure" for one in its)}
    assert failed == {"stream-names", "port"}
    (drift,) = found["stream-names"]
    assert "writes telemetry:teltonika" in drift["seen"]
    assert drift["fix"].startswith("REDIS_TELEMETRY_STREAM=")
    (port,) = found["port"]
    assert "refused" in port["seen"]
    assert port["fix"].startswith("systemctl start tracker-ingest@1")


def test_table_has_a_line_for_each_finding_and_its_fix_below(redis: RedisServer) -> None:
    redis.client.config_set("maxmemory-policy", "allkeys-lru")
    heading, *lines = doctor("--redis", redis.url, code=1).splitlines()
    assert heading.split() == ["STATUS", "CHECK", "SEEN"]
    (number,) = (number for number, line in enumerate(lines) if line.startswith("failure"))
    assert lines[number].split()[1] == "redis-eviction"
    assert lines[number + 1] == (
        f"    fix: redis-cli -h 127.0.0.1 -p {redis.port} CONFIG SET maxmemory-policy noeviction"
        f" && redis-cli -h 127.0.0.1 -p {redis.port} CONFIG REWRITE"
    )
    assert "1 failure" in lines[-1]
    assert "\x1b" not in "".join(lines)


def test_exit_code_is_0_for_a_warning(redis: RedisServer) -> None:
    redis.client.config_set("appendfsync", "everysec")
    found = findings("--redis", redis.url, code=0)
    assert found["redis-fsync"][0]["status"] == "warning"


def test_passwords_are_not_shown(redis: RedisServer) -> None:
    redis.client.config_set("requirepass", "s3cret")
    for url in (
        f"redis://:s3cret@127.0.0.1:{redis.port}",
        f"redis://:s3cret@127.0.0.1:{free_port()}",
    ):
        ended = admin(
            *("doctor", "--redis", url),
            *("--sink", f"postgresql://u:s3cret@127.0.0.1:{free_port()}/x"),
        )
        assert ended.returncode == 1
        assert "s3cret" not in ended.stdout + ended.stderr


def test_doctor_ends_in_time_though_redis_and_the_database_hang(redis: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as mute:
        number = mute.getsockname()[1]
        redis.suspend()
        started = time.monotonic()
        try:
            found = findings(
                *("--redis", redis.url, "--timeout", "2"),
                *("--sink", f"postgresql://u:p@127.0.0.1:{number}/x"),
                *("--port", f"127.0.0.1:{number}"),
                code=1,
            )
        finally:
            redis.resume()
        assert time.monotonic() - started < 8
    assert found["redis-reachable"][0]["status"] == "failure"
    assert found["redis-version"][0]["status"] == "skipped"
    assert found["sink-reachable"][0]["status"] == "failure"
    assert found["port"][0]["status"] == "ok"


def test_low_open_file_limit_is_a_warning(redis: RedisServer) -> None:
    script = f'ulimit -n 1000 && exec "{BIN / "tracker-admin"}" doctor -o json --redis {redis.url}'
    ended = run("/bin/sh", "-c", script)
    (finding,) = (one for one in json.loads(ended.stdout) if one["check"] == "machine-files")
    assert finding["status"] == "warning"
    assert "1,000" in finding["seen"]
    assert finding["fix"].startswith("LimitNOFILE=65536")


def test_standalone_has_only_ok_findings(tmp_path: Path) -> None:
    data = tmp_path / "data"
    daemon = Daemon(
        *(tmp_path, "standalone", "standalone", "--data", str(data)),
        *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
    )
    try:
        daemon.start()
        url = f"unix://{data / 'redis.sock'}"
        wait_for(
            lambda: "1 instance running" in admin("doctor", "--redis", url).stdout, "a heartbeat"
        )
        found = findings("--redis", url, "--sink", f"sqlite:{data / 'positions.sqlite'}", code=0)
        bad = {name for name, its in found.items() if any(one["status"] != "ok" for one in its)}
        assert bad <= MACHINE
    finally:
        daemon.kill()
