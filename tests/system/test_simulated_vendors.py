"""Simulated devices of each vendor on the whole path to the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon, Simulation, stored, wait_until_stored


@pytest.mark.parametrize(
    ("vendor", "kills"), [("concox", False), ("queclink", True), ("teltonika", True)]
)
def test_acknowledged_records_are_stored_once_under_the_journaled_keys(
    tmp_path: Path, redis: RedisServer, vendor: str, kills: bool
) -> None:
    port, database = free_port(), tmp_path / "positions.sqlite"
    variables = {"REDIS_URL": redis.url}
    listen = ("--listen", f"{vendor}=tcp:{port}:interface=127.0.0.1")
    sink = ("--sink", f"sqlite:{database}")
    ingest = Daemon(tmp_path, "ingest", "ingest", *listen, variables=variables)
    process = Daemon(tmp_path, "process", "process", *sink, variables=variables)
    heartbeat = () if vendor == "teltonika" else ("--heartbeat", "1s")
    fleet = None
    try:
        ingest.start()
        process.start()
        fleet = Simulation(tmp_path, port, "--vendor", vendor, "--devices", "5", *heartbeat)
        fleet.wait_for_more(20)
        # Concox devices keep nothing that they have sent, so that a kill loses records.
        if kills:
            ingest.kill()
            ingest.start()
            fleet.wait_for_more(20)
        fleet.park()
        keys = fleet.acknowledged()
        wait_until_stored(database, len(set(keys)))
        assert sorted(stored(database)) == sorted(set(keys))
    finally:
        if fleet is not None:
            fleet.kill()
        process.kill()
        ingest.kill()
