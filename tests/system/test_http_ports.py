"""Hostile peers at HTTP ports, while others use them."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable
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
HALF = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
STRANGERS = 1100
#: Other files that are opened and closed meanwhile.
SOME = 10


pytestmark = pytest.mark.usefixtures("many_files")


def crowd(stack: ExitStack, port: int, host: str = "127.0.0.1") -> list[socket.socket]:
    """Connections that each have sent half a request."""
    made = []
    for _ in range(STRANGERS):
        connection = socket.create_connection(("127.0.0.1", port), 10, source_address=(host, 0))
        stack.enter_context(connection)
        made.append(connection)
        trickle([connection], HALF)
    return made


def trickle(connections: list[socket.socket], data: bytes = b"x") -> None:
    for connection in connections:
        with suppress(ConnectionError):
            connection.sendall(data)


def ask(port: int, host: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body, asked from an address."""
    connection = http.client.HTTPConnection("127.0.0.1", port, 10, source_address=(host, 0))
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def answer(port: int, host: str, path: str, begins: bytes) -> None:
    """Get an answer of 200; from the address of the crowd it may take two requests."""

    def asked() -> bool:
        with suppress(ConnectionError, http.client.BadStatusLine):
            status, body = ask(port, host, path)
            return (status, body[: len(begins)]) == (200, begins)
        return False

    if host == "127.0.0.1":
        wait_for(asked, "it is answered")
    else:
        assert asked()


def files_of(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def test_half_requests_to_the_health_port_take_no_files_of_devices(
    serve: Callable[..., Ingest],
) -> None:
    ingest = serve(files=1024)
    port = int(ingest.daemon.url("").rpartition(":")[2])
    before = files_of(ingest.daemon)
    with ExitStack() as stack:
        strangers = crowd(stack, port)
        assert files_of(ingest.daemon) <= before + HEALTH_LIMITS.connections + SOME
        trickle(strangers)
        for host in ("127.0.0.2", "127.0.0.1"):
            answer(port, host, "/healthz", b"alive\n")
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
    assert ask(port, "127.0.0.1", "/healthz", "POST")[0] == 405
    folder = Path(f"/proc/{ingest.daemon.pid}/fd")
    assert not [one for one in folder.iterdir() if os.readlink(one).endswith(" (deleted)")]


def test_slow_connections_do_not_lock_browsers_out_of_the_console(
    tmp_path: Path, redis: RedisServer
) -> None:
    console = Daemon(
        *(tmp_path, "console", "console", "--listen", f"tcp:{(port := free_port())}"),
        variables={"REDIS_URL": redis.url},
    )
    try:
        console.start()
        before = files_of(console)
        with ExitStack() as stack:
            strangers = crowd(stack, port)
            assert files_of(console) <= before + CONSOLE_LIMITS.per_address + 16 + SOME
            for host in ("127.0.0.2", "127.0.0.1"):
                trickle(strangers)
                answer(port, host, "/", b"<!doctype html>")
        assert console.stop() == 0
    finally:
        console.kill()
    assert "Traceback" not in console.text
    assert console.text.count("refused") <= 20
