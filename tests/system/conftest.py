"""Fixtures for whole processes."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.controlled import Site
from tests.system.processes import Daemon, Simulation, stored, wait_until_stored
from tests.system.raw import Ingest

#: Minimal number of open files for a test with thousands of connections, and its daemons.
MANY_FILES = 2500


class Stack:
    """A Redis server, an ingest process and a processor."""

    def __init__(self, folder: Path, redis: RedisServer, **variables: str) -> None:
        variables["REDIS_URL"] = redis.url
        self.folder = folder
        self.redis = redis
        self.port = free_port()
        self.database = folder / "positions.sqlite"
        self.ingest = Daemon(
            *(folder, "ingest", "ingest"),
            *("--listen", f"teltonika=tcp:{self.port}:interface=127.0.0.1"),
            variables=variables,
        )
        self.process = Daemon(
            *(folder, "process", "process", "--sink", f"sqlite:{self.database}"),
            variables=variables,
        )
        self._fleets: list[Simulation] = []

    def start(self) -> None:
        self.ingest.start(ready=False)
        self.process.start(ready=False)
        self.ingest.wait_until_ready()
        self.process.wait_until_ready()

    def fleet(self, *arguments: str) -> Simulation:
        """Start a fleet of simulated devices on the port of this stack."""
        name = f"fleet-{len(self._fleets)}"
        fleet = Simulation(self.folder, self.port, *arguments, name=name)
        self._fleets.append(fleet)
        return fleet

    def account(self, fleet: Simulation) -> str:
        """Stop the fleet, and check that exactly the acknowledged records are stored, once each.

        :return: the summary that the fleet prints.
        """
        summary = fleet.park()
        acknowledged = fleet.acknowledged()
        assert len(acknowledged) == len(set(acknowledged)), "acknowledged twice"
        wait_until_stored(self.database, len(acknowledged))
        in_database = stored(self.database)
        assert not set(acknowledged) - set(in_database), "lost"
        assert not set(in_database) - set(acknowledged), "stored, and never acknowledged"
        assert len(in_database) == len(set(in_database)), "stored twice"
        assert acknowledged
        return summary

    def end(self) -> None:
        for fleet in self._fleets:
            fleet.kill()
        self.ingest.kill()
        self.process.kill()


@pytest.fixture
def stack(tmp_path: Path, redis: RedisServer) -> Iterator[Stack]:
    """Provide a running stack, killed at the end."""
    stack = Stack(tmp_path, redis)
    try:
        stack.start()
        yield stack
    finally:
        stack.end()


@pytest.fixture
def serve(tmp_path: Path, redis: RedisServer) -> Iterator[Callable[..., Ingest]]:
    """Provide a function that starts an ingest process with options, killed at the end."""
    started: list[Ingest] = []

    def start(*options: str, endpoint: str = "tcp:{port}", files: int | None = None) -> Ingest:
        ingest = Ingest(tmp_path, redis, *options, endpoint=endpoint, files=files)
        started.append(ingest)
        ingest.daemon.start()
        return ingest

    yield start
    for ingest in started:
        ingest.daemon.kill()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Provide instances with control ports, for tests that leave them intact."""
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.end()


@pytest.fixture
def spare(site: Site) -> Iterator[Ingest]:
    """Provide another instance, ``spare``, that a test may break."""
    shutil.rmtree(site.folder / "spare", ignore_errors=True)
    ingest = site.ingest("spare")
    yield ingest
    ingest.daemon.kill()


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Provide a function that prints figures."""

    def report(text: str) -> None:
        with capsys.disabled():
            print(f" ({text}) ", end="")

    return report


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the open-file limit of the test, and of its daemons, to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY_FILES:
        pytest.skip(f"the hard limit is {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
