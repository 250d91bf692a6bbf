"""Live frames: a device is watched at its instance while a browser shows it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.console.browsing import DEVICE, Browser, Connection, Server
from tests.unit.console.test_events import received_events
from tracker.console.frames import INTERVAL, MAX_FRAME_BYTES, MAX_QUEUED_EVENTS
from tracker.control.connection import NotConnected
from tracker.control.watching import DeviceEvent, Watcher


class FakeClient:
    """Client of the control port of an instance."""

    def __init__(self) -> None:
        self.watched: dict[str, Watcher] = {}
        self.failing = False

    async def watch(self, device_id: str, watcher: Watcher) -> bool:
        if self.failing:
            raise NotConnected("connection lost")
        self.watched[device_id] = watcher
        return True

    async def unwatch(self, device_id: str) -> None:
        if self.failing:
            raise NotConnected("connection lost")
        del self.watched[device_id]


class FakeInstances:
    """Two instances, and the one that the device is connected to."""

    def __init__(self, server: Server) -> None:
        self.owner: str | None = "one"
        self.clients: dict[str, Any] = {"one": FakeClient(), "two": FakeClient()}
        self.server = server
        server.ports.client_of = self.clients.get  # type: ignore[assignment,method-assign]

    async def __call__(self, device_id: str) -> str | None:
        return self.owner

    def emit(self, instance: str, raw: bytes = b"\x00\x01", dropped: int = 0) -> None:
        received = DeviceEvent(DEVICE, 1.5, "received", raw, '{"kind":"frame"}', False, dropped)
        self.clients[instance].watched[DEVICE](received)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def instances(server: Server) -> FakeInstances:
    instances = FakeInstances(server)
    frames = server.parts.frames
    frames._owner = instances
    frames.startService()
    return instances


def open_frames(server: Server) -> Connection:
    return Browser(server).start_request("GET", f"/api/devices/{DEVICE}/frames")


def states(connection: Connection) -> list[str]:
    events: list[Any] = [data for name, data in received_events(connection) if name == "state"]
    return [state["text"] for state in events]


def frames(connection: Connection) -> list[Any]:
    return [data for name, data in received_events(connection) if name == "frame"]


def test_one_watch_serves_all_browsers_and_ends_with_the_last(
    server: Server, instances: FakeInstances
) -> None:
    first, second = open_frames(server), open_frames(server)
    assert states(first) == states(second)
    assert "connected to one" in states(first)[0]
    instances.emit("one")
    (frame,) = frames(first)
    assert frame == {
        "at": 1.5,
        "kind": "received",
        "bytes": 2,
        "hex": "00 01",
        "decoded": '{"kind":"frame"}',
        "truncated": False,
        "dropped": 0,
    }
    assert frames(second) == [frame]
    first.disconnect()
    assert instances.clients["one"].watched
    second.disconnect()
    assert not instances.clients["one"].watched


def test_watch_moves_with_the_device_to_another_instance(
    server: Server, instances: FakeInstances
) -> None:
    connection = open_frames(server)
    instances.owner = "two"
    server.clock.advance(INTERVAL)
    assert not instances.clients["one"].watched
    instances.emit("two")
    assert len(frames(connection)) == 1
    instances.owner = None
    server.clock.advance(INTERVAL)
    assert "not connected" in states(connection)[-1]
    assert not instances.clients["two"].watched
    instances.owner = "one"
    server.clock.advance(INTERVAL)
    assert "connected to one" in states(connection)[-1]


def test_failed_watch_is_retried(server: Server, instances: FakeInstances) -> None:
    instances.clients["one"].failing = True
    connection = open_frames(server)
    assert "not available" in states(connection)[-1]
    assert "connection lost" not in connection.text
    instances.clients["one"].failing = False
    server.clock.advance(INTERVAL)
    assert "connected to one" in states(connection)[-1]


def test_missing_control_port_is_reported_with_the_name_of_its_instance(
    server: Server, instances: FakeInstances
) -> None:
    instances.owner = "three"
    assert "No frames from three: the instance has no control" in states(open_frames(server))[-1]


def test_slow_reader_gets_the_latest_frames(server: Server, instances: FakeInstances) -> None:
    connection = open_frames(server)
    connection.transport.producer.pauseProducing()
    for number in range(MAX_QUEUED_EVENTS + 30):
        instances.emit("one", bytes([number]))
    connection.transport.producer.resumeProducing()
    assert [frame["hex"] for frame in frames(connection)] == [
        f"{number:02x}" for number in range(30, MAX_QUEUED_EVENTS + 30)
    ]


def test_long_frame_is_truncated(server: Server, instances: FakeInstances) -> None:
    connection = open_frames(server)
    instances.emit("one", b"x" * (MAX_FRAME_BYTES + 1), dropped=7)
    (frame,) = frames(connection)
    assert (frame["truncated"], frame["dropped"], frame["bytes"]) == (True, 7, MAX_FRAME_BYTES + 1)
    assert len(frame["hex"].split()) == MAX_FRAME_BYTES
