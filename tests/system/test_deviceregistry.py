"""Tests of the device registry with whole processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.servers import RedisServer
from tests.system.commands import device_registry
from tests.system.processes import Daemon
from tests.system.raw import Ingest, RawDevice
from tests.waiting import wait_for
from tracker.simulator.fleet import simulated_imei

DEVICES = [simulated_imei(number) for number in range(200)]


@pytest.fixture
def janitors(tmp_path: Path, redis: RedisServer) -> Iterator[list[Daemon]]:
    """Return three running janitors."""
    daemons = [
        Daemon(
            *(tmp_path, f"janitor-{number}", "janitor", "--redis", redis.url, "--interval", "1s")
        )
        for number in range(3)
    ]
    for daemon in daemons:
        daemon.start(ready=False)
    yield daemons
    for daemon in daemons:
        daemon.kill()


@pytest.fixture
def instances(tmp_path: Path, redis: RedisServer) -> Iterator[dict[str, Ingest]]:
    """Return two running instances."""
    made = {}
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        made[name] = Ingest(
            *(folder, redis, "--instance-id", name),
            # All devices have the same address, and log in as fast as possible.
            *("--connection-rate", "10000", "--connection-rate-per-address", "10000"),
        )
        made[name].daemon.start()
    yield made
    for ingest in made.values():
        ingest.daemon.kill()


def test_device_registry_is_correct_after_moves_sweeps_and_a_crash(
    instances: dict[str, Ingest], janitors: list[Daemon], redis: RedisServer
) -> None:
    random = Random(11)
    expected: dict[str, str] = {}
    newest: dict[str, RawDevice] = {}
    half_open = []

    def hop(device_id: str, name: str) -> None:
        device = instances[name].connect()
        assert device.login(device_id) == b"\x01"
        expected[device_id] = name
        older = newest.get(device_id)
        newest[device_id] = device
        if older is not None and random.random() < 0.5:
            older.socket.close()
        elif older is not None:
            half_open.append(older)

    for _ in range(5):
        for device_id in random.sample(DEVICES, len(DEVICES)):
            hop(device_id, random.choice(("one", "two")))
    for device in half_open:
        device.socket.close()
    instances["two"].daemon.kill()
    # The heartbeat would expire after 90 seconds; the killed instance does not renew it.
    redis.client.pexpire("instance:heartbeat:two", 1500)
    for device_id in random.sample(DEVICES, len(DEVICES) // 2):
        hop(device_id, "one")
    for device_id in random.sample(DEVICES, 40):
        newest.pop(device_id).socket.close()
        del expected[device_id]
    right = {device_id: name for device_id, name in expected.items() if name == "one"}
    assert len(right) < len(expected) < len(DEVICES)
    wait_for(lambda: device_registry(redis) == right, "the device registry is correct")
    for daemon in janitors:  # one may have started only just now
        daemon.wait_until_ready()
    wait_for(
        lambda: any("stale connections removed" in daemon.text for daemon in janitors),
        "a janitor logs the removal",
    )

    instances["two"].daemon.start()
    for device_id in DEVICES:
        hop(device_id, "two")
    wait_for(
        lambda: device_registry(redis) == dict.fromkeys(DEVICES, "two"), "all devices have moved"
    )
    assert instances["two"].daemon.stop() == 0
    assert instances["one"].daemon.stop() == 0
    assert device_registry(redis) == {}
    for device in (*half_open, *newest.values()):
        device.socket.close()


def test_restarted_instance_unregisters_its_leftovers(
    instances: dict[str, Ingest], redis: RedisServer
) -> None:
    devices = [instances["one"].connect() for _ in range(3)]
    for number, device in enumerate(devices):
        assert device.login(DEVICES[number]) == b"\x01"
    wait_for(lambda: len(device_registry(redis)) == 3, "registered")
    instances["one"].daemon.kill()
    instances["one"].daemon.start()
    again = instances["one"].connect()
    assert again.login(DEVICES[1]) == b"\x01"
    wait_for(
        lambda: device_registry(redis) == {DEVICES[1]: "one"},
        "only the reconnected device is registered",
    )
    for device in (*devices, again):
        device.socket.close()
