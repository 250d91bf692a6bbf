"""The recipes of ``docs/operations.rst``, run while devices send."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.commands import send
from tests.system.processes import Key, Simulation, stored, wait_until_stored
from tests.system.raw import STREAM
from tests.system.recipes import Machine, block, commands
from tests.waiting import wait_for
from tracker.keys import PROCESSOR_GROUP

PAGE = "operations"
ROLES = ("tracker-process@1", "tracker-janitor", "tracker-ingest@1")
DEVICE = "356307042441013"


class Site:
    """Machines with the same port for devices, as behind a DNS name that moves between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.machines: list[Machine] = []
        self._fleets: list[Simulation] = []

    def machine(self, name: str) -> Machine:
        """Return a machine on which only its own Redis runs."""
        redis = RedisServer(self.folder / name / "var/lib/redis")
        redis.start()
        replaced = {}
        if self.machines:
            replaced[r"vm1 6379"] = f"127.0.0.1 {self.machines[0].redis.port}"
        machine = Machine(self.folder, name, redis, replaced)
        listen = f"--listen teltonika=tcp:{self.port}:interface=127.0.0.1"
        machine.settings("ingest.env", f"TRACKER_LISTEN={listen}")
        machine.settings("janitor.env", "TRACKER_JANITOR_OPTIONS=--interval 1s")
        self.machines.append(machine)
        return machine

    def running(self, name: str) -> Machine:
        """Return a machine on which all roles run."""
        machine = self.machine(name)
        machine.run(f"systemctl start {' '.join(ROLES)}")
        return machine

    def fleet(self, first: int = 0) -> Simulation:
        """Start twenty devices."""
        fleet = Simulation(
            *(self.folder, self.port, "--devices", "20", "--interval", "0.2"),
            *("--first", str(first)),
            name=f"fleet-{first}",
        )
        self._fleets.append(fleet)
        return fleet

    def end(self) -> None:
        for fleet in self._fleets:
            fleet.kill()
        for machine in self.machines:
            machine.end()
            machine.redis.kill()


@pytest.fixture
def site() -> Iterator[Site]:
    # The path of a Unix socket has to be short.
    with tempfile.TemporaryDirectory(prefix="recipe-") as folder:
        site = Site(Path(folder))
        yield site
        site.end()


def database(machine: Machine) -> Path:
    return machine.folder / "var/lib/tracker/positions.sqlite"


def check_stored(machine: Machine, keys: list[Key]) -> None:
    """Wait until all these positions are stored; check that no others are, and none twice."""
    wait_until_stored(database(machine), len(keys))
    found = stored(database(machine))
    assert not set(keys) - set(found), "lost"
    assert not set(found) - set(keys), "stored, but never acknowledged"
    assert len(found) == len(set(found)), "stored twice"


def has_no_lag(shown: str) -> bool:
    """Return True if the output of ``lag -o json`` has no lag and no pending entries."""
    return all((one["lag"], one["pending"]) == (0, 0) for one in json.loads(shown))


def test_recipe_moves_a_fleet_to_a_new_vm(site: Site) -> None:
    old = site.running("vm1")
    fleet = site.fleet()
    fleet.wait_for_more(200)
    new = site.machine("vm2")
    new.follow(PAGE, "move-replicate")
    (level,) = commands(PAGE, "move-level")
    shown = block(PAGE, "move-level").splitlines()[1:]
    new.until(level, lambda output: output.splitlines() == shown)
    fleet.wait_for_more(100)
    old.follow(PAGE, "move-stop-ingest")
    acknowledged = len(fleet.acknowledged())
    wait_for(lambda: has_no_lag(old.follow(PAGE, "move-lag")), "all entries are stored", timeout=60)
    old.follow(PAGE, "move-stop-process")
    wait_for(lambda: is_replicated(old), "the replica is in sync", timeout=60)
    old.follow(PAGE, "move-stop-redis")
    new.run(f"cp -a {old.folder}/var/lib/tracker/. /var/lib/tracker/")
    assert len(stored(database(new))) >= acknowledged
    new.follow(PAGE, "move-promote")
    new.follow(PAGE, "move-serve")
    new.run("tracker-admin doctor")
    fleet.wait_for_more(200)
    fleet.park()
    check_stored(new, fleet.acknowledged())


def is_replicated(machine: Machine) -> bool:
    """Return True if the replica has the offset of its master."""
    replica, own = machine.follow(PAGE, "move-offsets").split()
    return replica.rpartition("=")[2] == own.rpartition(":")[2]


def test_recipe_restores_redis_from_a_backup(site: Site) -> None:
    machine = site.running("vm1")
    before = site.fleet()
    before.wait_for_more(200)
    machine.follow(PAGE, "backup-redis")
    before.wait_for_more(200)
    before.park()
    check_stored(machine, before.acknowledged())
    machine.follow(PAGE, "restore-stop")
    machine.run("rm -rf /var/lib/redis/*")
    machine.follow(PAGE, "restore-files")
    machine.follow(PAGE, "restore-start")
    kept = machine.redis.client.xlen(STREAM)
    assert 200 <= kept < len(before.acknowledged())
    machine.follow(PAGE, "restore-commands")
    machine.follow(PAGE, "restore-roles")
    after = site.fleet(100)
    after.wait_for_more(200)
    after.park()
    check_stored(machine, before.acknowledged() + after.acknowledged())
    # The restored Redis is durable from its first command on.
    machine.redis.kill()
    machine.redis.start()
    assert machine.redis.client.xlen(STREAM) >= kept + len(after.acknowledged())


def test_recipe_deletes_the_commands_restored_from_a_backup(site: Site) -> None:
    machine = site.machine("vm1")
    send(machine.redis, "vm1-1", "c-1", DEVICE)
    machine.redis.client.xadd(f"commands:waiting:{DEVICE}", {"command_id": "c-2"})
    machine.redis.client.sadd("commands:waiting", DEVICE)
    machine.redis.client.xadd("commands:responses", {"command_id": "c-0"})
    machine.follow(PAGE, "restore-commands")
    assert machine.redis.client.keys() == [b"commands:responses"]


def test_recipe_restores_a_database_and_replays_later_entries(site: Site) -> None:
    began = datetime.now(UTC)
    machine = site.running("vm1")
    fleet = site.fleet()
    fleet.wait_for_more(200)
    machine.run("systemctl stop tracker-process@1")
    machine.run("cp -a /var/lib/tracker /var/backups/tracker")
    machine.run("systemctl start tracker-process@1")
    fleet.wait_for_more(200)
    fleet.park()
    check_stored(machine, fleet.acknowledged())
    machine.run("systemctl stop tracker-process@1")
    machine.run("rm /var/lib/tracker/*")
    machine.run("cp -a /var/backups/tracker/. /var/lib/tracker/")
    assert len(stored(database(machine))) < len(fleet.acknowledged())
    # From long before the backup, which lacks entries that were in transit then.
    machine.replaced[r"2026-11-25T00:00:00Z"] = f"{began:%FT%TZ}"
    assert " 0 bad" in machine.follow(PAGE, "backup-replay")
    check_stored(machine, fleet.acknowledged())


def test_recipe_raises_the_memory_of_a_full_redis(site: Site) -> None:
    machine = site.running("vm1")
    health = machine.units["tracker-ingest@1"].url("").rpartition(":")[2]
    machine.replaced[r"localhost:9131"] = f"localhost:{health}"
    fleet = site.fleet()
    fleet.wait_for_more(200)
    machine.run("redis-cli CONFIG SET maxmemory 1mb")
    wait_for(
        lambda: "appends refused: OOM" in machine.follow(PAGE, "full-look"),
        "the log gives the reason",
    )
    assert "maxmemory_policy:noeviction" in machine.follow(PAGE, "full-look")
    # No record is appended meanwhile, and the processor reads all entries.
    appended = machine.redis.client.xlen(STREAM)
    wait_for(lambda: has_no_lag(machine.run("tracker-admin lag -o json")), "no lag", timeout=60)
    assert machine.redis.client.xlen(STREAM) == appended
    raising, _ = commands(PAGE, "full-raise")  # the second one needs a server with a config file
    machine.run(raising)
    ready = block(PAGE, "full-confirm").splitlines()[-1].rstrip("…")
    wait_for(lambda: machine.follow(PAGE, "full-confirm").startswith(ready), "ready again")
    fleet.wait_for_more(200)
    fleet.park()
    check_stored(machine, fleet.acknowledged())


def test_recipe_adopts_a_stream_without_a_processor(site: Site) -> None:
    machine = site.machine("vm1")
    machine.settings("ingest-1.env", "REDIS_TELEMETRY_STREAM=positions")
    # The processor starts last: it reads the heartbeats at its start, and then every 30 seconds.
    machine.run(f"systemctl start {' '.join(reversed(ROLES))}")
    fleet = site.fleet()
    fleet.wait_for_more(100)
    processor = machine.units["tracker-process@1"]
    wait_for(
        lambda: "no processor reads: positions" in str(processor.readyz()),
        "the processor reports the stream",
        timeout=60,
    )
    assert not stored(database(machine))
    fleet.park()
    machine.settings("ingest-1.env", "")
    machine.run("systemctl restart tracker-ingest@1")
    assert "stranded" in machine.follow(PAGE, "stranded-look").split()
    assert "positions deleted" in machine.follow(PAGE, "stranded-adopt")
    check_stored(machine, fleet.acknowledged())


def test_recipe_replays_and_discards_skipped_entries(site: Site) -> None:
    machine = site.running("vm1")
    fleet = site.fleet()
    fleet.wait_for_more(100)
    machine.run("systemctl stop tracker-process@1")
    fleet.wait_for_more(100)
    fleet.park()
    machine.redis.client.xadd(STREAM, {"payload": "{"})
    machine.redis.client.xgroup_setid(STREAM, PROCESSOR_GROUP, "$")
    machine.run("systemctl start tracker-process@1")
    (look,) = commands(PAGE, "skipped-look")
    (skipped,) = json.loads(machine.run(f"{look} -o json", exit_code=1))
    assert skipped["entries"] >= 100
    # The last one is malformed.
    machine.replaced |= {"1795575516746-0": skipped["first"], "1795575518046-0": skipped["last"]}
    (replay,) = commands(PAGE, "skipped-replay")
    assert "1 left" in machine.run(replay, exit_code=1)
    check_stored(machine, fleet.acknowledged())
    (discard,) = commands(PAGE, "skipped-discard")
    assert "1 entry discarded" in machine.run(f"{discard} --yes")
    assert json.loads(machine.run(f"{look} -o json")) == []
