"""Hostile peers on a port, which must not affect the devices on the same port."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.system.raw import Ingest, RawDevice, frame
from tests.waiting import wait_for
from tracker.ingestion.admission import RESERVED_FILES
from tracker.vendors.teltonika.login import encode_login

DEVICE = "356307042441013"
SLOW_CONNECTIONS = 2000


def imei(number: int) -> str:
    """Return the IMEI of another device than :data:`DEVICE`."""
    return f"9{number:014}"


class SlowLoris:
    """Connections that send a byte a second each, spread evenly over the second."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._sending: dict[socket.socket, Iterator[int]] = {}
        self._due: list[tuple[float, socket.socket]] = []
        self.replies = 0
        self.sent = 0

    def connect(self, first: bytes, slow: bytes) -> None:
        """Open a connection that stays open after it has sent its bytes."""
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        connection.sendall(first)
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        self._sending[connection] = iter(slow)

    @property
    def connected(self) -> int:
        return len(self._sending)

    def start(self) -> None:
        """Start sending; the first bytes are due within the next second."""
        now = time.monotonic()
        self._due = [
            (now + number / len(self._sending), connection)
            for number, connection in enumerate(self._sending)
        ]

    def tick(self) -> None:
        """Send the bytes that are due, and forget the connections that the server has closed."""
        for key, _ in self._selector.select(0):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            answer = b""
            with suppress(ConnectionResetError):
                answer = connection.recv(100)
            self.replies += len(answer)
            if not answer:
                self._forget(connection)
        now = time.monotonic()
        due = 0
        for at, connection in self._due:
            if at > now:
                break
            due += 1
            byte = next(self._sending.get(connection, iter(())), None)
            if byte is not None:
                with suppress(ConnectionResetError, BrokenPipeError):
                    connection.send(bytes((byte,)))
                    self.sent += 1
        sent = self._due[:due]
        del self._due[:due]
        self._due.extend((at + 1, connection) for at, connection in sent)

    def _forget(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._sending[connection]
        connection.close()

    def close(self) -> None:
        for connection in list(self._sending):
            self._forget(connection)
        self._selector.close()


def delivery_times(device: RawDevice, first: int, proceed: Callable[[int], bool]) -> list[float]:
    """Return the seconds from each frame to its ACK, with one frame at a time."""
    times: list[float] = []
    while proceed(len(times)):
        began = time.perf_counter()
        assert device.deliver(first + len(times))
        times.append(time.perf_counter() - began)
    return times


def median_and_p95(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), statistics.quantiles(times, n=20)[-1]


@pytest.mark.usefixtures("many_files")
def test_two_thousand_slow_connections_do_not_slow_a_device(
    serve: Callable[..., Ingest], capsys: pytest.CaptureFixture[str]
) -> None:
    ingest = serve(
        *("--login-timeout", "5", "--connection-rate", "10000"),
        *("--connection-rate-per-address", "10000"),
    )
    loris = SlowLoris(ingest.port)
    with ingest.connect() as device, ExitStack() as cleanup:
        cleanup.callback(loris.close)
        assert device.login(DEVICE) == b"\x01"
        before = median_and_p95(delivery_times(device, 0, lambda done: done < 500))

        began = time.monotonic()
        for number in range(SLOW_CONNECTIONS // 2):
            login = encode_login(imei(number))
            loris.connect(login, frame(1))
            loris.connect(b"", login)
        loris.start()

        def under_attack(done: int) -> bool:
            # The server closes the first ones five seconds after it has accepted them.
            if time.monotonic() >= began + 4:
                return False
            loris.tick()
            return True

        during = median_and_p95(times := delivery_times(device, 1000, under_attack))
        assert loris.connected == SLOW_CONNECTIONS
        assert loris.replies == SLOW_CONNECTIONS // 2  # one byte for each login
        assert len(times) > 200
        assert loris.sent > SLOW_CONNECTIONS

        def being_closed(done: int) -> bool:
            loris.tick()
            return loris.connected > SLOW_CONNECTIONS // 2 and time.monotonic() < began + 20

        delivery_times(device, 50_000, being_closed)
        assert loris.connected == SLOW_CONNECTIONS // 2  # connections that have logged in stay open
        assert loris.replies == SLOW_CONNECTIONS // 2
    figures = f"before {before}, during {during} (median, p95; s), {len(times)} frames"
    with capsys.disabled():
        print(f" {figures} ", end="")
    assert during[0] <= 3 * before[0] + 0.005, figures
    assert during[1] <= 3 * before[1] + 0.020, figures
    assert len(ingest.rejections()) <= 10
    assert ingest.daemon.stop() == 0
    assert "Traceback" not in ingest.daemon.text


def garbage(number: int) -> bytes:
    """Return bytes with control characters that scanners, browsers or attackers might send."""
    return (
        b"GET /\xff\x1b[31m HTTP/1.1\r\n\r\n",
        b"\x00\x0f35630704\x1b]0;owned\x07\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x00\xff\xff\xff\xff\x1b[2J",
        encode_login(DEVICE) + frame(number)[:-1] + b"\x1b",
        encode_login(DEVICE) + b"\x00\x00\x00\x00\x7f\xff\xff\xff\x08\x1b[2J",
        b"\x00\x0f356307042441013"[:17] * 2,
        b"\xff" * 1000 + b"\n\x1b[31mtracker: all is well\n",
    )[number % 8]


@pytest.mark.usefixtures("many_files")
def test_flood_of_garbage_uses_little_memory_and_few_log_lines(
    serve: Callable[..., Ingest],
) -> None:
    ingest = serve("--connection-rate", "100000", "--connection-rate-per-address", "100000")

    def flood(count: int) -> None:
        for number in range(count):
            with ingest.connect() as peer:
                with suppress(ConnectionResetError, BrokenPipeError):
                    peer.send(garbage(number))
                if number % 8 != 6:  # the server waits for more bytes of this one
                    peer.read(100)

    with ingest.connect() as device:
        assert device.login(imei(0)) == b"\x01"
        flood(800)
        memory = ingest.memory()
        flood(3200)
        assert device.deliver(1)
    assert ingest.memory() - memory < 4 << 20
    assert len(ingest.rejections()) <= 10
    log = ingest.daemon.log.read_bytes()
    assert not re.search(rb"[^\n\x20-\x7e]", log), re.findall(rb".*[^\n\x20-\x7e].*", log)
    assert len(log.splitlines()) < 100, "\n".join(ingest.daemon.text.splitlines()[:100])
    assert len(ingest.entries()) == 1


def test_connection_over_the_limit_is_refused(serve: Callable[..., Ingest]) -> None:
    ingest = serve("--connections", "5", "--connections-per-address", "5")
    with ExitStack() as stack:
        devices = [stack.enter_context(ingest.connect()) for _ in range(5)]
        for number, device in enumerate(devices):
            assert device.login(imei(number)) == b"\x01"
        assert not any(is_served(ingest, imei(9)) for _ in range(3))
        for number, device in enumerate(devices):
            assert device.deliver(number)
        devices[0].socket.close()

        wait_for(lambda: is_served(ingest, imei(9)), "a free slot is used again")
        for number, device in enumerate(devices[1:]):
            assert device.deliver(10 + number)
    assert len(ingest.entries()) == 9
    assert "maximum number of connections (5)" in ingest.rejections()[0]


def test_flood_at_the_open_file_limit_is_refused_with_few_log_lines(
    serve: Callable[..., Ingest],
) -> None:
    rate = ("--connection-rate", "100000", "--connection-rate-per-address", "100000")
    files = RESERVED_FILES + 136
    ingest = serve(*rate, "--connections-per-address", "1000", files=files)
    with ExitStack() as stack:
        device = stack.enter_context(ingest.connect())
        assert device.login(DEVICE) == b"\x01"
        for _ in range(3):
            os.kill(ingest.daemon.pid, signal.SIGSTOP)  # so that all are accepted at once
            try:
                peers = [stack.enter_context(ingest.connect()) for _ in range(300)]
            finally:
                os.kill(ingest.daemon.pid, signal.SIGCONT)
            for number, peer in enumerate(peers):
                with suppress(ConnectionResetError, BrokenPipeError):
                    peer.login(imei(number))
        assert device.deliver(1)
    assert "maximum number of connections (136)" in ingest.rejections()[0]
    assert len(ingest.daemon.text.splitlines()) < 50, ingest.daemon.text
    assert "EMFILE" not in ingest.daemon.text


def test_connection_rate_of_one_address_is_limited(serve: Callable[..., Ingest]) -> None:
    ingest = serve("--connection-rate-per-address", "20")
    with ingest.connect() as device:
        assert device.login(DEVICE) == b"\x01"
        began = time.monotonic()
        served = sum(is_served(ingest, imei(number)) for number in range(200))
        seconds = int(time.monotonic() - began) + 2  # calendar seconds that it covers
        assert 19 <= served <= 20 * seconds
        assert served < 200
        assert device.deliver(1)
        # The next second has its own limit.
        wait_for(lambda: is_served(ingest, imei(0)), "connections admitted again")
    assert "more than 20 new connections per second from one address" in ingest.rejections()[0]


def is_served(ingest: Ingest, device_id: str, tls: ssl.SSLContext | None = None) -> bool:
    """Return whether a device on a new connection is served."""
    ended = (ConnectionResetError, BrokenPipeError, ssl.SSLError)
    with suppress(*ended), ingest.connect(tls) as device:
        return device.login(device_id) == b"\x01"
    return False
