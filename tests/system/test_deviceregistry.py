"""Where each device is, as Redis is told by whole processes."""

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
    """Three of them."""
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
    """Two of them."""
    made = {}
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        made[name] = Ingest(
            *(folder, redis, "--instance-id", name),
            # All devices here are of one address, and log in as fast as they can.
            *("--connection-rate", "10000", "--connection-rate-per-address", "10000"),
        )
        made[name].daemon.start()
    yield made
    for ingest in made.values():
        ingest.daemon.kill()


def test_the_registry_is_right_after_hops_sweeps_and_a_death(
    instances: dict[str, Ingest], janitors: list[Daemon], redis: RedisServer
) -> None:
    random = Random(11)
    expected: dict[str, str] = {}
    newest: dict[str, RawDevice] = {}
    half_dead = []

    def hop(device_id: str, name: str) -> None:
        device = instances[name].connect()
        assert device.login(device_id) == b"\x01"
        expected[device_id] = name
        older = newest.get(device_id)
        newest[device_id] = device
        if older is not None and random.random() < 0.5:
            older.socket.close()
        elif older is not None:
            half_dead.append(older)

    for _ in range(5):
        for device_id in random.sample(DEVICES, len(DEVICES)):
            hop(device_id, random.choice(("one", "two")))
    for device in half_dead:
        device.socket.close()
    instances["two"].daemon.kill()
    # It expires after 90 seconds; the test has less patience, and nobody else sets it.
    redis.client.pexpire("instance:heartbeat:two", 1500)
    for device_id in random.sample(DEVICES, len(DEVICES) // 2):
        hop(device_id, "one")
    for device_id in random.sample(DEVICES, 40):
        newest.pop(device_id).socket.close()
        del expected[device_id]
    right = {device_id: name for device_id, name in expected.items() if name == "one"}
    assert len(right) < len(expected) < len(DEVICES)
    wait_for(lambda: device_registry(redis) == right, "the device registry is right")
    assert all(daemon.readyz()[0] == 200 for daemon in janitors)
    assert any("stale connections removed" in daemon.text for daemon in janitors)

    instances["two"].daemon.start()
    for device_id in DEVICES:
        hop(device_id, "two")
    wait_for(lambda: device_registry(redis) == dict.fromkeys(DEVICES, "two"), "all have come")
    assert instances["two"].daemon.stop() == 0
    assert instances["one"].daemon.stop() == 0
    assert device_registry(redis) == {}
    for device in (*half_dead, *newest.values()):
        device.socket.close()


def test_a_restarted_instance_takes_out_what_it_left_before(
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
    wait_for(lambda: device_registry(redis) == {DEVICES[1]: "one"}, "only who is there")
    for device in (*devices, again):
        device.socket.close()
