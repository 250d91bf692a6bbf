"""One device ID and the ports of two vendors, with a whole process."""

from __future__ import annotations

from collections.abc import Callable

from tests.servers import RedisServer, free_port
from tests.system.raw import Ingest, RawDevice
from tests.waiting import wait_for
from tracker.vendors.concox.frames import Frame, acknowledgement, encode_frame
from tracker.vendors.concox.login import Login, login_frame

DEVICE = "356307042441013"
LOGIN = login_frame(Login(DEVICE), 1)


def login(device: RawDevice) -> bytes:
    """Log in as a device of Concox; return the reply."""
    device.send(encode_frame(LOGIN))
    return device.read(len(acknowledgement(LOGIN)))


def heartbeat(device: RawDevice, serial: int) -> bool:
    """Return True if a heartbeat is answered."""
    frame = Frame(0x13, bytes.fromhex("4004040001"), serial)
    device.send(encode_frame(frame))
    return device.read(len(acknowledgement(frame))) == acknowledgement(frame)


def vendor(redis: RedisServer) -> bytes | None:
    """Return the vendor under which the device is registered."""
    found: bytes | None = redis.client.hget("connections:vendors", DEVICE)
    return found


def test_device_is_served_under_one_vendor_at_a_time(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    port = free_port()
    ingest = serve("--listen", f"concox=tcp:{port}:interface=127.0.0.1")
    with RawDevice(port) as waiting:
        with ingest.connect() as device:
            assert device.login(DEVICE) == b"\x01"
            assert login(waiting) == acknowledgement(LOGIN)
            assert heartbeat(waiting, 2)
            assert device.deliver(1)
            assert vendor(redis) == b"teltonika"
            assert "connected as a device of teltonika" in ingest.rejections()[0]
        wait_for(lambda: vendor(redis) == b"concox", "the waiting device is registered")
        assert heartbeat(waiting, 3)
        with ingest.connect() as device:
            device.try_login(DEVICE)
            assert device.is_closed()
        assert vendor(redis) == b"concox"
    wait_for(lambda: vendor(redis) is None, "the device is unregistered")


def test_device_that_is_bound_to_a_vendor_is_refused_under_another(
    serve: Callable[..., Ingest], redis: RedisServer
) -> None:
    redis.client.sadd("devices:allowed", DEVICE)
    redis.client.hset("devices:vendors", DEVICE, "concox")
    port = free_port()
    ingest = serve(
        *("--device-authority", "redis"), "--listen", f"concox=tcp:{port}:interface=127.0.0.1"
    )
    with ingest.connect() as refused:
        assert refused.login(DEVICE) == b""
        assert "bound to another vendor" in ingest.rejections()[0]
    with RawDevice(port) as device:
        assert login(device) == acknowledgement(LOGIN)
        wait_for(lambda: vendor(redis) == b"concox", "the device is registered")
