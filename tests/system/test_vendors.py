"""Devices of all vendors at one ingest process and one processor, and in one standalone process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon, Simulation, environment, run, stored
from tests.waiting import wait_for
from tracker.vendors.installed import installed_vendors

VENDORS = ("concox", "queclink", "teltonika")
#: Concox devices hear of their records at a heartbeat.
MORE = {"concox": ("--heartbeat", "1s")}


class Fleets:
    """A fleet of each vendor, and the ports that it reports to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {vendor: free_port() for vendor in VENDORS}
        self._running: dict[str, Simulation] = {}

    @property
    def listen(self) -> list[str]:
        """The options of the process that serves the fleets."""
        return [
            option
            for vendor, port in self._ports.items()
            for option in ("--listen", f"{vendor}=tcp:{port}:interface=127.0.0.1")
        ]

    @property
    def ports(self) -> list[str]:
        """The options with which the doctor checks the ports."""
        return [one for port in self._ports.values() for one in ("--port", f"127.0.0.1:{port}")]

    def start(self) -> None:
        for number, (vendor, port) in enumerate(self._ports.items()):
            more = ("--vendor", vendor, "--first", str(1000 * number), *MORE.get(vendor, ()))
            self._running[vendor] = Simulation(
                self._folder, port, "--devices", "20", "--interval", "1s", *more, name=vendor
            )

    def wait_for_more(self, count: int) -> None:
        for fleet in self._running.values():
            fleet.wait_for_more(count)

    def account(self, database: Path) -> None:
        """Stop the fleets, and check that each acknowledged record is stored, and none twice."""
        for vendor, fleet in self._running.items():
            # A Concox device never repeats what the server had received when it was killed.
            fleet.park(complete=vendor != "concox")
        acknowledged = {vendor: fleet.acknowledged() for vendor, fleet in self._running.items()}
        expected = {key for keys in acknowledged.values() for key in keys}
        wait_for(lambda: expected <= set(stored(database)), "all are stored", timeout=60)
        rows = stored(database)
        assert len(rows) == len(set(rows)), "stored twice"
        with closing(sqlite3.connect(database)) as connection:
            found = dict(
                connection.execute("SELECT vendor, count(*) FROM positions GROUP BY vendor")
            )
        assert found.keys() == set(VENDORS)
        # A Concox device may not have heard of what is stored.
        exact = {vendor: len(acknowledged[vendor]) for vendor in VENDORS if vendor != "concox"}
        assert {vendor: found[vendor] for vendor in exact} == exact
        assert found["concox"] >= len(acknowledged["concox"]) > 0

    def end(self) -> None:
        for fleet in self._running.values():
            fleet.kill()


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Fleets]:
    fleets = Fleets(tmp_path)
    yield fleets
    fleets.end()


def test_vendors_of_this_test_are_all_that_are_installed() -> None:
    assert tuple(installed_vendors()) == VENDORS


def test_kills_of_processes_lose_and_duplicate_nothing_of_any_vendor(
    tmp_path: Path, redis: RedisServer, fleets: Fleets
) -> None:
    database = tmp_path / "positions.sqlite"
    variables = {"REDIS_URL": redis.url}
    ingest = Daemon(tmp_path, "ingest", "ingest", *fleets.listen, variables=variables)
    process = Daemon(
        *(tmp_path, "process", "process", "--sink", f"sqlite:{database}"), variables=variables
    )
    try:
        process.start()
        ingest.start()
        fleets.start()
        for _ in range(2):
            fleets.wait_for_more(50)
            ingest.kill()
            ingest.start()
            fleets.wait_for_more(50)
            process.kill()
            process.start()
        fleets.wait_for_more(50)
        check_tools(redis, database, fleets)
        fleets.account(database)
        for daemon in (ingest, process):
            assert "Traceback" not in daemon.text, daemon.text
    finally:
        ingest.kill()
        process.kill()


def check_tools(redis: RedisServer, database: Path, fleets: Fleets) -> None:
    """Check that the tools show the streams and devices of each vendor."""
    streams = {f"telemetry:{vendor}" for vendor in VENDORS}
    rows = json.loads(admin(redis, "lag", "-o", "json"))
    assert streams <= {row["stream"] for row in rows if row["group"] == "processor"}
    arguments = ("doctor", "--sink", f"sqlite:{database}", *fleets.ports, "-o", "json")
    findings = json.loads(admin(redis, *arguments))
    for check in ("stream-names", "streams", "groups", "lag", "dead-letters"):
        seen = [one for one in findings if one["check"] == check]
        assert {one["seen"].partition(": ")[0] for one in seen} == streams
        assert {one["status"] for one in seen} <= {"ok"}, seen
    assert {one["status"] for one in findings if one["check"] == "port"} == {"ok"}
    registered = redis.client.hvals("connections:vendors")
    assert {vendor.decode() for vendor in registered} == set(VENDORS)


def admin(redis: RedisServer, *arguments: str) -> str:
    ended = run("tracker-admin", *arguments, env=environment(REDIS_URL=redis.url))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return str(ended.stdout)


def test_standalone_serves_and_shows_devices_of_all_vendors(tmp_path: Path, fleets: Fleets) -> None:
    data, console = tmp_path / "data", free_port()
    options = ("--data", str(data), *fleets.listen, "--console", f"tcp:{console}")
    standalone = Daemon(tmp_path, "standalone", "standalone", *options)
    try:
        standalone.start()
        fleets.start()
        fleets.wait_for_more(30)
        standalone.kill()
        standalone.start()
        fleets.wait_for_more(30)
        with urlopen(f"http://127.0.0.1:{console}/api/devices?limit=100") as response:
            devices = json.load(response)["devices"]
        assert {row["vendor"] for row in devices} == set(VENDORS)
        for vendor in VENDORS:
            line = f'tracker_connections{{state="logged_in",vendor="{vendor}"}} 20.0'
            wait_for(lambda: line in metrics(standalone), f"{line} is a metric")  # noqa: B023
        fleets.account(data / "positions.sqlite")
    finally:
        standalone.kill()


def metrics(standalone: Daemon) -> str:
    with urlopen(standalone.url("/metrics")) as response:
        return str(response.read().decode())
