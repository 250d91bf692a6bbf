"""Wrong use of the roles: one line, an exit code, and no process that keeps running."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import BIN, Daemon, environment, run
from tests.waiting import wait_for
from tracker.position import Position


def twistd(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run ``twistd -n tracker …``, which must end, and return its exit code and output."""
    ended = run(
        "twistd", "-n", "--pidfile=", "tracker", *arguments,
        env=environment(**variables), cwd=folder,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def test_invalid_option_is_an_error_on_one_line(tmp_path: Path) -> None:
    code, output = twistd(tmp_path, "ingest", "--listen", "acme=tcp:1")
    assert code == 1
    assert output.startswith("twistd tracker ingest: ")
    assert "unknown vendor 'acme'" in output
    assert len(output.splitlines()) == 1, output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "tracker: no role given. Use ingest, process, "),
        (("fly",), "tracker: unknown role 'fly'. Use ingest, process, "),
        (("--nodaemon", "ingest"), "tracker: option --nodaemon not recognized. See tracker --help"),
        (("ingest", "--fly"), "tracker ingest: option --fly not recognized. See tracker ingest "),
        (("ingest", "--listen", "acme=tcp:1"), "tracker ingest: --listen acme=tcp:1: unknown "),
    ],
)
def test_wrong_use_of_the_command_tracker_is_an_error_on_one_line(
    arguments: tuple[str, ...], error: str
) -> None:
    ended = run("tracker", *arguments)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith(error)
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


@pytest.mark.parametrize("command", ["tracker", "twistd tracker"])
@pytest.mark.parametrize("option", ["--help", "--version", "ingest --help"])
def test_help_into_a_closed_pipe_is_not_an_error(command: str, option: str) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = f"{BIN / command} {option}".split()
    ended = subprocess.run(
        arguments, stdout=write, stderr=subprocess.PIPE, env=environment(), check=False
    )
    os.close(write)
    assert ended.stderr == b""
    assert ended.returncode == 128 + signal.SIGPIPE


def fatal_errors(output: str) -> list[str]:
    """Return the reasons why a role gave up, and check that no traceback was logged."""
    assert "Traceback" not in output, output
    return [line.partition("giving up: ")[2] for line in output.splitlines() if "giving up" in line]


def test_port_in_use_ends_the_role(tmp_path: Path, redis: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        listen = f"teltonika=tcp:{port}:interface=127.0.0.1"
        code, output = twistd(tmp_path, "ingest", "--redis", redis.url, "--listen", listen)
    (line,) = fatal_errors(output)
    assert str(port) in line
    assert "in use" in line
    assert code == 1


def test_daemon_with_a_port_in_use_fails_at_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run(
            "twistd", f"--pidfile={tmp_path / 'pid'}", f"--logfile={tmp_path / 'log'}", "tracker",
            "ingest", "--listen", f"teltonika=tcp:{port}:interface=127.0.0.1",
            cwd=tmp_path,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "cannot listen" in ended.stderr
    # The error is reported before the process has ended.
    wait_for(lambda: not (tmp_path / "pid").exists(), "the process has ended")
    (line,) = fatal_errors((tmp_path / "log").read_text())
    assert "in use" in line


def test_sink_that_cannot_be_opened_ends_the_role(tmp_path: Path, redis: RedisServer) -> None:
    path = tmp_path / "missing" / "positions.sqlite"
    code, output = twistd(tmp_path, "process", "--redis", redis.url, "--sink", f"sqlite:{path}")
    (line,) = fatal_errors(output)
    assert str(path) in line
    assert code == 1


def test_password_is_not_logged(tmp_path: Path) -> None:
    url = f"redis://user:s3cret@127.0.0.1:{free_port()}/0"
    ingest = Daemon(
        tmp_path, "ingest", "ingest", "--listen", "teltonika=tcp:0", variables={"REDIS_URL": url}
    )
    ingest.start(ready=False)
    wait_for(lambda: "not ready" in ingest.text, "an attempt to connect")
    assert ingest.stop() == 0
    assert "s3cret" not in ingest.text


def reports_refused_connection(daemon: Daemon) -> bool:
    """Return whether a role is not ready, and gives the reason in its log and in /readyz."""
    status, response = daemon.readyz()
    reasons = response.get("reasons", {}).values()
    reported = any("refused" in reason for reason in reasons) and "refused" in daemon.text
    return status == 503 and reported


def test_role_without_redis_reports_the_reason_and_waits(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    port = free_port()
    ingest = Daemon(
        *(tmp_path, "ingest", "ingest", "--redis", server.url),
        *("--listen", f"teltonika=tcp:{port}:interface=127.0.0.1"),
    )
    process = Daemon(
        *(tmp_path, "process", "process", "--redis", server.url),
        *("--sink", f"sqlite:{tmp_path / 'positions.sqlite'}"),
    )
    try:
        ingest.start(ready=False)
        process.start(ready=False)
        for daemon in (ingest, process):
            wait_for(partial(reports_refused_connection, daemon), "not ready, with the reason")
            assert daemon.running
        server.start()
        ingest.wait_until_ready()
        process.wait_until_ready()
        for daemon, connections in ((ingest, 3), (process, 2)):
            lines = [line for line in daemon.text.splitlines() if "refused" in line]
            assert len(lines) <= connections, "an outage is logged once for each connection"
        assert ingest.stop() == 0
        assert process.stop() == 0
    finally:
        ingest.kill()
        process.kill()
        server.kill()


def test_second_standalone_with_the_same_folder_fails(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = Daemon(
        *(tmp_path, "first", "standalone", "--data", str(data)),
        *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
    )
    try:
        first.start()
        code, output = twistd(
            tmp_path, "standalone", "--data", str(data), "--listen", "teltonika=tcp:0"
        )
        assert code == 1
        (line,) = fatal_errors(output)
        # The reason is the folder's lock, the other instance's heartbeat, or its socket.
        reasons = (
            "in use by another process",
            "another instance has the ID",
            "another process listens on this socket",
        )
        assert any(reason in line for reason in reasons)
        assert first.readyz()[0] == 200
        assert first.stop() == 0
    finally:
        first.kill()


def test_demo_with_a_port_in_use_is_an_error_on_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run("tracker-admin", "demo", "--seconds", "1", "--port", str(port))
    assert ended.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}: address already in use. " in ended.stderr
    assert "DEMO_PORT" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_processor_recovers_after_the_database_was_locked(
    tmp_path: Path, redis: RedisServer
) -> None:
    path = tmp_path / "positions.sqlite"
    process = Daemon(
        *(tmp_path, "process", "process", "--sink", f"sqlite:{path}", "--redis", redis.url)
    )
    process.start()
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        entry = Position(
            "356307042441013", "2026-11-22T10:00:00.000Z", 1, 2, 3, 4, 5, 6, 0, 0, {}
        ).to_entry("8")
        redis.client.xadd("telemetry:teltonika", entry._asdict())
        wait_for(lambda: process.readyz()[0] == 503, "not ready")
        assert "locked" in str(process.readyz()[1])
        other.execute("ROLLBACK")
        process.wait_until_ready()
    finally:
        other.close()
        process.kill()
