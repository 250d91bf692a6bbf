"""Peers that do not end a connection, or do not wait for replies."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.certificates import certify, key_of
from tests.system.raw import Ingest
from tests.system.test_hostile import DEVICE, delivery_times, imei, is_served, median_and_p95
from tests.waiting import wait_for
from tracker.vendors.teltonika.avl import CODEC_8, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame
from tracker.vendors.teltonika.login import encode_login


def test_peer_that_never_ends_tls_does_not_keep_its_slot(
    serve: Callable[..., Ingest], tmp_path: Path
) -> None:
    certificate = certify(tmp_path, "127.0.0.1")
    ingest = serve(
        *("--login-timeout", "0.5", "--connections", "2", "--connections-per-address", "2"),
        endpoint=f"ssl:{{port}}:privateKey={key_of(certificate)}:certKey={certificate}",
    )
    trusting = ssl.create_default_context(cafile=str(certificate))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(ingest.connect(trusting))  # the peer reads nothing from now on
        assert not is_served(ingest, imei(1), trusting)
        wait_for(lambda: is_served(ingest, imei(1), trusting), "slot free", timeout=10)


@contextmanager
def pipelining(port: int, device_id: str, data: bytes) -> Iterator[None]:
    """Run a device that sends ``data`` repeatedly, as fast as possible, without waiting."""
    ended = threading.Event()

    def send() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(encode_login(device_id))
            connection.setblocking(False)
            while not ended.is_set():
                readable, writable, _ = select.select([connection], [connection], [], 0.1)
                with suppress(BlockingIOError, ConnectionResetError, BrokenPipeError):
                    if readable and not connection.recv(1 << 20):
                        return
                    if writable:  # sent in two parts, since the socket may accept only a part
                        sent = connection.send(data)
                        connection.setblocking(True)
                        connection.sendall(data[sent:])
                        connection.setblocking(False)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join(10)


FLOODS = {
    "pings": b"\xff" * 60_000,
    "frames-without-records": encode_frame(encode_packet(CODEC_8, [])) * 4000,
    "logins": encode_login(imei(1)) * 3500,
}


@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS.keys())
def test_device_that_sends_without_waiting_does_not_delay_others(
    serve: Callable[..., Ingest], data: bytes
) -> None:
    ingest = serve()
    with ingest.connect() as device:
        assert device.login(DEVICE) == b"\x01"
        before = median_and_p95(delivery_times(device, 0, lambda done: done < 200))
        with pipelining(ingest.port, imei(1), data):
            during = median_and_p95(delivery_times(device, 1000, lambda done: done < 200))
    assert during[0] <= 3 * before[0] + 0.01, f"before {before}, during {during} (median, p95; s)"
    assert len(ingest.rejections()) == 0
