"""Notifications of whole processes, received by the test in the place of systemd."""

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

#: Seconds of the watchdog; a process notifies it twice in that time.
WATCHDOG = 0.5


class Systemd:
    """Receives the notifications of a process."""

    def __init__(self, folder: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(20)
        self.variables = {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG * 1_000_000)),
        }

    def receive_until(self, line: str) -> list[str]:
        """Wait for a line; return all lines received until then."""
        lines: list[str] = []
        while line not in lines:
            lines += self._socket.recv(4096).decode().split("\n")
        return lines

    def discard(self) -> None:
        """Discard all pending notifications."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            self._socket.settimeout(20)

    def receives_nothing(self, seconds: float) -> bool:
        """Return True if no notification arrives for that time."""
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
    systemd = Systemd(tmp_path)
    yield systemd
    systemd.close()


@pytest.fixture
def begin(tmp_path: Path, systemd: Systemd, redis: RedisServer) -> Iterator[Callable[..., Daemon]]:
    """Yield a function that starts a role without waiting for it; kill the roles at the end."""
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
def test_role_notifies_ready_watchdog_and_stopping(
    role: str, begin: Callable[..., Daemon], systemd: Systemd
) -> None:
    daemon = begin(role)
    lines = systemd.receive_until("READY=1")
    assert "STATUS=ready" in lines[lines.index("READY=1") :]
    assert daemon.readyz()[0] == 200
    systemd.receive_until("WATCHDOG=1")
    systemd.receive_until("WATCHDOG=1")
    systemd.discard()
    assert daemon.stop() == 0
    lines = systemd.receive_until("STOPPING=1")
    assert "READY=1" not in lines
    assert systemd.receives_nothing(2 * WATCHDOG)


@pytest.mark.parametrize("role", ["ingest", "process", "janitor"])
def test_outage_of_redis_delays_neither_ready_nor_watchdog(
    role: str, begin: Callable[..., Daemon], systemd: Systemd, redis: RedisServer
) -> None:
    redis.kill()
    daemon = begin(role)
    lines = systemd.receive_until("READY=1")
    (status,) = (line for line in lines[lines.index("READY=1") :] if line.startswith("STATUS="))
    assert status.startswith("STATUS=not ready: redis")
    assert f"127.0.0.1:{redis.port}" in status
    for _ in range(5):
        systemd.receive_until("WATCHDOG=1")
    redis.start()
    systemd.receive_until("STATUS=ready")
    redis.kill()
    wait_for(lambda: daemon.readyz()[0] == 503, "the role is not ready")
    systemd.discard()
    for _ in range(5):
        systemd.receive_until("WATCHDOG=1")
    assert daemon.running


def test_aborted_role_never_notifies_ready(
    begin: Callable[..., Daemon], systemd: Systemd, tmp_path: Path
) -> None:
    (tmp_path / "positions.sqlite").write_text("this file is not a database")
    assert begin("process").wait() == 1
    assert "READY=1" not in systemd.receive_until("STOPPING=1")


def test_hanging_role_stops_watchdog_and_dumps_its_stack(
    begin: Callable[..., Daemon], systemd: Systemd
) -> None:
    daemon = begin("janitor")
    systemd.receive_until("STATUS=ready")
    os.kill(daemon.pid, signal.SIGSTOP)
    systemd.discard()
    assert systemd.receives_nothing(3 * WATCHDOG)
    os.kill(daemon.pid, signal.SIGABRT)  # as the watchdog of systemd does
    os.kill(daemon.pid, signal.SIGCONT)
    assert daemon.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in daemon.text
