"""``tracker-admin doctor`` on a whole installation and on parts of one."""

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

#: What depends on the machine that runs the tests; it only warns.
MACHINE = {
    *("machine-clock", "machine-files", "machine-backlog", "machine-overcommit"),
    *("machine-huge-pages", "redis-latency"),
}


def doctor(*arguments: str, status: int, **variables: str) -> str:
    """Run it; what it prints."""
    ended = admin("doctor", *arguments, env=environment(**variables))
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert (ended.stderr == "") is (status < 2)
    return ended.stdout


def findings(*arguments: str, status: int, **variables: str) -> dict[str, list[dict[str, Any]]]:
    """The same as JSON, by check."""
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(doctor("-o", "json", *arguments, status=status, **variables)):
        assert list(finding) == ["check", "status", "seen", "fix"]
        assert finding["status"] in ("ok", "warning", "failure", "skipped")
        assert finding["status"] not in ("warning", "failure") or finding["fix"]
        found.setdefault(finding.pop("check"), []).append(finding)
    return found


@pytest.fixture
def janitor(tmp_path: Path, redis: RedisServer) -> Iterator[Daemon]:
    """Killed at the end."""
    daemon = Daemon(tmp_path, "janitor", "janitor", "--redis", redis.url)
    yield daemon
    daemon.kill()


def test_a_healthy_installation(stack: Stack, janitor: Daemon) -> None:
    janitor.start()
    fleet = stack.fleet("--devices", "20", "--interval", "0.1")
    fleet.wait_for_more(100)
    found = findings(
        *("--redis", stack.redis.url, "--sink", f"sqlite:{stack.database}"),
        *("--port", f"127.0.0.1:{stack.port}", "--port", f"localhost:{stack.port}"),
        status=0,
    )
    bad = {name for name, its in found.items() if any(one["status"] != "ok" for one in its)}
    assert bad <= MACHINE
    assert len(found["port"]) == 2
    assert found["device-registry"][0]["seen"] == "20 devices, all at living instances"
    assert {"redis-reachable", "stream-names", "groups", "lag", "sink-schema"} <= set(found)
    stack.account(fleet)  # and nothing has changed

    stack.process.kill()
    fleet = stack.fleet("--devices", "5", "--interval", "0.1", "--first", "100")
    fleet.wait_for_more(20)
    variables = {
        "REDIS_URL": stack.redis.url,
        "TRACKER_SINK": f"sqlite:{stack.database}",
        "REDIS_TELEMETRY_STREAM": "telemetry:other,{vendor}:positions",
    }
    found = findings("--port", f"127.0.0.1:{free_port()}", status=1, **variables)
    failed = {name for name, its in found.items() if any(one["status"] == "failure" for one in its)}
    assert failed == {"stream-names", "port"}
    (drift,) = found["stream-names"]
    assert "writes telemetry:teltonika" in drift["seen"]
    assert drift["fix"].startswith("REDIS_TELEMETRY_STREAM=")
    (port,) = found["port"]
    assert "refused" in port["seen"]
    assert port["fix"].startswith("systemctl start tracker-ingest@1")


def test_a_table_can_be_grepped(redis: RedisServer) -> None:
    redis.client.config_set("maxmemory-policy", "allkeys-lru")
    heading, *lines = doctor("--redis", redis.url, status=1).splitlines()
    assert heading.split() == ["STATUS", "CHECK", "SEEN"]
    (number,) = (number for number, line in enumerate(lines) if line.startswith("failure"))
    assert lines[number].split()[1] == "redis-eviction"
    assert lines[number + 1] == (
        f"    fix: redis-cli -h 127.0.0.1 -p {redis.port} CONFIG SET maxmemory-policy noeviction"
        f" && redis-cli -h 127.0.0.1 -p {redis.port} CONFIG REWRITE"
    )
    assert "1 failure" in lines[-1]
    assert "\x1b" not in "".join(lines)


def test_a_warning_is_no_failure(redis: RedisServer) -> None:
    redis.client.config_set("appendfsync", "everysec")
    found = findings("--redis", redis.url, status=0)
    assert found["redis-fsync"][0]["status"] == "warning"


def test_no_secret_is_shown(redis: RedisServer) -> None:
    redis.client.config_set("requirepass", "s3cret")
    for url in (
        f"redis://:s3cret@127.0.0.1:{redis.port}",
        f"redis://:s3cret@127.0.0.1:{free_port()}",
    ):
        said = admin(
            *("doctor", "--redis", url),
            *("--sink", f"postgresql://u:s3cret@127.0.0.1:{free_port()}/x"),
        )
        assert said.returncode == 1
        assert "s3cret" not in said.stdout + said.stderr


def test_it_ends_though_all_hangs(redis: RedisServer) -> None:
    """A Redis that is stopped, and a database and a port that say nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as mute:
        number = mute.getsockname()[1]
        redis.suspend()
        begun = time.monotonic()
        try:
            found = findings(
                *("--redis", redis.url, "--timeout", "2"),
                *("--sink", f"postgresql://u:p@127.0.0.1:{number}/x"),
                *("--port", f"127.0.0.1:{number}"),
                status=1,
            )
        finally:
            redis.resume()
        assert time.monotonic() - begun < 8
    assert found["redis-reachable"][0]["status"] == "failure"
    assert found["redis-version"][0]["status"] == "skipped"
    assert found["sink-reachable"][0]["status"] == "failure"
    assert found["port"][0]["status"] == "ok"


def test_the_limit_of_open_files(redis: RedisServer) -> None:
    script = f'ulimit -n 1000 && exec "{BIN / "tracker-admin"}" doctor -o json --redis {redis.url}'
    ended = run("/bin/sh", "-c", script)
    (finding,) = (one for one in json.loads(ended.stdout) if one["check"] == "machine-files")
    assert finding["status"] == "warning"
    assert "1000 files" in finding["seen"]
    assert finding["fix"].startswith("LimitNOFILE=65536")


def test_standalone_is_healthy(tmp_path: Path) -> None:
    data = tmp_path / "data"
    daemon = Daemon(
        *(tmp_path, "standalone", "standalone", "--data", str(data)),
        *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
    )
    try:
        daemon.start()
        url = f"unix://{data / 'redis.sock'}"
        wait_for(lambda: "1 alive" in admin("doctor", "--redis", url).stdout, "a beat")
        found = findings("--redis", url, "--sink", f"sqlite:{data / 'positions.sqlite'}", status=0)
        bad = {name for name, its in found.items() if any(one["status"] != "ok" for one in its)}
        assert bad <= MACHINE
    finally:
        daemon.kill()
