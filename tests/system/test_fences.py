"""A protocol that does not acknowledge positions, while Redis is down: Concox's."""

from __future__ import annotations

import json
import time

from tests.servers import RedisServer, free_port
from tests.system.outages import RESUMPTION, Serve
from tests.system.raw import RawDevice
from tests.waiting import wait_for
from tracker.vendors.concox.frames import Frame, acknowledgement, encode_frame
from tracker.vendors.concox.login import Login, login_frame

IMEI = "123456789012345"
LOGIN = login_frame(Login(IMEI), serial=1)
HEARTBEAT = 0x13
POSITION = bytes.fromhex("0b081d112e10cf027ac7eb0c46584900148f01cc00287d001fb8")


def position(serial: int) -> bytes:
    return encode_frame(Frame(0x12, POSITION, serial))


def send_heartbeat(device: RawDevice, serial: int) -> bytes:
    """Send a heartbeat; return its answer."""
    frame = Frame(HEARTBEAT, bytes.fromhex("4006040002"), serial)
    device.send(encode_frame(frame))
    return acknowledgement(frame)


def test_login_and_heartbeat_are_answered_only_while_redis_confirms(
    redis: RedisServer, serve: Serve
) -> None:
    port = free_port()
    ingest = serve("--listen", f"concox=tcp:{port}:interface=127.0.0.1")

    def serials() -> list[int]:
        entries = redis.client.xrange("telemetry:concox")
        return sorted(json.loads(fields[b"extra"])["serial"] for _, fields in entries)

    with RawDevice(port) as device, RawDevice(port) as later:
        device.send(encode_frame(LOGIN))
        assert device.read(10) == acknowledgement(LOGIN)
        device.send(position(2))
        answer = send_heartbeat(device, 3)
        assert device.read(10) == answer
        assert serials() == [2, 3]
        redis.kill()
        wait_for(lambda: "not ready: redis (ingest)" in ingest.daemon.text, "disconnected")
        device.send(position(4))
        send_heartbeat(device, 5)
        assert device.is_silent(0.5)
        later.send(encode_frame(LOGIN))
        assert later.is_silent(0.5)
        assert device.is_closed()  # the device has connected again
        redis.start()
        started = time.monotonic()
        assert later.read(10) == acknowledgement(LOGIN)
        assert time.monotonic() - started < RESUMPTION
        answer = send_heartbeat(later, 6)
        assert later.read(10) == answer
        wait_for(lambda: serials() == [2, 3, 4, 5, 6], "everything is appended")
