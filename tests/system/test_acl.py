"""Whole processes, each with the user of its role: all that they do they may do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin import admin
from tests.guarded import GuardedServer
from tests.servers import free_port
from tests.system.commands import device_registry, fields, responses, statuses
from tests.system.processes import Daemon, Simulation, environment, stored
from tests.system.raw import STREAM
from tests.waiting import wait_for

DEAD = f"{STREAM}:dead"
NOBODY = "999999999999999"


class Site:
    """All that runs beside a Directus, with the URLs where the units have them."""

    def __init__(self, folder: Path) -> None:
        self.redis = GuardedServer(folder / "redis")
        self.database = folder / "positions.sqlite"
        self.port = free_port()
        self.control = f"unix:{folder / 'control.sock'}"
        self.ingest = self._daemon(
            *(folder, "ingest", "--listen", f"teltonika=tcp:{self.port}:interface=127.0.0.1"),
            *("--instance-id", "one", "--control", self.control),
            *("--device-authority", "redis", "--unknown-devices", "accept"),
        )
        self.process = self._daemon(folder, "process", "--claim-after", "1", "--names")
        self.janitor = self._daemon(
            folder, "janitor", "--interval", "1s", "--retain", "1s", "--retain-dead", "1d"
        )

    def _daemon(self, folder: Path, role: str, *options: str) -> Daemon:
        variables = {"REDIS_URL_FILE": str(self.redis.file_of(role))}
        if role == "process":
            variables["TRACKER_SINK"] = f"sqlite:{self.database}"
        return Daemon(folder, role, role, *options, variables=variables)

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        return self.ingest, self.process, self.janitor

    def admin(self, *arguments: str, status: int = 0) -> str:
        """What ``tracker-admin`` prints, with the user that is for it."""
        ended = admin(
            *arguments,
            env=environment(
                REDIS_URL=self.redis.url_of("admin"),
                TRACKER_CONTROL=self.control,
                TRACKER_SINK=f"sqlite:{self.database}",
            ),
        )
        assert ended.returncode == status, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    site.redis.start()
    try:
        yield site
    finally:
        for daemon in site.daemons:
            daemon.kill()
        site.redis.kill()


@pytest.fixture
def fleet(site: Site, tmp_path: Path) -> Iterator[Simulation]:
    """Devices that are connected and send, while all roles run."""
    for daemon in site.daemons:
        daemon.start(ready=False)
    for daemon in site.daemons:
        daemon.wait_until_ready()
    fleet = Simulation(tmp_path, site.port, "--devices", "5", "--interval", "0.2")
    fleet.wait_for_more(20)
    yield fleet
    fleet.kill()


def nothing_was_denied(site: Site) -> None:
    assert site.redis.denied() == []
    for daemon in site.daemons:
        assert "NOPERM" not in daemon.text
        assert "permission" not in daemon.text.lower()


def test_positions_come_through_an_outage_too(site: Site, fleet: Simulation) -> None:
    nothing_was_denied(site)
    site.redis.kill()
    wait_for(lambda: site.process.readyz()[0] == 503, "it knows")
    site.redis.start()  # which has forgotten all scripts
    for daemon in site.daemons:
        daemon.wait_until_ready()
    fleet.wait_for_more(20)
    fleet.park()
    wait_for(lambda: set(fleet.acknowledged()) <= set(stored(site.database)), "all is stored")
    wait_for(lambda: not site.redis.client.xpending(STREAM, "processor")["pending"], "finished")
    for daemon in site.daemons:
        assert daemon.stop() == 0
    assert device_registry(site.redis) == {}
    nothing_was_denied(site)


def test_what_others_have_left_is_taken_over(site: Site, fleet: Simulation) -> None:
    redis = site.redis.client
    device, owner = next(iter(device_registry(site.redis).items()))
    assert owner == "one"
    # An entry that is no position …
    redis.execute_command("XADD", STREAM, "*", "no", "position")
    # … an instance that is gone, with commands for somebody and for nobody …
    redis.hset("connections:registry", NOBODY, "gone")
    redis.xgroup_create("commands:outbound:gone", "ingest", mkstream=True)
    redis.xadd("commands:outbound:gone", fields("to-a-device", device))
    redis.xadd("commands:outbound:gone", fields("to-nobody", NOBODY, expires_in=3))
    redis.xadd("commands:outbound:gone", {"no": "command"})
    wait_for(lambda: redis.xlen(DEAD) == 1, "put aside")
    wait_for(lambda: "to-a-device" in statuses(site.redis), "it has an answer", timeout=40)
    wait_for(lambda: "to-nobody" in statuses(site.redis), "it has expired", timeout=40)
    assert statuses(site.redis)["to-a-device"] == "responded"
    assert statuses(site.redis)["to-nobody"] == "expired"
    wait_for(lambda: NOBODY not in device_registry(site.redis), "forgotten")
    wait_for(lambda: not redis.exists("commands:outbound:gone"), "removed")
    # … and what has been read is trimmed.
    wait_for(lambda: "entries trimmed" in site.janitor.text, "a round")
    fleet.park()
    nothing_was_denied(site)


def test_what_tracker_admin_does(site: Site, fleet: Simulation) -> None:
    redis = site.redis.client
    device = next(iter(device_registry(site.redis)))
    said: dict[str, Any] = json.loads(site.admin("-o", "json", "send", device, "getinfo"))
    assert said["status"] == "responded"
    site.admin("status", said["command_id"])
    site.admin("send", NOBODY, "getinfo", "--no-wait", "--expires", "1s")
    wait_for(
        lambda: "expired" in {fate.split("/")[0] for fate in statuses(site.redis).values()},
        "one expires",
    )
    assert responses(site.redis)
    site.admin("connections")
    site.admin("device-registry")
    site.admin("device", device)
    assert STREAM in site.admin("lag")
    fleet.park()
    site.admin("replay", "--stream", STREAM, "--sink", f"sqlite:{site.database}-again")
    for number in range(2):
        redis.execute_command("XADD", STREAM, "*", "no", f"position {number}")
    wait_for(lambda: redis.xlen(DEAD) == 2, "both are put aside")
    site.admin("dead", "list")
    one, other = (entry_id.decode() for entry_id, _ in redis.xrange(DEAD))
    site.admin("dead", "show", one)
    site.admin("dead", "retry", one)
    wait_for(lambda: redis.xlen(DEAD) == 2, "and again")
    site.admin("dead", "drop", other)
    nothing_was_denied(site)


def test_a_server_that_is_set_up_so_is_healthy(site: Site, fleet: Simulation) -> None:
    found = json.loads(site.admin("doctor", "-o", "json", "--port", f"127.0.0.1:{site.port}"))
    # How fast it answers, and when it thinks it is, are the machine's, which may be busy.
    machine = ("redis-latency", "redis-clock", "redis-disk")
    redis = [
        finding
        for finding in found
        if finding["check"].startswith("redis-") and finding["check"] not in machine
    ]
    assert len(redis) >= 10
    assert [finding for finding in redis if finding["status"] not in ("ok", "skipped")] == []
    rights = {finding["seen"] for finding in redis if finding["check"] == "redis-rights"}
    assert rights >= {f"tracker-{one} may do what {one} does" for one in ("ingest", "process")}
    assert [finding for finding in found if "permission" in finding["seen"].lower()] == []
    nothing_was_denied(site)
