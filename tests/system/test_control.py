"""The control port of a whole instance, from a client in Python."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.threads import deferToThread
from twisted.protocols import amp

from tests.admin import admin
from tests.servers import RedisServer, free_port
from tests.system.commands import send
from tests.system.raw import STREAM, Ingest, RawDevice, frame
from tests.system.test_commands import DEVICE, OTHER, answer, online, read_command
from tests.waiting import until, wait_for
from tracker import __version__
from tracker.admin.issuing import (
    Issuer,
    issue_client,
    make_key,
    pem,
    read_certificate,
    read_key,
    utc_now,
)
from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient
from tracker.control.commands import VERSION, NoSuchDevice, NotPermitted
from tracker.control.connection import NotConnected
from tracker.control.watching import DeviceEvent
from tracker.net.certificates import trust_root

Serve = Callable[..., Ingest]


class Place:
    """Where an instance has its control port.

    :param kind: ``unix``, ``ssl`` or ``tcp``.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "control.sock"
        if kind == "ssl":
            self.certificates(folder / "certs")

    def certificates(self, folder: Path) -> Path:
        """Make some, as an operator does."""
        made = admin("certs", str(folder), "--client", "admin", "--client", "eve")
        assert made.returncode == 0, made.stderr
        return folder

    @property
    def option(self) -> tuple[str, str]:
        """What the instance is told."""
        certs = self.folder / "certs"
        return "--control", {
            "unix": f"unix:{self.socket}",
            "ssl": f"ssl:{self.port}:privateKey={certs}/server.key:certKey={certs}/server.pem"
            f":clientCA={certs}/ca.pem",
            "tcp": f"tcp:{self.port}:plaintext=1",
        }[self.kind]

    def address(self, name: str = "admin", certs: Path | None = None, rest: str = "") -> str:
        """What a client is told."""
        certs = certs or self.folder / "certs"
        return {
            "unix": f"unix:{self.socket}",
            "ssl": f"ssl:localhost:{self.port}:privateKey={certs}/{name}.key"
            f":certKey={certs}/{name}.pem:caCert={certs}/ca.pem{rest}",
            "tcp": f"tcp:127.0.0.1:{self.port}",
        }[self.kind]


def connect(where: Any, retry: bool = False) -> ControlClient:
    """A client; of an address, or of an endpoint."""
    from twisted.internet import reactor

    endpoint = client_endpoint(reactor, where) if isinstance(where, str) else where
    client = ControlClient(reactor, endpoint, "test", retry)
    client.startService()
    return client


async def refused(where: Any) -> str:
    """What is told to a client that is not let in."""
    client = connect(where)
    try:
        await client.info()
    except NotConnected as error:
        return str(error)
    finally:
        await client.stopService()
    raise AssertionError("it was let in")


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """What blocks, as a device does."""
    return await deferToThread(function, *arguments)


@pytest.mark.parametrize("kind", ["unix", "ssl", "tcp"])
@ensureDeferred
async def test_everything_once(tmp_path: Path, serve: Serve, redis: RedisServer, kind: str) -> None:
    place = Place(kind, tmp_path)
    roles = tmp_path / "roles"
    roles.write_text("admin operate\neve read\n")
    ingest = serve("--instance-id", "one", *place.option, "--control-roles", str(roles))
    client = connect(place.address())
    device = online(ingest)
    try:
        info = await client.info()
        assert client.greeting["role"] == "operate"
        assert client.greeting["software"] == __version__
        assert (info["instance_id"], info["devices"], info["draining"]) == ("one", 1, False)
        assert info["streams"] == [STREAM]
        (row,) = [row async for row in client.connections()]
        assert (row["device_id"], row["vendor"], row["codec"]) == (DEVICE, "teltonika", "8")
        assert (row["records"], row["bytes"]) == (1, 17 + len(frame(1)))
        assert row["address"] == f"127.0.0.1:{device.socket.getsockname()[1]}"
        (row,) = [row async for row in client.registry(vendor="teltonika")]
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
        assert [line.partition("asks for ")[2].split()[0] for line in audited] == [
            *("SendCommand", "SendCommand", "SetLogLevel"),
            *("DropConnection", "DropConnection", "Drain"),
        ]
        assert all("(test) asks for" in line for line in audited)
        assert "getinfo" not in "".join(audited)
    finally:
        await client.stopService()
    if kind == "ssl":
        await only_reads(place, ingest)
    assert "Traceback" not in ingest.daemon.text
    assert ingest.daemon.stop() == 0


def port_of(device: RawDevice) -> int:
    port: int = device.socket.getsockname()[1]
    return port


async def only_reads(place: Place, ingest: Ingest) -> None:
    client = connect(place.address("eve"))
    try:
        assert (await client.info())["instance_id"] == "one"
        assert client.greeting["role"] == "read"
        with pytest.raises(NotPermitted):
            await client.drain(0)
    finally:
        await client.stopService()
    assert "may not ask for Drain" in ingest.daemon.text


# Who is not let in, and what they are told.


@ensureDeferred
async def test_who_is_not_let_in_is_told_why(tmp_path: Path, serve: Serve) -> None:
    place = Place("ssl", tmp_path)
    roles = tmp_path / "roles"
    roles.write_text("admin operate\n")
    ingest = serve(*place.option, "--control-roles", str(roles))
    theirs = place.certificates(tmp_path / "theirs")
    # Another authority's server is not talked to …
    told = await refused(place.address(certs=theirs))
    assert told == "TLS: certificate verify failed"
    # … nor one by another name.
    told = await refused(place.address(rest=":name=tracker.example.org"))
    assert told == "TLS: the server's certificate is for another name"
    # Another authority's client is not let in: ours has to show what it has.
    mixed = tmp_path / "mixed"
    shutil.copytree(theirs, mixed)
    shutil.copy(place.folder / "certs" / "ca.pem", mixed)
    assert "unknown ca" in await refused(place.address(certs=mixed))
    assert "certificate expired" in await refused(place.address(certs=expired(place)))
    assert "certificate required" in await refused(without_certificate(place))
    # Who is known and has no role is cut off, and the log tells why.
    told = await refused(place.address("eve"))
    assert told.startswith("the connection was cut off")
    lines = [line for line in ingest.daemon.text.splitlines() if "was cut off" in line]
    assert len(lines) == 1
    assert "certificate eve" in lines[0]
    assert lines[0].endswith("has no role")
    assert await refused(f"tcp:127.0.0.1:{place.port}")
    assert await refused(f"tcp:127.0.0.1:{free_port()}") == "Connection refused"
    assert await refused(f"unix:{tmp_path}/nobody.sock") == "No such file or directory"
    client = connect(place.address())
    assert await client.info()
    await client.stopService()
    assert "Traceback" not in ingest.daemon.text


def expired(place: Place) -> Path:
    """A client whose certificate is out of date."""
    ours, folder = place.folder / "certs", place.folder / "expired"
    shutil.copytree(ours, folder)
    issuer = Issuer(
        read_certificate((ours / "ca.pem").read_bytes()), read_key((ours / "ca.key").read_bytes())
    )
    key = make_key()
    (folder / "admin.key").write_bytes(pem(key))
    made = issue_client(issuer, key, "admin", now=utc_now() - timedelta(days=10), days=1)
    (folder / "admin.pem").write_bytes(pem(made))
    return folder


def without_certificate(place: Place) -> Any:
    from twisted.internet import reactor

    trusted = trust_root(place.folder / "certs" / "ca.pem")
    below = TCP4ClientEndpoint(reactor, "127.0.0.1", place.port)
    return wrapClientTLS(optionsForClientTLS("localhost", trusted), below)


# Coming back.


@pytest.mark.parametrize("kind", ["unix", "ssl"])
@ensureDeferred
async def test_a_client_comes_back_after_a_crash_and_watches_on(
    tmp_path: Path, serve: Serve, kind: str
) -> None:
    place = Place(kind, tmp_path)
    ingest = serve("--instance-id", "one", *place.option)
    client = connect(place.address(), retry=True)
    events: list[DeviceEvent] = []
    try:
        assert await client.watch(DEVICE, events.append) is False
        online(ingest).socket.close()
        kinds = ["connected", "sent", "received", "sent", "disconnected"]
        await until(lambda: [event.kind for event in events] == kinds, "watched")
        started_at = (await client.info())["started_at"]
        await in_thread(ingest.daemon.kill)
        if kind == "unix":
            assert place.socket.exists()  # what a killed process leaves behind
        await in_thread(ingest.daemon.start)
        again = await client.info()
        assert again["started_at"] > started_at
        assert again["watchers"] == 1
        online(ingest).socket.close()
        await until(lambda: [event.kind for event in events] == 2 * kinds, "watched on")
        assert [event.dropped for event in events] == [0] * 10
    finally:
        await client.stopService()
    assert ingest.daemon.stop() == 0
    assert not place.socket.exists()


@ensureDeferred
async def test_two_instances_do_not_share_a_socket(
    tmp_path: Path, serve: Serve, redis: RedisServer
) -> None:
    place = Place("unix", tmp_path)
    serve("--instance-id", "one", *place.option)
    (tmp_path / "two").mkdir()
    other = Ingest(tmp_path / "two", redis, "--instance-id", "two", *place.option)
    other.daemon.start(ready=False)
    assert other.daemon.wait() == 1
    (line,) = [line for line in other.daemon.text.splitlines() if "giving up" in line]
    assert "another process listens there" in line
    client = connect(place.address())
    assert (await client.info())["instance_id"] == "one"
    await client.stopService()


# A client that does not read.


def unread(place: Place, device_id: str) -> socket.socket:
    """A client that watches a device and reads nothing after that."""
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(10)
    raw.connect(str(place.socket))
    hello = {"_ask": b"1", "_command": b"Hello", "version": str(VERSION).encode()}
    watch = {"_ask": b"2", "_command": b"Watch", "device_id": device_id.encode()}
    raw.sendall(amp.AmpBox(hello).serialize() + amp.AmpBox(watch).serialize())
    read = b""
    while read.count(b"\x00\x00") < 2 or b"here" not in read:
        read += raw.recv(4096)
    return raw


@ensureDeferred
async def test_a_client_that_does_not_read_harms_nobody(tmp_path: Path, serve: Serve) -> None:
    place = Place("unix", tmp_path)
    ingest = serve(*place.option)
    device = online(ingest)
    client = connect(place.address())
    events: list[DeviceEvent] = []
    await client.watch(DEVICE, events.append)

    def send(first: int, count: int) -> None:
        for number in range(first, first + 50 * count, 50):
            assert device.deliver(*range(number, number + 50))

    await in_thread(send, 0, 200)  # what a process needs for its work, it has by now
    with unread(place, DEVICE) as raw:
        before = ingest.memory()
        for round_ in range(20):
            await in_thread(send, 100_000 * (round_ + 1), 100)
            assert (await client.info())["watchers"] == 2
        grown = ingest.memory() - before
        assert grown < 20 * 1024 * 1024, f"{grown / 1024 / 1024:.1f} MiB"
        # Whoever reads as fast as it can may miss some, too, and knows how many.
        await in_thread(send, 10_000_000, 1)
        await client.info()
        assert len(events) + sum(event.dropped for event in events) == 2 * 2201
        assert len(events) > 2000
        # When it reads on, it is told how many there were that it was not sent.
        dropped = await in_thread(read_on, raw, device)
        assert 0 < dropped < 4000
    await client.stopService()
    device.socket.close()


def read_on(raw: socket.socket, device: RawDevice) -> int:
    """Read all that was sent, and what comes next; how many events are said to be missing."""
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
    told = 0
    position = 0
    while (position := whole.find(b"\x00\x07dropped", position)) >= 0:
        position += 9
        length = int.from_bytes(whole[position : position + 2], "big")
        told += int(whole[position + 2 : position + 2 + length])
    return told


# Draining.


class Sending:
    """A device that sends packet after packet for as long as it may."""

    def __init__(self, ingest: Ingest, number: int) -> None:
        self.device_id = f"35630704{number:07}"
        self.device = ingest.connect()
        assert self.device.login(self.device_id) == b"\x01"
        self.acknowledged = 0

    def send(self) -> None:
        while True:
            try:
                if not self.device.deliver(self.acknowledged):
                    return
            except OSError:
                return
            self.acknowledged += 1


@ensureDeferred
async def test_a_drain_loses_no_acknowledgement(
    tmp_path: Path, serve: Serve, redis: RedisServer
) -> None:
    from twisted.internet import reactor

    place = Place("unix", tmp_path)
    ingest = serve("--instance-id", "one", *place.option)
    silent = ingest.connect()  # connected, and not logged in
    fleet = [Sending(ingest, number) for number in range(200)]
    client = connect(place.address())
    reactor.suggestThreadPoolSize(220)  # type: ignore[attr-defined]
    try:
        sending = [deferToThread(one.send) for one in fleet]
        await until(lambda: all(one.acknowledged > 1 for one in fleet), "all send", 60)
        drained = Deferred.fromCoroutine(client.drain(3.0))
        await until(lambda: "draining: 200 devices within 3 s" in ingest.daemon.text, "it drains")
        assert (await client.info())["draining"] is True
        assert ingest.daemon.readyz()[0] == 200
        with pytest.raises(ConnectionRefusedError):
            RawDevice(ingest.port)
        assert await in_thread(silent.login, OTHER) == b""  # comes again, elsewhere
        assert await drained == {"closed": 200, "left": 0}
        for sent in sending:
            await sent
    finally:
        reactor.suggestThreadPoolSize(10)  # type: ignore[attr-defined]
        for one in fleet:
            one.device.socket.close()
    stored = dict.fromkeys((one.device_id for one in fleet), 0)
    for _, fields in redis.client.xrange(STREAM):
        stored[fields[b"device_id"].decode()] += 1
    assert stored == {one.device_id: one.acknowledged for one in fleet}
    await until(lambda: not redis.client.hlen("connections:registry"), "nobody is registered")
    assert not redis.client.hlen("connections:vendors")
    info = await client.info()
    assert (info["connections"], info["devices"], info["draining"]) == (0, 0, True)
    assert ingest.daemon.readyz()[0] == 200
    await client.stopService()
    assert "Traceback" not in ingest.daemon.text
    assert ingest.daemon.stop() == 0


@ensureDeferred
async def test_a_packet_under_way_is_acknowledged_before_the_drain_ends_the_connection(
    tmp_path: Path, serve: Serve, redis: RedisServer
) -> None:
    place = Place("unix", tmp_path)
    ingest = serve(*place.option)
    device = online(ingest)
    client = connect(place.address())
    redis.suspend()
    device.send(frame(2))
    drained = Deferred.fromCoroutine(client.drain(0))
    await until(lambda: "draining: 1 devices" in ingest.daemon.text, "it drains")
    assert await in_thread(device.says_nothing)
    redis.resume()
    assert await in_thread(device.read, 5) == b"\x00\x00\x00\x01"
    assert await drained == {"closed": 1, "left": 0}
    await client.stopService()


# Other processes, the log.


@pytest.mark.parametrize("kind", ["unix", "ssl", "tcp"])
def test_the_heartbeat_names_the_control_port(
    tmp_path: Path, serve: Serve, redis: RedisServer, kind: str
) -> None:
    place = Place(kind, tmp_path)
    serve("--instance-id", "one", *place.option)
    beat = json.loads(redis.client.get("instance:heartbeat:one"))
    assert (
        beat["control"]
        == {
            "unix": f"unix:{place.socket}",
            "ssl": f"ssl:127.0.0.1:{place.port}",
            "tcp": f"tcp:127.0.0.1:{place.port}",
        }[kind]
    )


def test_without_a_control_port_it_names_none(serve: Serve, redis: RedisServer) -> None:
    ingest = serve("--instance-id", "one")
    assert "control" not in json.loads(redis.client.get("instance:heartbeat:one"))
    assert "redis (control)" not in str(ingest.daemon.readyz())


def offered(ingest: Ingest, number: int) -> str:
    """Have a command passed on, which is told at the level debug; the end of that line."""
    send(ingest.redis, "one", f"c{number}", DEVICE)
    waiting = f"commands:waiting:{DEVICE}"
    wait_for(lambda: ingest.redis.client.xlen(waiting) == 1, "passed on")
    ingest.redis.client.delete(waiting, "commands:waiting")
    return f"command c{number} to {DEVICE}: waits"


@ensureDeferred
async def test_the_level_of_the_log_changes_while_it_runs(tmp_path: Path, serve: Serve) -> None:
    place = Place("unix", tmp_path)
    ingest = serve("--instance-id", "one", *place.option)
    client = connect(place.address())
    hidden = await in_thread(offered, ingest, 1)
    assert await client.set_log_level("debug", "tracker.commands.delivery") == "info"
    shown = await in_thread(offered, ingest, 2)
    await until(lambda: shown in ingest.daemon.text, "it is told")
    assert hidden not in ingest.daemon.text
    await client.set_log_level("warn", "tracker.commands.delivery")
    hidden = await in_thread(offered, ingest, 3)
    assert await client.set_log_level("error") == "info"
    await client.drain(0)
    await client.stopService()
    assert ingest.daemon.stop() == 0
    assert hidden not in ingest.daemon.text
    assert "drained" not in ingest.daemon.text


def test_the_level_of_the_log_may_be_set_from_the_start(serve: Serve) -> None:
    ingest = serve("--instance-id", "one", "--log-level", "debug")
    shown = offered(ingest, 1)
    wait_for(lambda: shown in ingest.daemon.text, "it is told")


def test_or_to_less(serve: Serve) -> None:
    ingest = serve("--instance-id", "one", "--log-level", "error")
    ingest.connect().send(b"GET / HTTP/1.1\r\n\r\n")
    assert online(ingest)
    assert ingest.daemon.stop() == 0
    assert not ingest.rejections()
    assert "[tracker." not in ingest.daemon.text
