"""Log lines of a normal start, and exit codes of processes that cannot start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.process import OwnProcess
from tests.servers import RedisServer, free_port
from tests.system.processes import BIN, environment, run
from tests.waiting import wait_for


class Program(OwnProcess):
    """``tracker ROLE``, as a user types it, with its output in a file."""

    def __init__(self, folder: Path, *arguments: str, user: str | None = None) -> None:
        super().__init__()
        self._log = folder / f"{arguments[0]}.log"
        variables = environment(HOME=str(folder), XDG_RUNTIME_DIR="")
        as_user = [] if user is None else ["setpriv", f"--reuid={user}", "--clear-groups"]
        command = [*as_user, str(BIN / "tracker"), *arguments]
        self._launch(self._log, *command, env=variables, cwd=folder)

    def lines(self) -> list[str]:
        """Return the lines of the log, without their times."""
        return [line.partition(" ")[2] for line in self._log.read_text().splitlines()]

    def wait_for(self, text: str) -> None:
        """Wait until a line contains a text; fail if the process ends."""
        assert self._process is not None

        def is_there() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            return any(text in line for line in self.lines())

        wait_for(is_there, text, timeout=30)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that every user may use."""
    path = Path(mkdtemp(prefix="tracker-starts-", dir="/tmp"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def unprivileged() -> str | None:
    """Return the user to whom root switches; None if this is not root, or others cannot use BIN."""
    # The shell starts Python without the capabilities that setpriv still has.
    command = ["setpriv", "--reuid=daemon", "--clear-groups", "sh", "-c", f"{BIN / 'python'} -c ''"]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        return None
    return "daemon"


def roles(redis: RedisServer, folder: Path) -> dict[str, tuple[str, ...]]:
    """Return role → its command line."""
    listen = f"teltonika=tcp:{free_port()}:interface=127.0.0.1"
    given = ("--redis", redis.url)
    return {
        "ingest": ("ingest", *given, "--listen", listen),
        "process": ("process", *given, "--sink", f"sqlite:{folder / 'positions.sqlite'}"),
        "janitor": ("janitor", *given),
        "console": ("console", *given, "--listen", f"tcp:{free_port()}"),
        "standalone": (
            *("standalone", "--data", str(folder / "data"), "--listen", listen),
            *("--console", f"tcp:{free_port()}"),
        ),
    }


@pytest.mark.parametrize("role", ["ingest", "process", "janitor", "console", "standalone"])
def test_start_prints_no_warning(role: str, redis: RedisServer, folder: Path) -> None:
    program = Program(folder, *roles(redis, folder)[role], user=unprivileged())
    try:
        program.wait_for("Health#info] ready")
        assert program.stop() == 0
        for level in ("#warn]", "#error]", "#critical]", "Traceback"):
            assert [line for line in program.lines() if level in line] == []
    finally:
        program.kill()


def test_last_line_of_a_start_is_the_address_of_the_console(
    redis: RedisServer, folder: Path
) -> None:
    arguments = roles(redis, folder)["standalone"]
    program = Program(folder, *arguments)
    try:
        program.wait_for("] console: ")
        port = arguments[-1].removeprefix("tcp:")
        last = program.lines()[-1].partition("] ")[2]
        assert last == f"console: http://127.0.0.1:{port}/"
        assert "Redis has" not in str(program.lines())
    finally:
        program.kill()


def test_second_role_of_a_folder_starts(redis: RedisServer, folder: Path) -> None:
    given = roles(redis, folder)
    programs = [Program(folder, *given[role]) for role in ("ingest", "janitor")]
    try:
        for program in programs:
            program.wait_for("Health#info] ready")
        assert not (folder / "twistd.pid").exists()
    finally:
        for program in programs:
            program.kill()


def daemonized(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``twistd tracker`` in the background, and return what its first process reports."""
    pid, log = folder / "pid", folder / "log"
    return run("twistd", f"--pidfile={pid}", f"--logfile={log}", "tracker", *arguments, cwd=folder)


@pytest.mark.parametrize("failing", ["process", "ingest", "standalone"])
def test_daemon_that_gives_up_after_its_start_is_reported(
    failing: str, redis: RedisServer, folder: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        listen = ("--listen", "teltonika=tcp:0:interface=127.0.0.1")
        arguments, reason = {
            "process": (
                ("--redis", redis.url, "--sink", f"sqlite:{folder}/missing/x"),
                "cannot open",
            ),
            "ingest": (
                ("--redis", redis.url, *listen, "--control", f"tcp:{taken}:plaintext=1"),
                "cannot listen on --control",
            ),
            "standalone": (("--data", "/proc/x", *listen), "cannot create the data folder /proc/x"),
        }[failing]
        ended = daemonized(folder, failing, *arguments)
    assert ended.returncode == 1
    assert reason in ended.stderr
    wait_for(lambda: not (folder / "pid").exists(), "the process has ended")


@pytest.mark.parametrize("up", [True, False], ids=["ready", "not ready"])
def test_daemon_is_reported_once_it_is_ready_or_known_not_to_be(
    up: bool, redis: RedisServer, folder: Path
) -> None:
    url = redis.url if up else f"redis://127.0.0.1:{free_port()}/0"
    ended = daemonized(folder, "janitor", "--redis", url)
    number = int((folder / "pid").read_text())
    try:
        assert ended.returncode == 0, ended.stderr
        expected = "Health#info] ready" if up else "not ready: redis (janitor): connection refused"
        assert expected in (folder / "log").read_text()
    finally:
        os.kill(number, signal.SIGTERM)
        wait_for(lambda: not (folder / "pid").exists(), "the process has ended")


def test_application_file_that_gives_up_exits_with_1(folder: Path) -> None:
    tac = Path(__file__).parents[2] / "tap" / "standalone.tac"
    ended = run(
        *("twistd", "-ny", str(tac), "--pidfile="),
        cwd=folder,
        env=environment(TRACKER_DATA="/proc/x"),
    )
    assert ended.returncode == 1
    assert "giving up: cannot create the data folder /proc/x" in ended.stdout
