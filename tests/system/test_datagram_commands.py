"""Commands to a device that sends datagrams, over a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.commands import device_registry, responses, send, statuses
from tests.system.processes import Daemon
from tests.waiting import wait_for

DEVICE = "135790246811220"
PASSWORD = "hunter2"
HEARTBEAT = b"+ACK:GTHBD,1A0102,%s,,20100214093254,%04X$"
ANSWER = b"+ACK:GTRTO,1A0102,%s,,RTL,%s,20100310172830,%04X$"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def ingest(tmp_path: Path, redis: RedisServer, port: int) -> Iterator[Daemon]:
    """Provide an ingest process with a UDP port, killed at the end."""
    passwords = tmp_path / "passwords"
    passwords.write_text(f"* {PASSWORD}\n")
    passwords.chmod(0o600)
    daemon = Daemon(
        *(tmp_path, "ingest", "ingest", "--queclink-password-file", str(passwords)),
        *("--instance-id", "one"),
        *("--listen", f"queclink=udp:{port}:interface=127.0.0.1"),
        variables={"REDIS_URL": redis.url},
    )
    daemon.start()
    yield daemon
    daemon.kill()


class UdpDevice:
    """A device that sends datagrams to the port of an instance."""

    def __init__(self, port: int, count: int = 0) -> None:
        """:param count: count number of the last frame."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", port))
        self._count = count

    def __enter__(self) -> UdpDevice:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def beat(self) -> None:
        """Send a heartbeat, again until it is answered."""
        self._count += 1
        self._socket.send(HEARTBEAT % (DEVICE.encode(), self._count))
        assert self._socket.recv(200).startswith(b"+SACK:GTHBD")

    def receive(self) -> bytes:
        """Return the next datagram."""
        return self._socket.recv(200)

    def answer(self, command: bytes) -> None:
        """Answer a command, whose last field is its serial number."""
        self._count += 1
        serial = command.rpartition(b",")[2].rstrip(b"$")
        self._socket.send(ANSWER % (DEVICE.encode(), serial, self._count))


def test_command_reaches_a_device_where_it_was_last_heard(
    ingest: Daemon, redis: RedisServer, port: int
) -> None:
    with UdpDevice(port, 0x100) as first, UdpDevice(port) as second:
        first.beat()
        second.beat()
        wait_for(lambda: device_registry(redis) == {DEVICE: "one"}, "the device is registered")
        send(redis, "one", "c1", DEVICE, "GTRTO=,1,,,,,,", codec="ascii")
        command = second.receive()
        assert command.startswith(f"AT+GTRTO={PASSWORD},1,,,,,,".encode())
        first.beat()
        first.answer(command)  # from another address: it may be forged
        second.answer(command)
        wait_for(lambda: "c1" in statuses(redis), "the command has ended")
    (delivered, final) = responses(redis)["c1"]
    assert (delivered["status"], final["status"]) == ("delivered", "responded")
    for stream in ("commands:responses", "telemetry:queclink"):
        entries = redis.client.xrange(stream)
        assert entries
        assert PASSWORD not in str(entries)
    assert PASSWORD not in str(redis.client.get("commands:sent:c1"))
    assert PASSWORD not in ingest.text


def test_command_waits_for_a_device_whose_session_has_ended(
    ingest: Daemon, redis: RedisServer, port: int
) -> None:
    with UdpDevice(port) as device:
        device.beat()
        wait_for(lambda: device_registry(redis) == {DEVICE: "one"}, "the device is registered")
        assert ingest.stop() == 0
        assert device_registry(redis) == {}
        ingest.start()
        device.beat()
        wait_for(lambda: device_registry(redis) == {DEVICE: "one"}, "the device is registered")
        send(redis, "one", "c1", DEVICE, "GTRTO=,1,,,,,,", codec="ascii")
        device.answer(device.receive())
        wait_for(lambda: "c1" in statuses(redis), "the command has ended")
    assert statuses(redis) == {"c1": "responded"}
