"""A site of all roles under load, and a Prometheus that scrapes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.poison import position
from tests.ops.prometheus import ROOT, Prometheus
from tests.servers import RedisServer, free_port
from tests.system.commands import Responses
from tests.system.processes import Daemon, Simulation
from tests.unit.bridge.double import BRIDGE_TOKEN
from tests.waiting import wait_for


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Fail with a clear message if a program is missing."""
    for program in ("promtool", "prometheus"):
        assert shutil.which(program), f"{program} is not installed: apt-get install prometheus"


class Site:
    """Redis, one process of each role, simulated devices, and Prometheus."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder / "redis")
        port, directus = free_port(), free_port()
        redis = ("--redis", self.redis.url)
        listen = ("--listen", f"teltonika=tcp:{port}:interface=127.0.0.1")
        self.daemons = {
            "ingest": Daemon(
                *(folder, "ingest", "ingest", *redis, *listen, "--instance-id", "one"),
                *("--control", f"unix:{folder / 'control.sock'}"),
            ),
            "process": Daemon(
                *(folder, "process", "process", *redis, "--consumer", "one"),
                *("--sink", f"sqlite:{folder / 'positions.sqlite'}"),
            ),
            "janitor": Daemon(*(folder, "janitor", "janitor", *redis, "--interval", "2s")),
            "bridge": Daemon(
                *(folder, "bridge", "bridge", *redis, "--consumer", "one"),
                *("--directus", f"http://127.0.0.1:{directus}", "--poll-commands", "1"),
                *("--webhook", f"tcp:{free_port()}"),
                variables={"DIRECTUS_TOKEN": BRIDGE_TOKEN, "TRACKER_WEBHOOK_SECRET": "secret" * 8},
            ),
        }
        targets = {role: one.url("").split("/")[2] for role, one in self.daemons.items()}
        self.prometheus = Prometheus(folder, targets)
        self._folder = folder
        self._port = port
        self._directus_port = directus
        self._directus: subprocess.Popen[bytes] | None = None
        self._fleet: Simulation | None = None

    def start(self) -> None:
        self.redis.start()
        # Its metrics have values only while a stream is stranded.
        self.redis.client.xadd("telemtry:teltonika", position(1))
        for role in ("ingest", "process", "janitor"):
            self.daemons[role].start(ready=False)
        self.daemons["ingest"].wait_until_ready()
        self._fleet = Simulation(
            *(self._folder, self._port, "--devices", "20", "--interval", "0.5"),
        )
        self._fleet.wait_for_more(100)
        self._command()
        for daemon in self.daemons.values():
            daemon.wait_until_ready()
        self.prometheus.start()

    def _command(self) -> None:
        """Start Directus' double and the bridge; wait until a device has answered a command."""
        device = next(iter(self.redis.client.hkeys("connections:registry"))).decode()
        self._directus = subprocess.Popen(
            [sys.executable, "-m", "tests.ops.directus", str(self._directus_port), device],
            cwd=ROOT,
        )
        self.daemons["bridge"].start(ready=False)
        responses = Responses(self.redis)
        wait_for(lambda: responses.ended() == 1, "the command is answered", timeout=60)

    def end(self) -> None:
        self.prometheus.kill()
        if self._fleet is not None:
            self._fleet.kill()
        for daemon in self.daemons.values():
            daemon.kill()
        if self._directus is not None:
            self._directus.kill()
            self._directus.wait(20)
        self.redis.kill()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield a running site. The last tests may stop parts of it."""
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        site.start()
        yield site
    finally:
        site.end()
