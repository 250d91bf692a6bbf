"""Complete processes, each with its role's Redis user, whose permissions are sufficient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acl import AclRedisServer
from tests.admin import admin
from tests.servers import free_port
from tests.system.commands import device_registry, fields, responses, statuses
from tests.system.processes import Daemon, Simulation, environment, stored
from tests.system.raw import STREAM
from tests.waiting import wait_for

DEAD = f"{STREAM}:dead"
STRANDED = "telemetry:wrong"
UNKNOWN_DEVICE = "999999999999999"


class Site:
    """All daemons except the bridge, with Redis URLs in files, like in the systemd units."""

    def __init__(self, folder: Path) -> None:
        self.redis = AclRedisServer(folder / "redis")
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
        variables = {"REDIS_URL_FILE": str(self.redis.url_file(role))}
        if role == "process":
            variables["TRACKER_SINK"] = f"sqlite:{self.database}"
        return Daemon(folder, role, role, *options, variables=variables)

    @property
    def daemons(self) -> tuple[Daemon, ...]:
        return self.ingest, self.process, self.janitor

    def admin(self, *arguments: str, exit_code: int = 0) -> str:
        """Return the output of ``tracker-admin``, run with its own Redis user."""
        ended = admin(
            *arguments,
            env=environment(
                REDIS_URL=self.redis.url_of("admin"),
                TRACKER_CONTROL=self.control,
                TRACKER_SINK=f"sqlite:{self.database}",
            ),
        )
        assert ended.returncode == exit_code, ended.stdout + ended.stderr
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
    """Yield simulated devices that send records while all daemons run."""
    for daemon in site.daemons:
        daemon.start(ready=False)
    for daemon in site.daemons:
        daemon.wait_until_ready()
    fleet = Simulation(tmp_path, site.port, "--devices", "5", "--interval", "0.2")
    fleet.wait_for_more(20)
    yield fleet
    fleet.kill()


def assert_nothing_was_denied(site: Site) -> None:
    assert site.redis.denied() == []
    for daemon in site.daemons:
        assert "NOPERM" not in daemon.text
        assert "permission" not in daemon.text.lower()


def test_acl_suffices_for_positions_before_and_after_an_outage(
    site: Site, fleet: Simulation
) -> None:
    assert_nothing_was_denied(site)
    site.redis.kill()
    wait_for(lambda: site.process.readyz()[0] == 503, "process reports the outage")
    site.redis.start()  # the server has lost all scripts
    for daemon in site.daemons:
        daemon.wait_until_ready()
    fleet.wait_for_more(20)
    fleet.park()
    wait_for(lambda: set(fleet.acknowledged()) <= set(stored(site.database)), "all is stored")
    wait_for(lambda: not site.redis.client.xpending(STREAM, "processor")["pending"], "finished")
    for daemon in site.daemons:
        assert daemon.stop() == 0
    assert device_registry(site.redis) == {}
    assert_nothing_was_denied(site)


def test_acl_suffices_for_dead_letters_orphans_and_trimming(site: Site, fleet: Simulation) -> None:
    redis = site.redis.client
    device, owner = next(iter(device_registry(site.redis).items()))
    assert owner == "one"
    # An invalid entry is moved to the dead letters.
    redis.execute_command("XADD", STREAM, "*", "no", "position")
    # An instance is gone and has left commands for a connected and for an unknown device.
    redis.hset("connections:registry", UNKNOWN_DEVICE, "gone")
    redis.xgroup_create("commands:outbound:gone", "ingest", mkstream=True)
    redis.xadd("commands:outbound:gone", fields("to-a-device", device))
    redis.xadd(
        "commands:outbound:gone", fields("to-an-unknown-device", UNKNOWN_DEVICE, expires_in=3)
    )
    redis.xadd("commands:outbound:gone", {"no": "command"})
    wait_for(lambda: redis.xlen(DEAD) == 1, "moved to dead letters")
    wait_for(lambda: "to-a-device" in statuses(site.redis), "it is answered", timeout=40)
    wait_for(lambda: "to-an-unknown-device" in statuses(site.redis), "it has expired", timeout=40)
    assert statuses(site.redis)["to-a-device"] == "responded"
    assert statuses(site.redis)["to-an-unknown-device"] == "expired"
    wait_for(lambda: UNKNOWN_DEVICE not in device_registry(site.redis), "unregistered")
    wait_for(lambda: not redis.exists("commands:outbound:gone"), "removed")
    # Entries that the group has processed are trimmed.
    wait_for(lambda: "entries trimmed" in site.janitor.text, "trimmed")
    fleet.park()
    assert_nothing_was_denied(site)


def test_acl_suffices_for_tracker_admin(site: Site, fleet: Simulation) -> None:
    redis = site.redis.client
    device = next(iter(device_registry(site.redis)))
    sent: dict[str, Any] = json.loads(site.admin("-o", "json", "send", device, "getinfo"))
    assert sent["status"] == "responded"
    site.admin("status", sent["command_id"])
    site.admin("send", UNKNOWN_DEVICE, "getinfo", "--no-wait", "--expires", "1s")
    wait_for(
        lambda: "expired" in {text.split("/")[0] for text in statuses(site.redis).values()},
        "expired",
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
    wait_for(lambda: redis.xlen(DEAD) == 2, "two dead letters")
    site.admin("dead", "list")
    one, other = (entry_id.decode() for entry_id, _ in redis.xrange(DEAD))
    site.admin("dead", "show", one)
    site.admin("dead", "retry", one)
    wait_for(lambda: redis.xlen(DEAD) == 2, "the retried entry is a dead letter again")
    site.admin("dead", "drop", other)
    assert_nothing_was_denied(site)


def test_acl_suffices_for_stranded_streams(site: Site, fleet: Simulation) -> None:
    redis = site.redis.client
    fleet.wait_for_more(1)
    redis.copy(STREAM, STRANDED)
    for group in redis.xinfo_groups(STRANDED):
        redis.xgroup_destroy(STRANDED, group["name"])
    # No other user can write a stream of such a name.
    redis.copy(STRANDED, "elsewhere")
    listed = json.loads(site.admin("streams", "list", "-o", "json"))
    assert {row["stream"]: row["state"] for row in listed}[STRANDED] == "stranded"
    adopted = site.admin("streams", "adopt", STRANDED)
    assert redis.xlen(STRANDED) == 0
    assert "not deleted: " in adopted  # no user of ours may delete a stream
    fleet.park()


def test_doctor_accepts_a_server_with_our_configuration(site: Site, fleet: Simulation) -> None:
    found = json.loads(site.admin("doctor", "-o", "json", "--port", f"127.0.0.1:{site.port}"))
    # Latency, clock and disk depend on the machine, which may be busy.
    machine = ("redis-latency", "redis-clock", "redis-disk")
    redis = [
        finding
        for finding in found
        if finding["check"].startswith("redis-") and finding["check"] not in machine
    ]
    assert len(redis) >= 10
    assert [finding for finding in redis if finding["status"] not in ("ok", "skipped")] == []
    permissions = {finding["seen"] for finding in redis if finding["check"] == "redis-rights"}
    assert permissions >= {
        f'Redis user "tracker-{role}" has all permissions that {role} needs'
        for role in ("ingest", "process")
    }
    assert [finding for finding in found if "no permission" in finding["seen"].lower()] == []
    assert_nothing_was_denied(site)
