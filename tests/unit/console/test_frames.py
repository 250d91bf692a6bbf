"""Live frames: a device is watched as long as somebody looks, wherever it is connected."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.console.browsing import DEVICE, Browser, Connection, Server
from tests.unit.console.test_events import told
from tracker.console.frames import INTERVAL, MOST_BYTES, MOST_WAITING
from tracker.control.connection import NotConnected
from tracker.control.watching import DeviceEvent, Watcher


class FakeClient:
    """The control port of an instance."""

    def __init__(self) -> None:
        self.watched: dict[str, Watcher] = {}
        self.away = False

    async def watch(self, device_id: str, watcher: Watcher) -> bool:
        if self.away:
            raise NotConnected("it is away")
        self.watched[device_id] = watcher
        return True

    async def unwatch(self, device_id: str) -> None:
        if self.away:
            raise NotConnected("it is away")
        del self.watched[device_id]


class Place:
    """Where the device is, and the instances there are."""

    def __init__(self, server: Server) -> None:
        self.owner: str | None = "one"
        self.clients: dict[str, Any] = {"one": FakeClient(), "two": FakeClient()}
        self.server = server
        server.ports.client_of = self.clients.get  # type: ignore[assignment,method-assign]

    async def __call__(self, device_id: str) -> str | None:
        return self.owner

    def happened(self, instance: str, raw: bytes = b"\x00\x01", dropped: int = 0) -> None:
        seen = DeviceEvent(DEVICE, 1.5, "received", raw, '{"kind":"frame"}', False, dropped)
        self.clients[instance].watched[DEVICE](seen)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def place(server: Server) -> Place:
    place = Place(server)
    frames = server.parts.frames
    frames._owner = place
    frames.startService()
    return place


def look(server: Server) -> Connection:
    return Browser(server).begin("GET", f"/api/devices/{DEVICE}/frames")


def states(connection: Connection) -> list[str]:
    found: list[Any] = [data for name, data in told(connection) if name == "state"]
    return [state["text"] for state in found]


def frames(connection: Connection) -> list[Any]:
    return [data for name, data in told(connection) if name == "frame"]


def test_one_watch_serves_all_who_look_and_ends_with_the_last(server: Server, place: Place) -> None:
    first, second = look(server), look(server)
    assert states(first) == states(second)
    assert "Connected to one" in states(first)[0]
    place.happened("one")
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
    first.leave()
    assert place.clients["one"].watched
    second.leave()
    assert not place.clients["one"].watched


def test_a_device_is_followed(server: Server, place: Place) -> None:
    connection = look(server)
    place.owner = "two"
    server.clock.advance(INTERVAL)
    assert not place.clients["one"].watched
    place.happened("two")
    assert len(frames(connection)) == 1
    place.owner = None
    server.clock.advance(INTERVAL)
    assert "not connected" in states(connection)[-1]
    assert not place.clients["two"].watched
    place.owner = "one"
    server.clock.advance(INTERVAL)
    assert "Connected to one" in states(connection)[-1]


def test_an_instance_that_is_away_is_asked_again(server: Server, place: Place) -> None:
    place.clients["one"].away = True
    connection = look(server)
    assert "cannot be shown now" in states(connection)[-1]
    assert "it is away" not in connection.text
    place.clients["one"].away = False
    server.clock.advance(INTERVAL)
    assert "Connected to one" in states(connection)[-1]


def test_an_instance_without_a_control_port_is_named(server: Server, place: Place) -> None:
    place.owner = "three"
    assert "control port of three cannot be asked" in states(look(server))[-1]


def test_a_slow_reader_is_told_the_latest_frames(server: Server, place: Place) -> None:
    connection = look(server)
    connection.transport.producer.pauseProducing()
    for number in range(MOST_WAITING + 30):
        place.happened("one", bytes([number]))
    connection.transport.producer.resumeProducing()
    assert [frame["hex"] for frame in frames(connection)] == [
        f"{number:02x}" for number in range(30, MOST_WAITING + 30)
    ]


def test_a_long_frame_is_cut(server: Server, place: Place) -> None:
    connection = look(server)
    place.happened("one", b"x" * (MOST_BYTES + 1), dropped=7)
    (frame,) = frames(connection)
    assert (frame["truncated"], frame["dropped"], frame["bytes"]) == (True, 7, MOST_BYTES + 1)
    assert len(frame["hex"].split()) == MOST_BYTES
