"""The system of compose.yaml, in containers that are built from this source tree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from tests.servers import free_port
from tests.system.processes import run
from tests.waiting import wait_for

ROOT: Final = Path(__file__).parents[2]
SERVICES: Final = ("valkey", "postgresql", "ingest", "process", "janitor", "console")
DEVICES: Final = 3


class System:
    """The containers of a project that only this run uses."""

    def __init__(self, folder: Path) -> None:
        """:param folder: a copy of the source tree."""
        self.folder = folder
        self._port, self._console_port = free_port(), free_port()
        self._environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": f"tracker-test-{os.getpid()}",
            "DEVICES_PORT": str(self._port),
            "CONSOLE_PORT": str(self._console_port),
        }

    def command(self, *arguments: str, timeout: float = 900) -> str:
        """Run a command in the folder; return its output."""
        ended = subprocess.run(
            arguments, cwd=self.folder, env=self._environment, timeout=timeout,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        return ended.stdout

    def compose(self, *arguments: str) -> str:
        """Run Compose; return its output."""
        version_2 = ("docker", "compose")
        found = subprocess.run([*version_2, "version"], capture_output=True, check=False)
        program = version_2 if found.returncode == 0 else ("docker-compose",)
        return self.command(*program, *arguments)

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what Docker knows of the container of a service."""
        container = self.compose("ps", "--quiet", service).strip()
        (found,) = json.loads(self.command("docker", "inspect", container))
        result: dict[str, Any] = found
        return result

    def start(self) -> None:
        """Run ``make up``, and wait until all containers are healthy."""
        self.command("make", "up")
        for service in SERVICES:
            wait_for(partial(self._is_healthy, service), f"{service} is healthy", 120)

    def _is_healthy(self, service: str) -> bool:
        return bool(self.inspect(service)["State"]["Health"]["Status"] == "healthy")

    def send(self) -> int:
        """Let simulated devices send from this host; return the number of acknowledged records."""
        shown = run(
            "tracker-admin", "simulate", "--target", f"tcp:127.0.0.1:{self._port}",
            "--devices", str(DEVICES), "--interval", "0.2", "--seconds", "2",
        )  # fmt: skip
        count = int(re.findall(r"([\d,]+) acknowledged", shown.stdout)[-1].replace(",", ""))
        assert count > 0
        return count

    def stored(self) -> int:
        """Return the number of positions in the database."""
        psql = ("psql", "--username=tracker", "--tuples-only", "--no-align", "--command")
        query = "SELECT count(*) FROM positions"
        return int(self.compose("exec", "-T", "postgresql", *psql, query))

    def devices(self) -> list[dict[str, Any]]:
        """Return the devices that the console shows to a browser on this host."""
        url = f"http://127.0.0.1:{self._console_port}/api/devices?limit=60"
        with urlopen(url, timeout=10) as reply:
            found: list[dict[str, Any]] = json.load(reply)["devices"]
            return found


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Yield the running system of a clean copy of the source tree."""
    folder = tmp_path_factory.mktemp("compose") / "tracker"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    system = System(folder)
    try:
        system.start()
        yield system
    finally:
        system.compose("down", "--volumes", "--timeout", "30")


def test_records_of_devices_outside_are_stored_in_postgresql(system: System) -> None:
    before = system.stored()
    count = system.send()
    wait_for(lambda: system.stored() == before + count, "all records are stored")


def test_console_of_this_host_shows_the_devices(system: System) -> None:
    system.send()
    wait_for(lambda: len(system.devices()) == DEVICES, "the devices are shown")
    assert all(one["latitude"] is not None for one in system.devices())


def test_admin_reaches_the_control_port_redis_and_the_database(system: System) -> None:
    admin = ("run", "--rm", "admin")
    assert json.loads(system.compose(*admin, "-o", "json", "info"))["instance_id"] == "ingest-1"
    shown = system.compose(*admin, "-o", "json", "doctor", "--port", "ingest:5027")
    status = {one["check"]: one["status"] for one in json.loads(shown)}
    for check in ("redis-reachable", "redis-eviction", "sink-reachable", "control-ports"):
        assert status[check] == "ok"
    assert "failure" not in status.values()


def test_no_container_has_privileges_or_a_file_system_to_write(system: System) -> None:
    for service in (*SERVICES, "console-port"):
        found = system.inspect(service)
        assert found["Config"]["User"] in ("999:999", "10001:10001")
        assert found["HostConfig"]["ReadonlyRootfs"]
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert not found["HostConfig"]["CapAdd"]
        assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges:true"]


def test_no_password_is_in_an_argument_or_a_variable(system: System) -> None:
    folder = Path(system.folder, "secrets")
    passwords = [(folder / "postgresql-password").read_text().strip()]
    passwords += re.findall(r":(\w+)@", "".join(p.read_text() for p in folder.glob("*.redis-url")))
    assert len(passwords) == 7
    for service in (*SERVICES, "console-port"):
        container = system.compose("ps", "--quiet", service).strip()
        known = json.dumps(system.inspect(service)) + system.command("docker", "top", container)
        assert not [password for password in passwords if password in known]


def test_positions_survive_the_removal_of_all_containers(system: System) -> None:
    before = system.stored()
    system.compose("down", "--timeout", "30")
    system.start()
    assert system.stored() == before
    count = system.send()
    wait_for(lambda: system.stored() == before + count, "all records are stored")
