"""Failovers by a Sentinel while devices send records.

Redis loses writes that the old master has confirmed but not replicated. The devices therefore
pause until the replica is in sync.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import valkey

from tests.servers import RedisServer, Sentinel
from tests.system.outages import Report, outage
from tests.system.raw import Ingest
from tests.waiting import wait_for


class Pair:
    """A master and its replica, watched by a Sentinel."""

    def __init__(self, folder: Path) -> None:
        self.master = RedisServer(folder / "master")
        self.replica = RedisServer(folder / "replica")
        self.master.start()
        self.replica.start()
        self.replica.replicate(self.master)
        self.sentinel = Sentinel(folder / "sentinel", self.master)
        self.sentinel.start()
        wait_for(self.sentinel.has_replica, "the Sentinel knows the replica")
        self.master.url = self.sentinel.url

    def has_failed_over(self) -> bool:
        """Return True if the replica is a writable master and the Sentinel names it."""
        if self.is_promoted():
            self.replica.client.set("failed-over", "1")
            return self.sentinel.master_port() == self.replica.port
        return False

    def is_promoted(self) -> bool:
        """Return True if the replica is a master; a promotion closes its connections."""
        with suppress(valkey.ConnectionError):
            promoted: bool = self.replica.client.role()[0] == b"master"
            return promoted
        return False

    def kill(self) -> None:
        for one in (self.sentinel, self.master, self.replica):
            one.kill()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.kill()


@pytest.fixture
def ingest(tmp_path: Path, pair: Pair) -> Iterator[Ingest]:
    ingest = Ingest(tmp_path, pair.master)
    ingest.daemon.start()
    yield ingest
    ingest.daemon.kill()


def test_ingest_follows_the_failover_of_a_killed_master(
    pair: Pair, ingest: Ingest, report: Report
) -> None:
    with outage(ingest, pair.replica) as during:
        during.pushing.pause()
        wait_for(lambda: pair.replica.is_in_sync_with(pair.master), "the replica is in sync")
        pair.master.kill()
        during.pushing.resume()
        during.wait_for_effect(f"the master 127.0.0.1:{pair.master.port}: ")
        failed_over = lambda: wait_for(pair.has_failed_over, "a new master")  # noqa: E731
        report(f"resumed after {during.end(failed_over):.2f} s")


def test_ingest_follows_a_forced_failover(pair: Pair, ingest: Ingest, report: Report) -> None:
    with outage(ingest, pair.replica) as during:
        during.pushing.pause()
        # The master refuses writes as soon as it has lost its replica. Without this setting it
        # would confirm records, which Redis would lose, until ingest has disconnected.
        pair.master.client.config_set("min-replicas-to-write", 1)
        wait_for(lambda: pair.replica.is_in_sync_with(pair.master), "the replica is in sync")
        pair.sentinel.fail_over()
        wait_for(pair.is_promoted, "the replica is promoted")
        before = len(during.pushing.acknowledged)
        during.pushing.resume()
        during.wait_until_reported("NOREPLICAS", "replaced; the master is")
        assert len(during.pushing.acknowledged) == before
        wait_for(pair.has_failed_over, "the Sentinel names the new master")
        report(f"resumed after {during.wait_until_resumed(before):.2f} s")
