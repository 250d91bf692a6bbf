"""Control ports without any option: where they are, and how clients find them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin import Ended, admin
from tests.servers import RedisServer, free_port
from tests.system.controlled import answering, imei
from tests.system.processes import Daemon, environment
from tests.system.raw import Ingest
from tests.system.test_commands import online
from tests.system.test_console import Console
from tests.waiting import wait_for


class Place:
    """Instances whose control sockets are in the runtime folder of a user's login."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.folder = folder
        self.redis = redis
        self.variables = {
            "XDG_RUNTIME_DIR": str(folder),
            # Root creates /run/tracker, which other tests share.
            "RUNTIME_DIRECTORY": str(folder / "tracker") if os.geteuid() == 0 else "",
        }
        self.daemons: list[Daemon] = []
        if os.geteuid() == 0:
            (folder / "tracker").mkdir()

    def ingest(self, name: str, *options: str) -> Ingest:
        """Start an instance without ``--control``."""
        (self.folder / name).mkdir()
        ingest = Ingest(self.folder / name, self.redis, *options, variables=self.variables)
        self.daemons.append(ingest.daemon)
        ingest.daemon.start()
        return ingest

    def admin(self, *arguments: str, exit_code: int = 0) -> Ended:
        """Run a command without ``--control``."""
        ended = admin(*arguments, env=environment(**self.variables))
        assert ended.returncode == exit_code, ended.stdout + ended.stderr
        return ended

    def json(self, *arguments: str) -> Any:
        """Run a command and return the JSON that it prints."""
        return json.loads(self.admin("-o", "json", *arguments).stdout)


@pytest.fixture
def place(tmp_path: Path, redis: RedisServer) -> Iterator[Place]:
    place = Place(tmp_path, redis)
    yield place
    for daemon in place.daemons:
        daemon.kill()


def test_clients_reach_an_instance_without_any_option(place: Place) -> None:
    ingest = place.ingest("one")
    device_id = imei()
    device = online(ingest, device_id)
    assert [row["device_id"] for row in place.json("connections")] == [device_id]
    answered = answering(device, "fine")
    assert place.json("send", device_id, "getinfo")["response"] == "fine"
    answered.result(20)
    assert "Watching" in place.admin("watch", device_id, "--seconds", "0.1").stderr
    console = Console(place.folder, place.redis)
    place.daemons.append(console)
    console.start()
    answered = answering(device, "fine")
    wait_for(lambda: console.send(device_id, "getver")[0] == 200, "the console has sent a command")
    answered.result(20)
    assert place.json("drop", device_id)["device_id"] == device_id


def test_command_for_a_device_reaches_its_instance(place: Place) -> None:
    ingests = [place.ingest(name, "--instance-id", name) for name in ("one", "two")]
    devices = [imei() for _ in ingests]
    _connections = [online(ingest, device) for ingest, device in zip(ingests, devices, strict=True)]
    for device_id, name in zip(devices, ("one", "two"), strict=True):
        found = place.json("device", device_id)
        assert (found["instance_id"], found["here"]) == (name, True)
        watching = place.admin("watch", device_id, "--seconds", "0.1").stderr
        assert f"Watching {device_id} on {name}\n" in watching
    assert len(place.json("device-registry")) == 2
    refused = place.admin("info", exit_code=2).stderr
    assert all(f"control-{name}.sock" in refused for name in ("one", "two"))
    assert refused.count("\n") == 1
    # One that does not reply is left out, and one that was killed is not tried.
    ingests[0].daemon.suspend()
    assert place.json("drop", devices[1])["device_id"] == devices[1]
    ingests[0].daemon.kill()
    assert place.json("info")["instance_id"] == "two"


def test_second_instance_with_the_same_id_leaves_the_first_ones_socket(place: Place) -> None:
    place.ingest("one", "--instance-id", "same")
    other = RedisServer(place.folder / "other")
    other.start()
    try:
        second = Daemon(
            place.folder, "second", "ingest", "--instance-id", "same",
            *("--listen", f"teltonika=tcp:{free_port()}"),
            variables={**place.variables, "REDIS_URL": other.url},
        )  # fmt: skip
        place.daemons.append(second)
        second.start()
        (line,) = [line for line in second.text.splitlines() if "no control port" in line]
        assert "another process listens on this socket" in line
        assert second.stop() == 0
    finally:
        other.kill()
    assert place.json("info")["instance_id"] == "same"


def test_instance_without_a_control_port_is_reported_by_log_doctor_and_console(
    place: Place,
) -> None:
    ingest = place.ingest("one", "--instance-id", "silent", "--control", "none")
    assert "--control none" in ingest.daemon.text
    place.admin("info", exit_code=2)
    wait_for(lambda: place.redis.client.exists("instance:heartbeat:silent"), "a heartbeat")
    findings = json.loads(
        admin("-o", "json", "doctor", "--redis", place.redis.url, env=environment()).stdout
    )
    (found,) = [one for one in findings if one["check"] == "control-ports"]
    assert found["status"] == "warning"
    assert "silent" in found["seen"]
    console = Console(place.folder, place.redis)
    place.daemons.append(console)
    console.start()
    wait_for(lambda: console.overview().get("instances"), "the console knows the instance")
    status, reply = console.send(imei(), "getver")
    assert status == 503
    assert "no running instance has a control port" in reply["error"]
