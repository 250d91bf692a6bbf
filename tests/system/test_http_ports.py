"""Hostile peers at HTTP ports do not affect other peers."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tests.system.raw import Ingest
from tests.waiting import wait_for
from tracker.console.requests import CONSOLE_LIMITS
from tracker.net.probes import HEALTH_LIMITS

DEVICE = "356307042441013"
INCOMPLETE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
HOSTILE_CONNECTIONS = 1100
#: Other files that a process opens and closes meanwhile.
OTHER_FILES = 10


pytestmark = pytest.mark.usefixtures("many_files")


def crowd(stack: ExitStack, port: int, host: str = "127.0.0.1") -> list[socket.socket]:
    """Return connections that each have sent an incomplete request."""
    connections = []
    for _ in range(HOSTILE_CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port), 10, source_address=(host, 0))
        stack.enter_context(connection)
        connections.append(connection)
        trickle([connection], INCOMPLETE)
    return connections


def trickle(connections: list[socket.socket], data: bytes = b"x") -> None:
    for connection in connections:
        with suppress(ConnectionError):
            connection.sendall(data)


def request(port: int, host: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Send a request from an address; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, 10, source_address=(host, 0))
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def check_served(port: int, host: str, path: str, begins: bytes) -> None:
    """Check that a request gets status 200; the address of the crowd may need several attempts."""

    def served() -> bool:
        with suppress(ConnectionError, http.client.BadStatusLine):
            status, body = request(port, host, path)
            return (status, body[: len(begins)]) == (200, begins)
        return False

    if host == "127.0.0.1":
        wait_for(served, "the request is served")
    else:
        assert served()


def files_of(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def names_of_open_files(daemon: Daemon) -> Iterator[str]:
    for file in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the process has closed it meanwhile
            yield os.readlink(file)


def test_incomplete_requests_to_the_health_port_use_no_files_of_devices(
    serve: Callable[..., Ingest],
) -> None:
    ingest = serve(files=1024)
    port = int(ingest.daemon.url("").rpartition(":")[2])
    before = files_of(ingest.daemon)
    with ExitStack() as stack:
        hostile = crowd(stack, port)
        assert files_of(ingest.daemon) <= before + HEALTH_LIMITS.connections + OTHER_FILES
        trickle(hostile)
        for host in ("127.0.0.2", "127.0.0.1"):
            check_served(port, host, "/healthz", b"alive\n")
        devices = [stack.enter_context(ingest.connect()) for _ in range(100)]
        for number, device in enumerate(devices):
            assert device.login(f"9{number:014}") == b"\x01"
    assert "Traceback" not in ingest.daemon.text


def test_body_sent_to_the_health_port_is_not_stored(
    serve: Callable[..., Ingest], tmp_path: Path
) -> None:
    """Send a chunked body, whose size is not known in advance."""
    ingest = serve()
    port = int(ingest.daemon.url("").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(
            b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with suppress(ConnectionError):
            for _ in range(32):
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert request(port, "127.0.0.1", "/healthz", "POST")[0] == 405
    assert not [name for name in names_of_open_files(ingest.daemon) if name.endswith("(deleted)")]


def test_slow_connections_do_not_block_browsers(tmp_path: Path, redis: RedisServer) -> None:
    console = Daemon(
        *(tmp_path, "console", "console", "--listen", f"tcp:{(port := free_port())}"),
        variables={"REDIS_URL": redis.url},
    )
    try:
        console.start()
        before = files_of(console)
        with ExitStack() as stack:
            hostile = crowd(stack, port)
            assert files_of(console) <= before + CONSOLE_LIMITS.per_address + 16 + OTHER_FILES
            for host in ("127.0.0.2", "127.0.0.1"):
                trickle(hostile)
                check_served(port, host, "/", b"<!doctype html>")
        assert console.stop() == 0
    finally:
        console.kill()
    assert "Traceback" not in console.text
    assert console.text.count("refused") <= 20
