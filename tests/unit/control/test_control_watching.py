"""Tests of watching devices, and of clients that do not read."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from twisted.logger import LogEvent, LogLevel

from tests.unit.control.wire import (
    DEVICE,
    OTHER,
    TRANSPORT_BUFFER_BYTES,
    Client,
    Port,
    log_lines,
    no_traceback,
)
from tracker.control.commands import (
    BadArgument,
    DropConnection,
    Info,
    NoSuchDevice,
    Unwatch,
    Watch,
)
from tracker.control.handler import MAX_WATCHED
from tracker.control.server import (
    UNREAD_TIMEOUT,
)
from tracker.interfaces import Traffic


def test_watcher_receives_all_events_of_a_device(port: Port, client: Client) -> None:
    port.clock.advance(1000)
    assert client.ask(Watch, device_id=DEVICE) == {"here": False}
    port.instance.connect(DEVICE)
    port.instance.happened(DEVICE, Traffic.CONNECTED, b"192.0.2.1:40000")
    port.instance.happened(DEVICE, Traffic.RECEIVED, b"\x00\x01")
    port.clock.advance(1)
    port.instance.happened(DEVICE, Traffic.SENT, b"\x02")
    port.instance.happened(DEVICE, Traffic.REJECTED, "no g\u00fc\ud800".encode(errors="replace"))
    port.instance.happened(DEVICE, Traffic.DISCONNECTED, b"192.0.2.1:40000")
    client.pump()
    common = {"device_id": DEVICE, "truncated": False, "dropped": 0}
    address = json.dumps({"text": "192.0.2.1:40000"})
    frame = json.dumps({"kind": "frame"})
    assert client.events == [
        common | {"at": 1000.0, "kind": "connected", "raw": None, "decoded": address},
        common | {"at": 1000.0, "kind": "received", "raw": "0001", "decoded": frame},
        common | {"at": 1001.0, "kind": "sent", "raw": "02", "decoded": frame},
        common
        | {"at": 1001.0, "kind": "rejected", "raw": None, "decoded": '{"text": "no g\\u00fc?"}'},
        common | {"at": 1001.0, "kind": "disconnected", "raw": None, "decoded": address},
    ]


def test_watcher_receives_nothing_after_its_permission_is_removed(
    port: Port, client: Client
) -> None:
    client.ask(Watch, device_id=DEVICE)
    port.factory.permissions.local = None  # type: ignore[assignment]
    port.instance.happened(DEVICE, Traffic.SENT)
    client.pump()
    assert client.aborted
    assert client.events == []
    assert not port.instance.watched


def test_second_watch_of_a_device_has_no_further_effect(port: Port, client: Client) -> None:
    port.instance.connect(DEVICE)
    for _ in range(2):
        assert client.ask(Watch, device_id=DEVICE) == {"here": True}
    assert len(port.instance.watched) == 1
    port.instance.happened(DEVICE, Traffic.SENT)
    client.pump()
    assert len(client.events) == 1
    assert client.ask(Unwatch, device_id=DEVICE) == {}
    assert not port.instance.watched
    assert isinstance(client.refusal(Unwatch, device_id=DEVICE), NoSuchDevice)


def test_unwatch_refuses_a_device_that_is_not_watched(port: Port, client: Client) -> None:
    port.client().ask(Watch, device_id=DEVICE)
    error = client.refusal(Unwatch, device_id=DEVICE)
    assert isinstance(error, NoSuchDevice)
    assert str(error) == f"{DEVICE} is not watched"
    assert len(port.instance.watched) == 1


def test_two_clients_may_watch_the_same_device(port: Port, client: Client) -> None:
    other = port.client()
    for one in (client, other):
        one.ask(Watch, device_id=DEVICE)
    assert port.factory.watchers == 2
    port.instance.happened(DEVICE, Traffic.SENT)
    client.ask(Unwatch, device_id=DEVICE)
    port.instance.happened(DEVICE, Traffic.SENT)
    port.instance.happened(OTHER, Traffic.SENT)
    for one in (client, other):
        one.pump()
    assert (len(client.events), len(other.events)) == (1, 2)


def test_disconnect_stops_watching(port: Port, client: Client) -> None:
    other = port.client()
    for device_id in (DEVICE, OTHER):
        client.ask(Watch, device_id=device_id)
        other.ask(Watch, device_id=device_id)
    client.leave()
    assert [device_id for device_id, _ in port.instance.watched] == [DEVICE, OTHER]
    port.instance.happened(DEVICE, Traffic.SENT)
    other.pump()
    assert (len(client.events), len(other.events)) == (0, 1)


def test_number_of_watched_devices_is_limited(port: Port, client: Client) -> None:
    for number in range(MAX_WATCHED):
        client.ask(Watch, device_id=f"{number:015}")
    error = client.refusal(Watch, device_id=DEVICE)
    assert isinstance(error, BadArgument)
    assert str(error) == f"at most {MAX_WATCHED} devices can be watched at a time"
    assert client.ask(Watch, device_id="0" * 15)  # already watched
    client.ask(Unwatch, device_id="0" * 15)
    assert client.ask(Watch, device_id=DEVICE)
    assert len(port.instance.watched) == MAX_WATCHED


@pytest.mark.parametrize("device_id", ["", "1" * 13, "1" * 60_000])
def test_watch_refuses_a_malformed_device_id(port: Port, client: Client, device_id: str) -> None:
    assert isinstance(client.refusal(Watch, device_id=device_id), BadArgument)
    assert not port.instance.watched


# Clients that do not read.


def fill(port: Port, client: Client, *others: Client) -> int:
    """Send events until the client's transport is full; return their number."""
    client.far.client_reads = False
    count = 0
    while not client.server.unread:
        port.instance.happened(DEVICE, Traffic.RECEIVED, b"x" * 1000)
        count += 1
        for other in others:
            other.pump()
    assert client.far.waiting > TRANSPORT_BUFFER_BYTES
    return count


def test_events_are_dropped_and_counted_while_the_client_does_not_read(
    port: Port, client: Client
) -> None:
    client.ask(Watch, device_id=DEVICE)
    sent = fill(port, client)
    waiting = client.far.waiting
    for _ in range(500):
        port.instance.happened(DEVICE, Traffic.RECEIVED, b"x" * 1000)
    assert client.far.waiting == waiting
    client.far.client_reads = True
    client.pump()
    assert len(client.events) == sent
    port.instance.happened(DEVICE, Traffic.SENT)
    port.instance.happened(DEVICE, Traffic.SENT)
    client.pump()
    assert [event["dropped"] for event in client.events] == [0] * sent + [500, 0]
    assert port.timers == 0


def test_client_that_does_not_read_does_not_delay_others(port: Port, client: Client) -> None:
    other = port.client()
    for one in (client, other):
        one.ask(Watch, device_id=DEVICE)
    sent = fill(port, client, other)
    port.instance.happened(DEVICE, Traffic.SENT)
    other.pump()
    assert len(other.events) == sent + 1
    assert other.ask(Info)


def test_commands_of_a_client_that_does_not_read_wait(port: Port, client: Client) -> None:
    client.ask(Watch, device_id=DEVICE)
    fill(port, client)
    asked = client.begin(DropConnection, device_id=DEVICE)
    client.pump()
    port.instance.connect(DEVICE)
    assert not port.instance.dropped
    client.far.client_reads = True
    client.pump()
    assert asked.result()
    assert port.timers == 0


def test_client_that_does_not_read_for_long_is_disconnected(
    port: Port, client: Client, logged: Sequence[LogEvent]
) -> None:
    client.ask(Watch, device_id=DEVICE)
    fill(port, client)
    port.clock.advance(UNREAD_TIMEOUT - 0.1)
    assert client.is_open
    port.clock.advance(0.1)
    client.far.client_reads = True
    client.pump()
    assert client.aborted
    assert not port.instance.watched
    assert port.timers == 0
    (line,) = log_lines(logged, LogLevel.warn)
    assert line.endswith("the client has not read for 1m")
    assert no_traceback(logged)


def test_client_that_reads_before_the_timeout_stays_connected(port: Port, client: Client) -> None:
    client.ask(Watch, device_id=DEVICE)
    for _ in range(3):
        fill(port, client)
        port.clock.advance(UNREAD_TIMEOUT - 0.1)
        client.far.client_reads = True
        client.pump()
    assert client.is_open
    assert port.timers == 0


def test_disconnect_of_a_client_that_does_not_read_leaves_no_timer(
    port: Port, client: Client
) -> None:
    client.ask(Watch, device_id=DEVICE)
    fill(port, client)
    client.server.connectionLost()
    assert port.timers == 0
    assert not port.instance.watched


def test_unread_replies_delay_further_commands(port: Port, client: Client) -> None:
    port.instance.streams = ["s" * 200] * 100
    client.far.client_reads = False
    asked = [client.begin(Info) for _ in range(100)]
    client.pump()
    assert client.server.unread
    assert client.far.waiting < TRANSPORT_BUFFER_BYTES + 30_000
    client.far.client_reads = True
    client.pump()
    assert all(one.has_reply for one in asked)
