"""Memory for two thousand devices that push while Redis is unavailable."""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import ExitStack

import pytest

from tests.servers import RedisServer
from tests.system.outages import RESUMPTION, Report, Serve, imei, stored
from tests.system.raw import START, STREAM, RawDevice
from tests.waiting import wait_for
from tracker.vendors.teltonika.avl import CODEC_8E, Record, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame

DEVICES = 2000
RECORD_FIELDS = (0, 252_500_000, 546_800_000, 100, 90, 8, 40)
FRAMES = 24
#: Maximum memory for 2,000 devices while nothing is appended, in bytes: 16 KiB of unread bytes
#: and a decoded frame for each, with the overhead of the interpreter.
MAX_MEMORY = 64 << 20


class Fleet:
    """Devices that send frames of a kilobyte without waiting for ACKs."""

    def __init__(self, port: int) -> None:
        elements = tuple((number, 8, number) for number in range(200, 300))
        self._frames = [
            encode_frame(encode_packet(CODEC_8E, [Record(START + at, *RECORD_FIELDS, 0, elements)]))
            for at in range(FRAMES)
        ]
        self.acks = 0
        self._sent: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()
        for number in range(DEVICES):
            device = RawDevice(port)
            assert device.login(imei(number)) == b"\x01"
            device.socket.setblocking(False)
            self._sent[device.socket] = 0
            self._selector.register(device.socket, selectors.EVENT_READ)

    def send(self) -> None:
        """Send one frame of each device."""
        for device, sent in self._sent.items():
            assert device.send(self._frames[sent]) == len(self._frames[sent])
            self._sent[device] = sent + 1

    def read(self) -> int:
        """Read the received ACKs; return their total number."""
        for key, _ in self._selector.select(0):
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(4 * FRAMES)
            assert data == b"\0\0\0\1" * (len(data) // 4) != b""
            self.acks += len(data) // 4
        return self.acks

    def close(self) -> None:
        self._selector.close()
        for device in self._sent:
            device.close()


@pytest.mark.usefixtures("many_files")
def test_memory_is_bounded_while_two_thousand_devices_push_without_redis(
    redis: RedisServer, serve: Serve, report: Report
) -> None:
    ingest = serve("--connection-rate", "10000", "--connection-rate-per-address", "10000")
    fleet = Fleet(ingest.port)
    with ExitStack() as stack:
        stack.callback(fleet.close)
        fleet.send()
        wait_for(lambda: fleet.read() == DEVICES, "all are served", timeout=60)
        before = ingest.memory()
        redis.kill()
        began = time.monotonic()
        wait_for(lambda: ingest.daemon.readyz()[0] == 503, "outage reported")

        def after(seconds: float) -> int:
            """Return the memory ``seconds`` into the outage; check that no ACK arrives before."""
            wait_for(lambda: time.monotonic() >= began + seconds, "time passes", timeout=40)
            assert fleet.read() == DEVICES
            return ingest.memory()

        # The first seconds send more than is buffered; the rest stays in the kernel.
        for number in range(1, FRAMES):
            after(0.25 * number if number < FRAMES - 4 else 6 + number + 4 - FRAMES)
            fleet.send()
            if number == FRAMES - 5:
                early = after(6)
        late = after(12)
        redis.start()
        returned = time.monotonic()
        ingest.daemon.wait_until_ready()
        seconds = time.monotonic() - returned
        wait_for(lambda: fleet.read() == FRAMES * DEVICES, "all are served", timeout=90)
        served = time.monotonic() - returned
        afterwards = ingest.memory()
    figures = ", ".join(
        f"{name} {memory / (1 << 20):.0f} MiB"
        for name, memory in (
            *(("before", before), ("after 6 s", early), ("after 12 s", late)),
            ("in the end", afterwards),
        )
    )
    report(f"{figures}; ready after {seconds:.2f} s, all served after {served:.1f} s")
    assert seconds <= RESUMPTION
    assert late - before < MAX_MEMORY, figures
    assert late - early < 8 << 20, figures
    assert afterwards - before < MAX_MEMORY, figures
    assert redis.client.xlen(STREAM) >= FRAMES * DEVICES
    assert len(stored(redis)) == FRAMES * DEVICES
    assert "Traceback" not in ingest.daemon.text
