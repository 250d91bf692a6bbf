"""Tests of the control port of a whole instance with the Python client."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.protocols import amp

from tests.servers import RedisServer
from tests.system.ports import ControlPort, Serve, connect, in_thread
from tests.system.raw import STREAM, Ingest, RawDevice, frame
from tests.system.test_commands import DEVICE, answer, online, read_command
from tests.waiting import until
from tracker import __version__
from tracker.control.commands import VERSION, NoSuchDevice, NotPermitted
from tracker.control.watching import DeviceEvent


@ensureDeferred
async def test_client_uses_all_commands_of_the_control_port_over_tls(
    tmp_path: Path, serve: Serve, redis: RedisServer
) -> None:
    control_port = ControlPort("ssl", tmp_path)
    permissions = tmp_path / "permissions"
    permissions.write_text("admin operate\neve read\n")
    ingest = serve(
        "--instance-id", "one", *control_port.option, "--control-permissions", str(permissions)
    )
    assert control_of(redis) == f"ssl:127.0.0.1:{control_port.port}"
    client = connect(control_port.address())
    device = online(ingest)
    try:
        info = await client.info()
        assert client.greeting["permission"] == "operate"
        assert client.greeting["software"] == __version__
        assert (info["instance_id"], info["devices"], info["draining"]) == ("one", 1, False)
        assert info["streams"] == [STREAM]
        (row,) = [row async for row in client.connections()]
        assert (row["device_id"], row["vendor"], row["codec"]) == (DEVICE, "teltonika", "8")
        assert (row["records"], row["bytes"]) == (1, 17 + len(frame(1)))
        assert row["address"] == f"127.0.0.1:{device.socket.getsockname()[1]}"
        (row,) = [row async for row in client.device_registry(vendor="teltonika")]
        assert (row["device_id"], row["instance_id"]) == (DEVICE, "one")
        found = await client.device(DEVICE)
        assert (found["here"], found["queued"], found["outstanding"]) == (True, 0, False)
        events: list[DeviceEvent] = []
        assert await client.watch(DEVICE, events.append) is True
        sent = await client.send_command(DEVICE, "getinfo", command_id="c1", timeout=10.0)
        assert (sent["status"], sent["instance_id"]) == ("queued", "one")
        command = await in_thread(read_command, device)
        assert command.text == "getinfo"
        assert (await client.device(DEVICE))["outstanding"] is True
        waiting = Deferred.fromCoroutine(
            client.send_command(DEVICE, "getver", command_id="c2", wait=True)
        )
        await in_thread(answer, device, "INI:2026", command)
        command = await in_thread(read_command, device)
        assert command.text == "getver"
        assert (await client.command_status("c1"))["response"] == "INI:2026"
        assert (await client.command_status("c2"))["status"] in ("sent", "delivered")
        await in_thread(answer, device, "Ver:3", command)
        assert (await waiting)["response"] == "Ver:3"
        assert [(event.kind, json.loads(event.decoded).get("text")) for event in events] == [
            ("sent", "getinfo"),
            ("received", "INI:2026"),
            ("sent", "getver"),
            ("received", "Ver:3"),
        ]
        await client.unwatch(DEVICE)
        (row,) = await client.lag([STREAM])
        assert (row["stream"], row["entries"], row["group"]) == (STREAM, 1 + 2, None)
        assert await client.set_log_level("debug", "tracker.control") == "info"
        assert await client.drop_connection(DEVICE) == f"127.0.0.1:{port_of(device)}"
        assert await in_thread(device.is_closed)
        with pytest.raises(NoSuchDevice):
            await client.drop_connection(DEVICE)
        assert await client.drain(0) == {"closed": 0, "left": 0}
        audited = [line for line in ingest.daemon.text.splitlines() if "audit: " in line]
        assert [line.partition(" requested ")[2].split()[0] for line in audited] == [
            *("SendCommand", "SendCommand", "SetLogLevel"),
            *("DropConnection", "DropConnection", "Drain"),
        ]
        assert all("(test) requested" in line for line in audited)
        assert "getinfo" not in "".join(audited)
    finally:
        await client.stopService()
    await only_reads(control_port, ingest)
    assert "Traceback" not in ingest.daemon.text
    assert ingest.daemon.stop() == 0


def control_of(redis: RedisServer) -> Any:
    """Return the address of the control port in the heartbeat."""
    return json.loads(redis.client.get("instance:heartbeat:one"))["control"]


def port_of(device: RawDevice) -> int:
    port: int = device.socket.getsockname()[1]
    return port


async def only_reads(control_port: ControlPort, ingest: Ingest) -> None:
    client = connect(control_port.address("eve"))
    try:
        assert (await client.info())["instance_id"] == "one"
        assert client.greeting["permission"] == "read"
        with pytest.raises(NotPermitted):
            await client.drain(0)
    finally:
        await client.stopService()
    assert "was denied Drain" in ingest.daemon.text


# Reconnecting.


@ensureDeferred
async def test_client_reconnects_after_a_crash_and_watches_again(
    tmp_path: Path, serve: Serve, redis: RedisServer
) -> None:
    control_port = ControlPort("unix", tmp_path)
    ingest = serve("--instance-id", "one", *control_port.option)
    assert control_of(redis) == f"unix:{control_port.socket}"
    client = connect(control_port.address(), retry=True)
    events: list[DeviceEvent] = []
    try:
        assert await client.watch(DEVICE, events.append) is False
        online(ingest).socket.close()
        kinds = ["connected", "sent", "received", "sent", "disconnected"]
        await until(lambda: [event.kind for event in events] == kinds, "watched")
        started_at = (await client.info())["started_at"]
        await in_thread(ingest.daemon.kill)
        assert control_port.socket.exists()  # left by the killed process
        await in_thread(ingest.daemon.start)
        again = await client.info()
        assert again["started_at"] > started_at
        assert again["watchers"] == 1
        online(ingest).socket.close()
        await until(lambda: [event.kind for event in events] == 2 * kinds, "watched again")
        assert [event.dropped for event in events] == [0] * 10
    finally:
        await client.stopService()
    assert ingest.daemon.stop() == 0
    assert not control_port.socket.exists()


# A client that does not read.


def unread(control_port: ControlPort, device_id: str) -> socket.socket:
    """Return a client that watches a device and reads nothing after that."""
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(10)
    raw.connect(str(control_port.socket))
    hello = {"_ask": b"1", "_command": b"Hello", "version": str(VERSION).encode()}
    watch = {"_ask": b"2", "_command": b"Watch", "device_id": device_id.encode()}
    raw.sendall(amp.AmpBox(hello).serialize() + amp.AmpBox(watch).serialize())
    read = b""
    while read.count(b"\x00\x00") < 2 or b"here" not in read:
        read += raw.recv(4096)
    return raw


@ensureDeferred
async def test_client_that_does_not_read_does_not_affect_others(
    tmp_path: Path, serve: Serve
) -> None:
    control_port = ControlPort("unix", tmp_path)
    ingest = serve(*control_port.option)
    device = online(ingest)
    client = connect(control_port.address())
    events: list[DeviceEvent] = []
    await client.watch(DEVICE, events.append)

    def send(first: int, count: int) -> None:
        for number in range(first, first + 50 * count, 50):
            assert device.deliver(*range(number, number + 50))

    await in_thread(send, 0, 200)  # warm up, until the memory of the process is stable
    with unread(control_port, DEVICE) as raw:
        before = ingest.memory()
        for round_ in range(20):
            await in_thread(send, 100_000 * (round_ + 1), 100)
            assert (await client.info())["watchers"] == 2
        grown = ingest.memory() - before
        assert grown < 20 * 1024 * 1024, f"{grown / 1024 / 1024:.1f} MiB"
        # A client that reads can miss events, too, and learns their number.
        await in_thread(send, 10_000_000, 1)
        await client.info()
        assert len(events) + sum(event.dropped for event in events) == 2 * 2201
        assert len(events) > 2000
        # When the other client reads again, it learns the number of dropped events.
        dropped = await in_thread(read_on, raw, device)
        assert 0 < dropped < 4000
    await client.stopService()
    device.socket.close()


def read_on(raw: socket.socket, device: RawDevice) -> int:
    """Read all events that were sent and some new ones; return the number of dropped events."""
    read = b""
    raw.settimeout(0.5)
    for number in range(20):
        try:
            while data := raw.recv(1 << 20):
                read += data
        except TimeoutError:
            pass
        device.deliver(number)
    whole = read[: read.rfind(b"\x00\x00", 0, -1)]
    dropped = 0
    position = 0
    while (position := whole.find(b"\x00\x07dropped", position)) >= 0:
        position += 9
        length = int.from_bytes(whole[position : position + 2], "big")
        dropped += int(whole[position + 2 : position + 2 + length])
    return dropped
