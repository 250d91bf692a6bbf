"""Drains of an instance, and its log levels."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.servers import RedisServer
from tests.system.commands import send
from tests.system.ports import ControlPort, Serve, connect, in_thread
from tests.system.raw import STREAM, Ingest, RawDevice, frame
from tests.system.test_commands import DEVICE, OTHER, online
from tests.waiting import until, wait_for


class Sending:
    """A device that sends frames until its connection ends."""

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
async def test_drain_loses_no_acknowledged_record(
    tmp_path: Path, serve: Serve, redis: RedisServer
) -> None:
    from twisted.internet import reactor

    control_port = ControlPort("unix", tmp_path)
    ingest = serve("--instance-id", "one", *control_port.option)
    silent = ingest.connect()  # connected, and not logged in
    fleet = [Sending(ingest, number) for number in range(200)]
    client = connect(control_port.address())
    reactor.suggestThreadPoolSize(220)  # type: ignore[attr-defined]
    try:
        sending = [deferToThread(one.send) for one in fleet]
        await until(lambda: all(one.acknowledged > 1 for one in fleet), "all send", 60)
        drained = Deferred.fromCoroutine(client.drain(3.0))
        await until(lambda: "200 devices within 3s" in ingest.daemon.text, "draining")
        assert (await client.info())["draining"] is True
        assert ingest.daemon.readyz()[0] == 200
        with pytest.raises(ConnectionRefusedError):
            RawDevice(ingest.port)
        assert await in_thread(silent.login, OTHER) == b""  # closed without a reply
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
    await until(lambda: not redis.client.hlen("connections:registry"), "device registry empty")
    assert not redis.client.hlen("connections:vendors")
    info = await client.info()
    assert (info["connections"], info["devices"], info["draining"]) == (0, 0, True)
    assert ingest.daemon.readyz()[0] == 200
    await client.stopService()
    assert "Traceback" not in ingest.daemon.text
    assert ingest.daemon.stop() == 0


@ensureDeferred
async def test_frame_under_way_is_acknowledged_before_the_drain_closes_the_connection(
    tmp_path: Path, serve: Serve, redis: RedisServer
) -> None:
    control_port = ControlPort("unix", tmp_path)
    ingest = serve(*control_port.option)
    device = online(ingest)
    client = connect(control_port.address())
    redis.suspend()
    device.send(frame(2))
    drained = Deferred.fromCoroutine(client.drain(0))
    await until(lambda: "connections of 1 device" in ingest.daemon.text, "draining")
    assert await in_thread(device.is_silent)
    redis.resume()
    assert await in_thread(device.read, 5) == b"\x00\x00\x00\x01"
    assert await drained == {"closed": 1, "left": 0}
    await client.stopService()


# Log levels.


def pass_on_command(ingest: Ingest, number: int) -> str:
    """Let a command be passed on; return the end of its log line at level debug."""
    send(ingest.redis, "one", f"c{number}", DEVICE)
    waiting = f"commands:waiting:{DEVICE}"
    wait_for(lambda: ingest.redis.client.xlen(waiting) == 1, "passed on")
    ingest.redis.client.delete(waiting, "commands:waiting")
    return f"command c{number} to {DEVICE}: waits"


@ensureDeferred
async def test_log_level_can_be_changed_at_run_time(tmp_path: Path, serve: Serve) -> None:
    control_port = ControlPort("unix", tmp_path)
    ingest = serve("--instance-id", "one", *control_port.option)
    client = connect(control_port.address())
    hidden = await in_thread(pass_on_command, ingest, 1)
    assert await client.set_log_level("debug", "tracker.commands") == "info"
    shown = await in_thread(pass_on_command, ingest, 2)
    await until(lambda: shown in ingest.daemon.text, "logged")
    assert hidden not in ingest.daemon.text
    await client.set_log_level("warn", "tracker.commands")
    hidden = await in_thread(pass_on_command, ingest, 3)
    assert await client.set_log_level("error") == "info"
    await client.drain(0)
    await client.stopService()
    assert ingest.daemon.stop() == 0
    assert hidden not in ingest.daemon.text
    assert "drained" not in ingest.daemon.text


def test_log_level_can_be_set_at_start(serve: Serve) -> None:
    ingest = serve("--instance-id", "one", "--log-level", "debug")
    shown = pass_on_command(ingest, 1)
    wait_for(lambda: shown in ingest.daemon.text, "logged")
