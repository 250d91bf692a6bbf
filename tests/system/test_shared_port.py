"""Several ingest processes on one port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tests.system.raw import STREAM, RawDevice, frame_data
from tests.system.test_transports import UdpDevice
from tests.waiting import wait_for

DEVICES = 40


def imei(number: int) -> str:
    return f"9{number:014}"


@pytest.fixture
def pair(tmp_path: Path, redis: RedisServer) -> tuple[int, list[Daemon]]:
    """Provide two processes on one port, TCP and UDP, that are not started."""
    port = free_port()
    listen = [f"teltonika={kind}:{port}:interface=127.0.0.1:reuseport=1" for kind in ("tcp", "udp")]
    daemons = [
        Daemon(
            *(tmp_path, name, "ingest", "--redis", redis.url, "--instance-id", name),
            *("--listen", listen[0], "--listen", listen[1]),
        )
        for name in ("one", "two")
    ]
    return port, daemons


@pytest.fixture
def running(pair: tuple[int, list[Daemon]]) -> Iterator[tuple[int, list[Daemon]]]:
    """Provide two running processes on one port, TCP and UDP."""
    port, daemons = pair
    with ExitStack() as stack:
        for daemon in daemons:
            stack.callback(daemon.kill)
            daemon.start()
        yield port, daemons


def delivers(device: RawDevice, number: int) -> bool:
    """Return whether the connection is open, and a record is acknowledged."""
    try:
        return device.deliver(number)
    except (BrokenPipeError, ConnectionResetError):
        return False


def test_process_on_a_shared_port_serves_devices_when_the_other_is_killed(
    running: tuple[int, list[Daemon]], redis: RedisServer
) -> None:
    port, (killed, left) = running
    with ExitStack() as stack:
        acknowledged = 0

        def connect(number: int) -> RawDevice:
            device = stack.enter_context(RawDevice(port))
            assert device.login(imei(number)) == b"\x01"
            return device

        devices = [connect(number) for number in range(DEVICES)]
        for number, device in enumerate(devices):
            assert device.deliver(number)
            acknowledged += 1
        killed.kill()
        lost = [number for number, device in enumerate(devices) if not delivers(device, number)]
        acknowledged += DEVICES - len(lost)
        assert 0 < len(lost) < DEVICES, "one process had all the connections"
        for number in lost:  # one process is left
            assert connect(number).deliver(number)
            acknowledged += 1
        killed.start()
        assert [daemon.stop() for daemon in (killed, left)] == [0, 0]
    assert redis.client.xlen(STREAM) >= acknowledged


def test_datagrams_to_a_shared_port_are_distributed_and_acknowledged_once(
    running: tuple[int, list[Daemon]], redis: RedisServer
) -> None:
    port, (killed, _) = running
    with ExitStack() as stack:
        devices = [UdpDevice(port) for _ in range(DEVICES)]
        for number, device in enumerate(devices):
            stack.callback(device.socket.close)
            answer = device.exchange(number, frame_data(number), imei(number))
            # Repeated, like after the loss of the ACK.
            assert device.exchange(number, frame_data(number), imei(number)) == answer
        assert redis.client.xlen(STREAM) == DEVICES
        killed.kill()
        for number, device in enumerate(devices):
            device.exchange(1000 + number, frame_data(number), imei(number))


def test_device_registry_names_the_instance_of_a_device(
    running: tuple[int, list[Daemon]], redis: RedisServer
) -> None:
    port, (first, _) = running

    def registered() -> dict[str, str]:
        found: dict[bytes, bytes] = redis.client.hgetall("connections:registry")
        return {device.decode(): owner.decode() for device, owner in found.items()}

    with ExitStack() as stack:
        devices = [stack.enter_context(RawDevice(port)) for _ in range(DEVICES)]
        for number, device in enumerate(devices):
            assert device.login(imei(number)) == b"\x01"
        wait_for(lambda: len(registered()) == DEVICES, "all are registered")
        assert set(registered().values()) == {"one", "two"}
        assert first.stop() == 0
        assert set(registered().values()) == {"two"}
        first.start()
        lost = [number for number, device in enumerate(devices) if not delivers(device, number)]
        for number in lost:
            stack.enter_context(RawDevice(port)).login(imei(number))
        wait_for(lambda: len(registered()) == DEVICES, "all are registered again")
    wait_for(lambda: not registered(), "device registry empty")


def test_second_instance_with_the_same_id_exits(
    running: tuple[int, list[Daemon]], tmp_path: Path, redis: RedisServer
) -> None:
    _, (first, _) = running
    again = Daemon(
        *(tmp_path, "again", "ingest", "--redis", redis.url, "--instance-id", "one"),
        *("--listen", "teltonika=tcp:0:interface=127.0.0.1"),
    )
    again.start(ready=False)
    assert again.wait() == 1
    assert f"another instance has the ID one (process {first.pid} on this host)" in again.text
    assert redis.client.exists("instance:heartbeat:one")
    first.kill()
    again.start()  # the heartbeat of the killed process is replaced
    wait_for(
        lambda: f'"pid": {again.pid}' in redis.client.get("instance:heartbeat:one").decode(),
        "its own heartbeat",
    )
    assert again.stop() == 0
