"""Event streams: their content, their queues and their end."""

from __future__ import annotations

import json

import pytest

from tests.unit.console.browsing import DEVICE, Browser, Connection, Server
from tracker.console.events import KEEPALIVE_INTERVAL, Broadcast, event
from tracker.console.frames import MAX_WATCHED_DEVICES
from tracker.net.waits import READ_TIMEOUT


@pytest.fixture
def server() -> Server:
    return Server()


def listen(server: Server, path: str = "/api/events") -> Connection:
    return Browser(server).start_request("GET", path)


def received_events(connection: Connection) -> list[tuple[str, object]]:
    """Return the events that the browser has received, as (name, data)."""
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
    return [data for name, data in received_events(connection) if name == "number"]


def test_event_is_one_line_of_json() -> None:
    assert event("x", {"a": "b\nc"}) == b'event: x\ndata: {"a":"b\\nc"}\n\n'


def test_stream_starts_with_the_last_hour(server: Server) -> None:
    connection = listen(server)
    assert connection.text.startswith("HTTP/1.1 200 OK\r\n")
    assert "Content-Type: text/event-stream" in connection.text
    assert [name for name, _ in received_events(connection)] == ["history"]
    connection.disconnect()
    assert server.broadcast.count == 0


def test_published_event_reaches_all_streams(server: Server) -> None:
    connections = [listen(server) for _ in range(5)]
    server.broadcast.publish(event("number", 1))
    assert [numbers(one) for one in connections] == [[1]] * 5


def test_slow_reader_gets_the_latest_event_and_does_not_delay_others(server: Server) -> None:
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


def test_dropped_events_of_a_slow_reader_are_counted(server: Server) -> None:
    broadcast = server.broadcast
    connection = listen(server)
    (stream,) = broadcast._streams
    assert stream.dropped == 0
    connection.transport.producer.pauseProducing()
    for number in range(3):
        stream.send(event("number", number))
    assert stream.dropped == 2


def test_comments_keep_an_idle_stream_alive(server: Server) -> None:
    connection = listen(server)
    server.broadcast.startService()
    before = connection.text.count(": still here")
    server.clock.advance(KEEPALIVE_INTERVAL)
    server.clock.advance(KEEPALIVE_INTERVAL)
    assert connection.text.count(": still here") == before + 2
    server.broadcast.stopService()


def test_reader_that_reads_nothing_is_disconnected(server: Server) -> None:
    server.broadcast.startService()
    slow, quick = listen(server), listen(server)
    slow.transport.producer.pauseProducing()
    server.clock.pump([1.0] * (int(READ_TIMEOUT) - 1))
    assert not slow.transport.disconnected
    server.clock.advance(1)
    assert slow.transport.disconnected
    server.clock.pump([1.0] * 1000)
    assert not quick.transport.disconnecting
    slow.disconnect()
    assert server.broadcast.count == 1
    server.broadcast.stopService()


def test_number_of_streams_is_limited(server: Server) -> None:
    server.broadcast = Broadcast(server.clock, 2)
    small = Server(max_streams=2)
    first = listen(small)
    listen(small)
    response = listen(small).response()
    assert response.status == 503
    assert "the limit is 2" in response.json["error"]
    first.disconnect()
    assert received_events(listen(small))


def test_number_of_watched_devices_is_limited(server: Server) -> None:
    connections = [
        listen(server, f"/api/devices/35630704244{number:04}/frames")
        for number in range(MAX_WATCHED_DEVICES)
    ]
    response = listen(server, f"/api/devices/{DEVICE}/frames").response()
    assert response.status == 503
    for connection in connections:
        connection.disconnect()
    assert server.broadcast.count == 0
    assert "200 OK" in listen(server, f"/api/devices/{DEVICE}/frames").text


def test_stream_of_frames_does_not_get_published_events(server: Server) -> None:
    connection = listen(server, f"/api/devices/{DEVICE}/frames")
    server.broadcast.publish(event("number", 1))
    assert numbers(connection) == []


def test_stop_closes_all_streams(server: Server) -> None:
    server.broadcast.startService()
    connections = [listen(server) for _ in range(3)]
    server.broadcast.stopService()
    assert all(one.transport.disconnecting for one in connections)
