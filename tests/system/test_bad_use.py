"""Mistakes of a user: one clear line, a status, and nothing left running."""

from __future__ import annotations

import socket
import sqlite3
from functools import partial
from pathlib import Path

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon, environment, run
from tests.waiting import wait_for
from tracker.position import Position


def twistd(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run ``twistd -n tracker …``, which is expected to end; status and all it said."""
    ended = run(
        "twistd", "-n", "--pidfile=", "tracker", *arguments,
        env=environment(**variables), cwd=folder,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


def test_a_mistaken_option_is_told_in_one_line(tmp_path: Path) -> None:
    status, said = twistd(tmp_path, "ingest", "--listen", "nobody=tcp:1")
    assert status == 1
    assert said.startswith("twistd tracker ingest: ")
    assert "unknown vendor 'nobody'" in said
    assert len(said.splitlines()) == 1, said


def given_up(said: str) -> list[str]:
    assert "Traceback" not in said, said
    return [line.partition("giving up: ")[2] for line in said.splitlines() if "giving up" in line]


def test_a_port_in_use_is_told(tmp_path: Path, redis: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        listen = f"teltonika=tcp:{port}:interface=127.0.0.1"
        status, said = twistd(tmp_path, "ingest", "--redis", redis.url, "--listen", listen)
    (line,) = given_up(said)
    assert str(port) in line
    assert "in use" in line
    assert status == 1


def test_a_daemon_that_cannot_have_its_port_does_not_seem_to_run(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run(
            "twistd", f"--pidfile={tmp_path / 'pid'}", f"--logfile={tmp_path / 'log'}", "tracker",
            "ingest", "--listen", f"teltonika=tcp:{port}:interface=127.0.0.1",
            cwd=tmp_path,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "cannot listen" in ended.stderr
    # Whoever started it is told before it has ended.
    wait_for(lambda: not (tmp_path / "pid").exists(), "it has ended")
    (line,) = given_up((tmp_path / "log").read_text())
    assert "in use" in line


def test_a_sink_that_cannot_be_opened_is_told(tmp_path: Path, redis: RedisServer) -> None:
    path = tmp_path / "missing" / "positions.sqlite"
    status, said = twistd(tmp_path, "process", "--redis", redis.url, "--sink", f"sqlite:{path}")
    (line,) = given_up(said)
    assert str(path) in line
    assert status == 1


def test_a_password_never_reaches_the_log(tmp_path: Path) -> None:
    url = f"redis://user:s3cret@127.0.0.1:{free_port()}/0"
    ingest = Daemon(
        tmp_path, "ingest", "ingest", "--listen", "teltonika=tcp:0", variables={"REDIS_URL": url}
    )
    ingest.start(ready=False)
    wait_for(lambda: "not ready" in ingest.text, "it has tried")
    assert ingest.stop() == 0
    assert "s3cret" not in ingest.text


def tells_why_it_is_not_ready(daemon: Daemon) -> bool:
    status, answer = daemon.readyz()
    reasons = answer.get("reasons", {}).values()
    told = any("refused" in reason for reason in reasons) and "refused" in daemon.text
    return status == 503 and told


def test_without_redis_it_says_so_and_waits_for_it(tmp_path: Path) -> None:
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
            wait_for(partial(tells_why_it_is_not_ready, daemon), "not ready, and it says why")
            assert daemon.running
        server.start()
        ingest.wait_until_ready()
        process.wait_until_ready()
        for daemon in (ingest, process):
            complaints = [line for line in daemon.text.splitlines() if "refused" in line]
            assert len(complaints) <= 2, "an outage is told once for each connection"
        assert ingest.stop() == 0
        assert process.stop() == 0
    finally:
        ingest.kill()
        process.kill()
        server.kill()


def test_two_standalones_do_not_share_a_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = Daemon(
        *(tmp_path, "first", "standalone", "--data", str(data)),
        *("--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"),
    )
    try:
        first.start()
        status, said = twistd(
            tmp_path, "standalone", "--data", str(data), "--listen", "teltonika=tcp:0"
        )
        assert status == 1
        (line,) = given_up(said)
        # Whichever it notices first: the folder's lock, the other's heartbeat, or its socket.
        noticed = (
            "in use by another process",
            "another instance has the ID",
            "another process listens on this socket",
        )
        assert any(reason in line for reason in noticed)
        assert first.readyz()[0] == 200
        assert first.stop() == 0
    finally:
        first.kill()


def test_the_demo_tells_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run("tracker-admin", "demo", "--seconds", "1", "--port", str(port))
    assert ended.returncode == 1
    assert "cannot listen" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_database_that_somebody_locks_holds_up_nothing_for_good(
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
