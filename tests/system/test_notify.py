"""What whole processes tell systemd, by the test in its place."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tests.waiting import wait_for

#: Seconds of the watchdog: it is told twice in that time that the process lives.
WATCHDOG = 0.5


class Systemd:
    """Hears what processes say."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(20)
        self.variables = {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG * 1_000_000)),
        }

    def hears(self, line: str) -> list[str]:
        """Wait for a line; what was told before it, and with it."""
        told: list[str] = []
        while line not in told:
            told += self._socket.recv(4096).decode().split("\n")
        return told

    def forget(self) -> None:
        """Take no notice of what has been told."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            self._socket.settimeout(20)

    def hears_nothing(self, seconds: float) -> bool:
        """Whether nothing is told for that long."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(20)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    hearing = Systemd(tmp_path)
    yield hearing
    hearing.close()


@pytest.fixture
def begin(tmp_path: Path, systemd: Systemd, redis: RedisServer) -> Iterator[Callable[..., Daemon]]:
    """Starts a role, which is not waited for; killed at the end."""
    started: list[Daemon] = []

    def start(role: str) -> Daemon:
        options = {
            "ingest": ["--listen", f"teltonika=tcp:{free_port()}:interface=127.0.0.1"],
            "process": ["--sink", f"sqlite:{tmp_path}/positions.sqlite"],
            "janitor": [],
        }[role]
        daemon = Daemon(
            tmp_path, role, role, "--redis", redis.url, *options, variables=systemd.variables
        )
        started.append(daemon)
        daemon.start(ready=False)
        return daemon

    yield start
    for daemon in started:
        daemon.kill()


@pytest.mark.parametrize("role", ["ingest", "process", "janitor"])
def test_a_role_is_ready_lives_and_stops(
    role: str, begin: Callable[..., Daemon], systemd: Systemd
) -> None:
    daemon = begin(role)
    told = systemd.hears("READY=1")
    assert "STATUS=ready" in told[told.index("READY=1") :]
    assert daemon.readyz()[0] == 200
    systemd.hears("WATCHDOG=1")
    systemd.hears("WATCHDOG=1")
    systemd.forget()
    assert daemon.stop() == 0
    told = systemd.hears("STOPPING=1")
    assert "READY=1" not in told
    assert systemd.hears_nothing(2 * WATCHDOG)


@pytest.mark.parametrize("role", ["ingest", "process", "janitor"])
def test_redis_away_is_neither_waited_for_nor_a_reason_for_a_restart(
    role: str, begin: Callable[..., Daemon], systemd: Systemd, redis: RedisServer
) -> None:
    redis.kill()
    daemon = begin(role)
    told = systemd.hears("READY=1")
    (status,) = (line for line in told[told.index("READY=1") :] if line.startswith("STATUS="))
    assert status.startswith("STATUS=not ready: redis")
    assert f"127.0.0.1:{redis.port}" in status
    for _ in range(5):
        systemd.hears("WATCHDOG=1")
    redis.start()
    systemd.hears("STATUS=ready")
    redis.kill()
    wait_for(lambda: daemon.readyz()[0] == 503, "it knows")
    systemd.forget()
    for _ in range(5):
        systemd.hears("WATCHDOG=1")
    assert daemon.running


def test_one_that_gives_up_was_never_ready(
    begin: Callable[..., Daemon], systemd: Systemd, tmp_path: Path
) -> None:
    (tmp_path / "positions.sqlite").write_text("this is no database, and never will be one")
    assert begin("process").wait() == 1
    assert "READY=1" not in systemd.hears("STOPPING=1")


def test_one_that_hangs_lives_no_more_and_says_where_it_ended(
    begin: Callable[..., Daemon], systemd: Systemd
) -> None:
    daemon = begin("janitor")
    systemd.hears("STATUS=ready")
    os.kill(daemon.pid, signal.SIGSTOP)
    systemd.forget()
    assert systemd.hears_nothing(3 * WATCHDOG)
    os.kill(daemon.pid, signal.SIGABRT)  # as systemd does then
    os.kill(daemon.pid, signal.SIGCONT)
    assert daemon.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in daemon.text
