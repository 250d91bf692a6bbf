"""Queclink devices over TCP and UDP, with whole processes that are killed."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system import commands
from tests.system.processes import Daemon
from tests.system.raw import RawDevice
from tests.waiting import wait_for
from tracker.vendors.queclink.encoding import (
    Place,
    Sender,
    encode_answer,
    encode_fri,
    encode_heartbeat,
)

STREAM = "telemetry:queclink"
DEVICE = "135790246811220"
OTHER = "A1000043D20139"
#: Time of the first report; later ones follow each second.
START = 1_710_504_600
SACK = re.compile(rb"\+SACK:([0-9A-F]{4})\$")


def fri(number: int, device_id: str = DEVICE, buffered: bool = False) -> bytes:
    """Return a report whose count number and times show its number."""
    place = Place(START + number, 121.354335, 31.222073, speed=4.3)
    return encode_fri(Sender(device_id, number, START + number), [place], buffered=buffered)


class Plane:
    """A Redis server, an ingest process with a TCP and a UDP port, and a processor."""

    def __init__(self, folder: Path, redis: RedisServer, *options: str) -> None:
        self.redis = redis
        self.tcp = free_port()
        self.udp = free_port()
        self.database = folder / "positions.sqlite"
        variables = {"REDIS_URL": redis.url}
        self.ingest = Daemon(
            *(folder, "ingest", "ingest"),
            *("--listen", f"queclink=tcp:{self.tcp}:interface=127.0.0.1"),
            *("--listen", f"queclink=udp:{self.udp}:interface=127.0.0.1", *options),
            variables=variables,
        )
        self.process = Daemon(
            *(folder, "process", "process", "--sink", f"sqlite:{self.database}"),
            variables=variables,
        )

    def entries(self) -> list[dict[str, object]]:
        """Return the payloads in the stream."""
        return [json.loads(fields[b"payload"]) for _, fields in self.redis.client.xrange(STREAM)]

    def stored(self) -> list[tuple[str, str]]:
        """Return device ID and count number of all stored positions."""
        if not self.database.exists():
            return []
        query = "SELECT device_id, json_extract(attributes, '$.count') FROM positions"
        connection = sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # the table does not exist yet
            return []
        finally:
            connection.close()


@pytest.fixture
def start(tmp_path: Path, redis: RedisServer) -> Iterator[Callable[..., Plane]]:
    """Provide a function that starts the ingest process, killed at the end."""
    planes: list[Plane] = []

    def start(*options: str) -> Plane:
        planes.append(Plane(tmp_path, redis, *options))
        planes[-1].ingest.start()
        return planes[-1]

    yield start
    for plane in planes:
        plane.ingest.kill()
        plane.process.kill()


def test_report_and_heartbeat_are_acknowledged_over_tcp(start: Callable[..., Plane]) -> None:
    plane = start()
    with RawDevice(plane.tcp) as device:
        device.send(encode_heartbeat(Sender(DEVICE, 0xAB, START)) + fri(1))
        assert device.read(35) == b"+SACK:GTHBD,060100,00AB$+SACK:0001$"
    (entry,) = plane.entries()
    assert (entry["device_id"], entry["speed"]) == (DEVICE, 4)


def test_short_connection_delivers_its_report(start: Callable[..., Plane]) -> None:
    plane = start()
    for number in range(5):
        with RawDevice(plane.tcp) as device:
            device.send(fri(number))  # closed without waiting for the SACK
    wait_for(lambda: len(plane.entries()) == 5, "all reports are appended")


def test_gateway_sends_the_reports_of_several_devices(start: Callable[..., Plane]) -> None:
    plane = start()
    with RawDevice(plane.tcp) as gateway:
        reports = [(DEVICE, 1), (OTHER, 2), (OTHER, 3), (DEVICE, 4)]
        gateway.send(b"".join(fri(number, device_id) for device_id, number in reports))
        heard = gateway.read(4 * len(b"+SACK:0001$"))
        assert sorted(SACK.findall(heard)) == [b"0001", b"0002", b"0003", b"0004"]
    assert {entry["device_id"] for entry in plane.entries()} == {DEVICE, OTHER}


def test_report_is_not_acknowledged_before_redis_has_it(start: Callable[..., Plane]) -> None:
    plane = start()
    with RawDevice(plane.tcp) as device:
        device.send(fri(1))
        assert device.read(11) == b"+SACK:0001$"
        plane.redis.suspend()
        device.send(fri(2) + encode_heartbeat(Sender(DEVICE, 3, START)))
        assert device.read(24) == b"+SACK:GTHBD,060100,0003$"
        assert device.is_silent()
        plane.redis.resume()
        assert device.read(11) == b"+SACK:0002$"


def texts_in(redis: RedisServer) -> str:
    """Return all streams, hashes and strings in Redis as text."""
    readers = {b"stream": redis.client.xrange, b"hash": redis.client.hgetall}
    found = []
    for key in redis.client.scan_iter():
        kind = redis.client.type(key)
        found.append(repr(readers[kind](key)) if kind in readers else "")
    return "".join(found)


def test_command_gets_its_password_only_on_the_way_to_the_device(
    start: Callable[..., Plane], tmp_path: Path
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("* s3cret\n")
    plane = start("--queclink-password-file", str(passwords), "--instance-id", "one")
    with RawDevice(plane.tcp) as device:
        device.send(fri(1))
        assert device.read(11) == b"+SACK:0001$"
        commands.send(plane.redis, "one", "c-1", DEVICE, "GTRTO=,3,,,,,,", codec="")
        heard = device.read(len(b"AT+GTRTO=s3cret,3,,,,,,0000$"))
        assert heard.startswith(b"AT+GTRTO=s3cret,3,,,,,,")
        sender = Sender(DEVICE, 2, START)
        other = encode_answer(b"AT+GTRTO=,3,,,,,,FFFF$", sender)
        answer = encode_answer(heard, sender)
        assert other is not None
        assert answer is not None
        device.send(other + answer)
        responses = commands.Responses(plane.redis)
        wait_for(lambda: responses.ended() == 1, "the command has ended")
    last = responses.read()["c-1"][-1]
    assert (last["status"], last["response"]) == ("responded", answer.decode())
    assert "GTRTO" in texts_in(plane.redis)
    assert "s3cret" not in texts_in(plane.redis) + plane.ingest.text


def test_command_over_udp_is_answered(start: Callable[..., Plane], tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("* s3cret\n")
    plane = start("--queclink-password-file", str(passwords), "--instance-id", "one")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        device.connect(("127.0.0.1", plane.udp))
        device.settimeout(10)
        device.send(fri(1))
        assert device.recv(100) == b"+SACK:0001$"
        commands.send(plane.redis, "one", "c-1", DEVICE, "GTRTO=,3,,,,,,", codec="")
        answer = encode_answer(device.recv(100), Sender(DEVICE, 2, START))
        assert answer is not None
        device.send(answer)
        assert device.recv(100) == b"+SACK:0002$"
        responses = commands.Responses(plane.redis)
        wait_for(lambda: responses.ended() == 1, "the command has ended")
    last = responses.read()["c-1"][-1]
    assert (last["status"], last["response"]) == ("responded", answer.decode())


class Fleet:
    """Devices that send one report after the other, each until it has heard its SACK."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.acknowledged: list[tuple[str, str]] = []
        self.repeated = 0
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=run, args=(f"{number:015}",))
            for number, run in enumerate([self._over_tcp, self._over_udp] * 4, 1)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self, count: int) -> None:
        goal = len(self.acknowledged) + count
        wait_for(lambda: len(self.acknowledged) >= goal, f"{goal} acknowledged", timeout=40)

    def stop(self) -> None:
        """Stop the devices, each after its next SACK."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _over_tcp(self, device_id: str) -> None:
        self._run(
            device_id, lambda: socket.create_connection(("127.0.0.1", self.plane.tcp), timeout=5)
        )

    def _over_udp(self, device_id: str) -> None:
        def connect() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.connect(("127.0.0.1", self.plane.udp))
            made.settimeout(1)
            return made

        self._run(device_id, connect)

    def _run(self, device_id: str, connect: Callable[[], socket.socket]) -> None:
        number, is_new = 1, True
        while not self._stopping.is_set():
            with suppress(OSError), connect() as connection:
                while not self._stopping.is_set():
                    connection.sendall(fri(number, device_id, buffered=not is_new))
                    self.repeated += not is_new
                    is_new = False
                    while f"{number:04X}".encode() not in SACK.findall(
                        connection.recv(4096) or b""
                    ):
                        if connection.type is socket.SOCK_STREAM:
                            raise ConnectionError
                    self.acknowledged.append((device_id, f"{number:04X}"))
                    number, is_new = number + 1, True


def test_killed_ingest_loses_no_acknowledged_report(start: Callable[..., Plane]) -> None:
    plane = start()
    plane.process.start()
    fleet = Fleet(plane)
    try:
        for _ in range(4):
            fleet.wait_for_more(300)
            plane.ingest.kill()
            plane.ingest.start()
        fleet.wait_for_more(300)
    finally:
        fleet.stop()
    acknowledged = set(fleet.acknowledged)
    wait_for(lambda: acknowledged <= set(plane.stored()), "all are stored", timeout=30)
    stored = plane.stored()
    assert len(stored) == len(set(stored)), "stored twice"
    assert len(acknowledged) == len(fleet.acknowledged)
    assert len(set(stored) - acknowledged) <= 8, "stored, and not acknowledged at the end"
    assert fleet.repeated
