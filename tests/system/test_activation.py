"""Ingest on a port that systemd holds, as with tracker-ingest.socket."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import BIN, Daemon, environment
from tests.system.raw import STREAM, RawDevice
from tests.waiting import wait_for

UNITS = Path(__file__).parents[2] / "systemd"
DEVICE = "356307042441013"


def read(unit: Path) -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.read_string(unit.read_text())
    return parser


def socket_name() -> str:
    name = read(UNITS / "tracker-ingest.socket")["Socket"]["FileDescriptorName"]
    assert name
    return name


def command(http: int) -> list[str]:
    """Return the command of the unit's drop-in, with the HTTP port of the test."""
    service = read(UNITS / "tracker-ingest@socket.service.d" / "socket.conf")["Service"]
    words = service["ExecStart"].replace("/opt/tracker/bin", str(BIN)).split()
    assert words[-1] == "$TRACKER_INGEST_OPTIONS"
    assert f"teltonika=systemd:domain=INET:name={socket_name()}" in words
    return [word.replace("${TRACKER_HTTP}", f"tcp:{http}") for word in words[:-1]]


class Activated(Daemon):
    """An ingest that inherits a listening socket from the test, like from systemd."""

    def __init__(
        self, folder: Path, redis: RedisServer, listening: socket.socket, proxy: str = ""
    ) -> None:
        super().__init__(folder, "ingest", "")
        self._proxy = proxy
        self._listening = listening
        self._variables = environment(
            REDIS_URL=redis.url,
            LISTEN_FDS="1",
            LISTEN_FDNAMES=socket_name(),
            INSTANCE_ID="socket",
        )

    def start(self, ready: bool = True) -> None:
        """See Daemon."""
        # The process needs the socket as descriptor 3, and its own id as LISTEN_PID.
        words = ["sh", "-c", 'LISTEN_PID=$$ exec "$@" 3<&0 0</dev/null', "sh"]
        arguments = command(self._http)
        if self._proxy:
            arguments = [word.replace("=systemd:", "=haproxy:systemd:") for word in arguments]
            arguments += ["--proxy", self._proxy]
        self._launch(
            self.log,
            *words,
            *arguments,
            stdin=self._listening.fileno(),
            env=self._variables,
            cwd=self._folder,
        )
        if ready:
            self.wait_until_ready()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server


def test_devices_that_connect_during_a_restart_are_served_after_it(
    tmp_path: Path, redis: RedisServer, listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    ingest = Activated(tmp_path, redis, listening)
    try:
        for number in range(3):
            with RawDevice(port) as device:  # no process accepts yet
                device.socket.settimeout(40)
                ingest.start()
                assert device.login(DEVICE) == b"\x01"
                assert device.deliver(number)
                wait_for(lambda: is_kept_alive(port), "keep-alive is on")
                ingest.kill()
        assert redis.client.xlen(STREAM) == 3
        assert ": listening on " in ingest.text
    finally:
        ingest.kill()


def test_activated_port_accepts_a_proxy(
    tmp_path: Path, redis: RedisServer, listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    ingest = Activated(tmp_path, redis, listening, proxy="127.0.0.1")
    try:
        ingest.start()
        header = b"PROXY TCP4 203.0.113.1 192.0.2.9 40000 5027\r\n"
        with RawDevice(port, first=header) as device:
            assert device.login(DEVICE) == b"\x01"
            assert device.deliver(1)
        with RawDevice(port, source="127.0.0.2", first=header) as stranger:
            assert not stranger.try_login(DEVICE)
    finally:
        ingest.kill()


def is_kept_alive(port: int) -> bool:
    """Return True if a connection accepted on a port has keep-alive (proc(5): net/tcp)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].partition(":")[2], 16) == port and words[3] == "01":
            return words[5].startswith("02:")
    return False


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="systemd is not installed"
)
def test_first_connection_starts_ingest(tmp_path: Path, redis: RedisServer) -> None:
    port, http = free_port(), free_port()
    log = tmp_path / "activated.log"
    variables = {"REDIS_URL": redis.url, "INSTANCE_ID": "socket"}
    with log.open("wb") as output:
        waiting = subprocess.Popen(
            [
                *("systemd-socket-activate", "-l", f"127.0.0.1:{port}"),
                f"--fdname={socket_name()}",
                *(f"--setenv={name}={value}" for name, value in variables.items()),
                *command(http),
            ],
            stdout=output, stderr=output, env=environment(), cwd=tmp_path,
        )  # fmt: skip
    try:
        wait_for(lambda: b"Listening on" in log.read_bytes(), "the port is open")
        assert b"tracker" not in log.read_bytes().split(b"Listening on")[0]
        with RawDevice(port) as device:
            device.socket.settimeout(40)
            assert device.login(DEVICE) == b"\x01"
            assert device.deliver(1)
        assert redis.client.xlen(STREAM) == 1
        os.kill(waiting.pid, 15)  # systemd-socket-activate has replaced itself by ingest
        assert waiting.wait(30) == 0
    finally:
        waiting.kill()
