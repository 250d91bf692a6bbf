"""The recipes of ``docs/operations.rst``, carried out as they stand there, while devices send."""

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

PAGE = "operations"
ROLES = ("tracker-process@1", "tracker-janitor", "tracker-ingest@1")
DEVICE = "356307042441013"


class Site:
    """Machines whose devices' port is the same one: a name that is pointed to one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.machines: list[Machine] = []
        self._fleets: list[Simulation] = []

    def machine(self, name: str) -> Machine:
        """A machine with a Redis of its own, and nothing started but that."""
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
        """The same with all roles."""
        machine = self.machine(name)
        machine.run(f"systemctl start {' '.join(ROLES)}")
        return machine

    def fleet(self, first: int = 0) -> Simulation:
        """Twenty devices."""
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


def all_is_stored(machine: Machine, keys: list[Key]) -> None:
    """Wait until all these are, and see that nothing else is, and nothing twice."""
    wait_until_stored(database(machine), len(keys))
    found = stored(database(machine))
    assert not set(keys) - set(found), "lost"
    assert not set(found) - set(keys), "stored, and never acknowledged"
    assert len(found) == len(set(found)), "stored twice"


def has_no_lag(shown: str) -> bool:
    """Whether ``lag -o json`` says so."""
    return all((one["lag"], one["pending"]) == (0, 0) for one in json.loads(shown))


def test_a_fleet_moves_to_a_new_vm(site: Site) -> None:
    old = site.running("vm1")
    fleet = site.fleet()
    fleet.wait_for_more(200)
    new = site.machine("vm2")
    new.follow(PAGE, "move-replicate")
    (level,) = commands(PAGE, "move-level")
    shown = block(PAGE, "move-level").splitlines()[1:]
    new.until(level, lambda said: said.splitlines() == shown)
    fleet.wait_for_more(100)
    old.follow(PAGE, "move-stop-ingest")
    acknowledged = len(fleet.acknowledged())
    wait_for(lambda: has_no_lag(old.follow(PAGE, "move-lag")), "all is stored", timeout=60)
    old.follow(PAGE, "move-stop-process")
    wait_for(lambda: offsets(old), "the replica has everything", timeout=60)
    old.follow(PAGE, "move-stop-redis")
    new.run(f"cp -a {old.folder}/var/lib/tracker/. /var/lib/tracker/")
    assert len(stored(database(new))) >= acknowledged
    new.follow(PAGE, "move-promote")
    new.follow(PAGE, "move-serve")
    new.run("tracker-admin doctor")
    fleet.wait_for_more(200)
    fleet.park()
    all_is_stored(new, fleet.acknowledged())


def offsets(machine: Machine) -> bool:
    """Whether the replica is level with its master."""
    replica, own = machine.follow(PAGE, "move-offsets").split()
    return replica.rpartition("=")[2] == own.rpartition(":")[2]


def test_redis_is_restored_from_a_backup(site: Site) -> None:
    machine = site.running("vm1")
    before = site.fleet()
    before.wait_for_more(200)
    machine.follow(PAGE, "backup-redis")
    before.wait_for_more(200)
    before.park()
    all_is_stored(machine, before.acknowledged())
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
    all_is_stored(machine, before.acknowledged() + after.acknowledged())
    # It is durable again, from the first command on.
    machine.redis.kill()
    machine.redis.start()
    assert machine.redis.client.xlen(STREAM) >= kept + len(after.acknowledged())


def test_commands_of_a_backup_are_dropped(site: Site) -> None:
    machine = site.machine("vm1")
    send(machine.redis, "vm1-1", "c-1", DEVICE)
    machine.redis.client.xadd(f"commands:waiting:{DEVICE}", {"command_id": "c-2"})
    machine.redis.client.sadd("commands:waiting", DEVICE)
    machine.redis.client.xadd("commands:responses", {"command_id": "c-0"})
    machine.follow(PAGE, "restore-commands")
    assert machine.redis.client.keys() == [b"commands:responses"]


def test_a_lost_database_is_restored_and_what_it_lacks_replayed(site: Site) -> None:
    began = datetime.now(UTC)
    machine = site.running("vm1")
    fleet = site.fleet()
    fleet.wait_for_more(200)
    machine.run("systemctl stop tracker-process@1")
    machine.run("cp -a /var/lib/tracker /var/backups/tracker")
    machine.run("systemctl start tracker-process@1")
    fleet.wait_for_more(200)
    fleet.park()
    all_is_stored(machine, fleet.acknowledged())
    machine.run("systemctl stop tracker-process@1")
    machine.run("rm /var/lib/tracker/*")
    machine.run("cp -a /var/backups/tracker/. /var/lib/tracker/")
    assert len(stored(database(machine))) < len(fleet.acknowledged())
    # From long before the backup was made: what was on its way then is not in it.
    machine.replaced[r"2026-11-25T00:00:00Z"] = f"{began:%FT%TZ}"
    assert " 0 bad" in machine.follow(PAGE, "backup-replay")
    all_is_stored(machine, fleet.acknowledged())


def test_redis_is_full_and_gets_room(site: Site) -> None:
    machine = site.running("vm1")
    health = machine.units["tracker-ingest@1"].url("").rpartition(":")[2]
    machine.replaced[r"localhost:9131"] = f"localhost:{health}"
    fleet = site.fleet()
    fleet.wait_for_more(200)
    machine.run("redis-cli CONFIG SET maxmemory 1mb")
    wait_for(lambda: "appends refused: OOM" in machine.follow(PAGE, "full-look"), "it says why")
    assert "maxmemory_policy:noeviction" in machine.follow(PAGE, "full-look")
    # Nothing is acknowledged meanwhile, and the processor has read all that is there.
    appended = machine.redis.client.xlen(STREAM)
    wait_for(lambda: has_no_lag(machine.run("tracker-admin lag -o json")), "no lag", timeout=60)
    assert machine.redis.client.xlen(STREAM) == appended
    raising, _ = commands(PAGE, "full-raise")  # the other one takes a server with a file
    machine.run(raising)
    ready = block(PAGE, "full-confirm").splitlines()[-1].rstrip("…")
    wait_for(lambda: machine.follow(PAGE, "full-confirm").startswith(ready), "it is ready again")
    fleet.wait_for_more(200)
    fleet.park()
    all_is_stored(machine, fleet.acknowledged())


def test_a_stream_that_nobody_read_is_read_too(site: Site) -> None:
    machine = site.machine("vm1")
    machine.settings("ingest-1.env", "REDIS_TELEMETRY_STREAM=positions")
    # The processor is the last to start: it looks at the heartbeats when it starts, and then
    # every half minute.
    machine.run(f"systemctl start {' '.join(reversed(ROLES))}")
    fleet = site.fleet()
    fleet.wait_for_more(100)
    processor = machine.units["tracker-process@1"]
    wait_for(
        lambda: "no processor reads: positions" in str(processor.readyz()), "it is told", timeout=60
    )
    assert not stored(database(machine))
    shown = machine.follow(PAGE, "drift-read-both")
    assert "positions" in shown
    wait_for(
        lambda: has_no_lag(machine.run("tracker-admin lag -o json --stream positions")), "read"
    )
    fleet.park()
    all_is_stored(machine, fleet.acknowledged())
