"""Streams of events: what is sent, what waits, and who is cut off."""

from __future__ import annotations

import json

import pytest

from tests.unit.console.browsing import DEVICE, Browser, Connection, Server
from tracker.console.events import HEARTBEAT, Broadcast, event
from tracker.console.frames import MOST_DEVICES
from tracker.net.waits import READ_TIMEOUT


@pytest.fixture
def server() -> Server:
    return Server()


def listen(server: Server, path: str = "/api/events") -> Connection:
    return Browser(server).begin("GET", path)


def told(connection: Connection) -> list[tuple[str, object]]:
    """The events that came so far."""
    found = []
    name = ""
    for line in connection.text.splitlines():
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            found.append((name, json.loads(value)))
    return found


def numbers(connection: Connection) -> list[object]:
    return [data for name, data in told(connection) if name == "number"]


def test_one_event_is_one_line_of_json() -> None:
    assert event("x", {"a": "b\nc"}) == b'event: x\ndata: {"a":"b\\nc"}\n\n'


def test_whoever_comes_is_told_the_last_hour_first(server: Server) -> None:
    connection = listen(server)
    assert connection.text.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Type: text/event-stream" in connection.text
    assert [name for name, _ in told(connection)] == ["history"]
    connection.leave()
    assert server.broadcast.count == 0


def test_what_is_published_reaches_all(server: Server) -> None:
    connections = [listen(server) for _ in range(5)]
    server.broadcast.publish(event("number", 1))
    assert [numbers(one) for one in connections] == [[1]] * 5


def test_a_slow_reader_is_told_the_latest_only_and_holds_up_nobody(server: Server) -> None:
    slow, quick = listen(server), listen(server)
    slow.transport.producer.pauseProducing()
    for number in range(1000):
        server.broadcast.publish(event("number", number))
    assert numbers(slow) == []
    assert len(numbers(quick)) == 1000
    slow.transport.producer.resumeProducing()
    assert numbers(slow) == [999]
    server.broadcast.publish(event("number", 1000))
    assert numbers(slow) == [999, 1000]


def test_a_slow_reader_of_frames_is_told_some_of_them(server: Server) -> None:
    broadcast = server.broadcast
    connection = listen(server)
    (stream,) = broadcast._streams
    assert stream.dropped == 0
    connection.transport.producer.pauseProducing()
    for number in range(3):
        stream.send(event("number", number))
    assert stream.dropped == 2


def test_comments_show_that_the_connection_lives(server: Server) -> None:
    connection = listen(server)
    server.broadcast.startService()
    before = connection.text.count(": still here")
    server.clock.advance(HEARTBEAT)
    server.clock.advance(HEARTBEAT)
    assert connection.text.count(": still here") == before + 2
    server.broadcast.stopService()


def test_who_takes_nothing_for_long_is_cut_off(server: Server) -> None:
    server.broadcast.startService()
    slow, quick = listen(server), listen(server)
    slow.transport.producer.pauseProducing()
    server.clock.pump([1.0] * (int(READ_TIMEOUT) - 1))
    assert not slow.transport.disconnected
    server.clock.advance(1)
    assert slow.transport.disconnected
    server.clock.pump([1.0] * 1000)
    assert not quick.transport.disconnecting
    slow.leave()
    assert server.broadcast.count == 1
    server.broadcast.stopService()


def test_there_are_only_so_many(server: Server) -> None:
    server.broadcast = Broadcast(server.clock, 2)
    small = Server(most_streams=2)
    first = listen(small)
    listen(small)
    answer = listen(small).answer()
    assert answer.status == 503
    assert "2 live views are open" in answer.json["error"]
    first.leave()
    assert told(listen(small))


def test_frames_are_shown_of_so_many_devices_only(server: Server) -> None:
    connections = [
        listen(server, f"/api/devices/35630704244{number:04}/frames")
        for number in range(MOST_DEVICES)
    ]
    answer = listen(server, f"/api/devices/{DEVICE}/frames").answer()
    assert answer.status == 503
    for connection in connections:
        connection.leave()
    assert server.broadcast.count == 0
    assert "200 OK" in listen(server, f"/api/devices/{DEVICE}/frames").text


def test_frames_are_not_told_what_is_published(server: Server) -> None:
    connection = listen(server, f"/api/devices/{DEVICE}/frames")
    server.broadcast.publish(event("number", 1))
    assert numbers(connection) == []


def test_at_the_end_all_are_cut_off(server: Server) -> None:
    server.broadcast.startService()
    connections = [listen(server) for _ in range(3)]
    server.broadcast.stopService()
    assert all(one.transport.disconnecting for one in connections)
