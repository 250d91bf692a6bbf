"""The previous version of Tracker on the stream and the database of this one."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import define, field

from tests.servers import RedisServer
from tests.system.processes import Daemon, environment
from tests.system.raw import STREAM, Ingest
from tests.waiting import wait_for
from tracker.vendors.teltonika.avl import CODEC_8, Record, encode_packet
from tracker.vendors.teltonika.envelope import encode_frame

#: Its entries have four fields, and its database has the first tables only.
PREVIOUS = "48d8af7"

ROOT = Path(__file__).parents[2]
DEVICES = ("356307042441013", "356307042441021", "356307042441039")
#: Time of record 0 in milliseconds; record N is N seconds later.
START = int(time.time()) * 1000 - 3_600_000

#: Span of a track. Readers of the previous version take its start only.
EARLY, LATE = "1970-01-01T00:00:00.000Z", "9999-01-01T00:00:00.000Z"

_ADMIN = "from tracker.admin.cli import main; main()"
_READ = """
import json, sys
from twisted.internet import defer, reactor, task
from tracker.storage.reader import Search
from tracker.storage.sinks import open_reader

async def read(reactor, url, device, *span):
    positions = open_reader(reactor, url)
    positions.startService()
    try:
        track = await positions.track(device, *span)
        print(json.dumps([
            await positions.devices(Search()), await positions.device(device), list(track.points)
        ]))
    finally:
        await positions.stopService()

task.react(lambda reactor, *rest: defer.Deferred.fromCoroutine(read(reactor, *rest)), sys.argv[1:])
"""


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the package and the plugins of the previous version."""
    git = ["git", "-C", str(ROOT)]
    shallow = subprocess.run(
        [*git, "rev-parse", "--is-shallow-repository"], check=False, capture_output=True
    )
    if shallow.stdout.strip() != b"false":
        pytest.skip("this copy of the source tree has no history: run git fetch --unshallow")
    archive = subprocess.run(
        [*git, "archive", PREVIOUS, "tracker", "twisted"], check=True, capture_output=True
    )
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


@define
class Fleet:
    """Devices that deliver records to an ingest process of this version."""

    ingest: Ingest
    delivered: set[tuple[str, int]] = field(factory=set)

    def deliver(self, first: int, end: int) -> None:
        """Deliver these records of each device; those delivered before are repetitions."""
        for device_id in DEVICES:
            records = [record(number, START + number * 1000) for number in range(first, end)]
            self.send(device_id, records)
            self.delivered |= {(device_id, number) for number in range(first, end)}

    def deliver_wrong_time(self) -> None:
        """Deliver a record of the first device whose time is 2080, with the number -1."""
        self.send(DEVICES[0], [record(-1, 3_471_292_800_000)])
        self.delivered.add((DEVICES[0], -1))

    def send(self, device_id: str, records: list[Record]) -> None:
        with self.ingest.connect() as device:
            assert device.login(device_id) == b"\x01"
            device.send(encode_frame(encode_packet(CODEC_8, records)))
            assert device.read(4) == len(records).to_bytes(4, "big")


def record(number: int, time: int) -> Record:
    return Record(
        *(time, 0, 198_187_000 + 10 * number, 413_275_000, 110, 214, 14, 43, 239),
        ((239, 1, 1), (66, 2, 12_000 + number)),
    )


@pytest.fixture
def fleet(tmp_path: Path, redis: RedisServer) -> Iterator[Fleet]:
    ingest = Ingest(tmp_path, redis)
    ingest.daemon.start()
    yield Fleet(ingest)
    ingest.daemon.kill()


@define
class Site:
    """Processors of both versions, which are not started yet, and their database."""

    redis: RedisServer
    url: str
    this: Daemon
    other: Daemon
    old: Path

    def wait_until_stored(self) -> None:
        """Wait until the group has acknowledged all entries."""

        def done() -> bool:
            groups = self.redis.client.xinfo_groups(STREAM)
            last = self.redis.client.xinfo_stream(STREAM)["last-generated-id"]
            return bool(groups) and (groups[0]["last-delivered-id"], groups[0]["pending"]) == (
                last, 0,
            )  # fmt: skip

        wait_for(done, "all entries are stored", timeout=30)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self.url.startswith("sqlite:"):
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:"))) as database:
                return database.execute(query).fetchall()
        with psycopg.connect(self.url) as connection:
            return connection.execute(query).fetchall()

    def stored(self) -> list[tuple[str, int]]:
        """Return device and number of each position."""
        found = self.rows("SELECT device_id, longitude FROM positions ORDER BY 1, 2")
        return [(device_id, number_at(degrees)) for device_id, degrees in found]

    def last(self) -> dict[str, int]:
        """Return device → number of its last position."""
        found = self.rows("SELECT device_id, longitude FROM last_positions")
        return {device_id: number_at(degrees) for device_id, degrees in found}

    def run(self, *command: str, previous: bool) -> str:
        """Run Python, as this version or the previous one, and return its output."""
        variables = {"PYTHONPATH": str(self.old)} if previous else {}
        done = subprocess.run(
            [sys.executable, *command],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(**variables),
            cwd=self.old.parent,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(self, *span: str, previous: bool) -> Any:
        """Return devices, a device and its track, as a reader returns them."""
        return json.loads(self.run("-c", _READ, self.url, DEVICES[0], *span, previous=previous))


@pytest.fixture
def site(tmp_path: Path, redis: RedisServer, previous: Path, url: str) -> Iterator[Site]:
    arguments = ("process", "--redis", redis.url, "--sink", url, "--batch-size", "50", "--names")
    this = Daemon(tmp_path, "this", *arguments, "--consumer", "this")
    other = Daemon(
        *(tmp_path, "previous", *arguments, "--consumer", "previous"),
        variables={"PYTHONPATH": str(previous)},
    )
    with ExitStack() as stack:
        stack.callback(this.kill)
        stack.callback(other.kill)
        yield Site(redis, url, this, other, previous)


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'positions.sqlite'}"
    found: str = request.getfixturevalue("database")
    return found


def number_at(longitude: float) -> int:
    """Return the number of the record with this longitude."""
    return round(longitude * 1e6) - 19_818_700


def stored_by(daemon: Daemon) -> int:
    """Return the number of positions that a processor has stored."""
    with urllib.request.urlopen(daemon.url("/metrics"), timeout=5) as response:
        text = response.read().decode()
    match = re.search(r"^tracker_stored_positions_total (\S+)", text, re.MULTILINE)
    assert match is not None
    return int(float(match[1]))


def test_previous_version_uses_what_this_version_has_written(site: Site, fleet: Fleet) -> None:
    fleet.deliver(0, 20)
    assert all(len(fields) == 5 for _, fields in site.redis.client.xrange(STREAM))
    site.this.start()
    site.wait_until_stored()
    site.this.stop()
    ((extra,),) = site.rows("SELECT count(extra) FROM positions")
    assert extra == len(fleet.delivered)

    assert "Nothing to do" in site.run(
        *("-c", _ADMIN, "migrate", "--sink", site.url), previous=True
    )
    fleet.deliver(15, 40)
    site.other.start()
    site.wait_until_stored()
    assert site.stored() == sorted(fleet.delivered)
    devices, device, track = site.read(EARLY, previous=True)
    assert [row["device_id"] for row in devices] == sorted(DEVICES)
    assert [number_at(point[2]) for point in track] == list(range(40))
    assert number_at(device["longitude"]) == 39
    fleet.deliver_wrong_time()
    site.wait_until_stored()
    site.other.stop()
    assert site.last()[DEVICES[0]] == -1

    fleet.deliver(35, 60)
    site.this.start()
    site.wait_until_stored()
    site.this.stop()
    assert site.stored() == sorted(fleet.delivered)
    site.run("-c", _ADMIN, "repair", "--sink", site.url, previous=False)
    assert site.last() == dict.fromkeys(DEVICES, 59)
    devices, device, track = site.read(EARLY, LATE, previous=False)
    assert [row["device_id"] for row in devices] == sorted(DEVICES)
    assert [number_at(point[2]) for point in track] == list(range(60))
    assert number_at(device["longitude"]) == 59
    assert device["extra"]["widths"] == {"1": [239], "2": [66]}


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_processors_of_both_versions_share_a_stream_and_a_database(
    site: Site, fleet: Fleet
) -> None:
    site.other.start(ready=False)
    fleet.deliver(0, 20)
    site.other.wait_until_ready()
    site.wait_until_stored()
    assert site.rows("SELECT to_regclass('repairs')") == [(None,)]
    site.this.start()  # it upgrades the tables under the running previous version
    assert site.rows("SELECT to_regclass('repairs')") != [(None,)]

    def both_store() -> bool:
        end = len(fleet.delivered) // len(DEVICES)
        fleet.deliver(end - 5, end + 50)
        return stored_by(site.this) > 0 and stored_by(site.other) > len(DEVICES) * 20

    wait_for(both_store, "both processors have stored positions")
    site.wait_until_stored()
    assert site.stored() == sorted(fleet.delivered)
    assert site.last() == dict.fromkeys(DEVICES, max(number for _, number in fleet.delivered))
    assert [daemon.stop() for daemon in (site.this, site.other)] == [0, 0]
