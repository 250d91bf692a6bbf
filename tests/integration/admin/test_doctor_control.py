"""The doctor's check of control ports."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from attrs import asdict
from pytest_twisted import ensureDeferred

from tests.integration.admin.doctor import examined
from tests.servers import RedisServer
from tracker.ingestion.identity import Identity
from tracker.observe.findings import Status


def set_heartbeat(redis: RedisServer, name: str, **facts: Any) -> None:
    """Write the heartbeat of an instance on this machine."""
    identity = Identity.of(os.getpid())
    assert identity is not None
    redis.client.set(f"instance:heartbeat:{name}", json.dumps(asdict(identity) | facts), ex=90)


@ensureDeferred
async def test_instances_without_a_control_port_are_a_warning(redis: RedisServer) -> None:
    set_heartbeat(redis, "eu-1")
    set_heartbeat(redis, "eu-2", control="ssl:host:5099")
    found = (await examined(redis.url)).one("control-ports")
    assert found.status is Status.WARNING
    assert "eu-1" in found.seen
    assert "eu-2" not in found.seen
    assert "--control none" in found.fix


@ensureDeferred
async def test_sockets_here_that_cannot_be_connected_to_are_warnings(
    redis: RedisServer, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(tmp_path / "a.sock"))
        listening.listen()
        set_heartbeat(redis, "live", control=f"unix:{tmp_path}/a.sock")
        set_heartbeat(redis, "elsewhere", control="unix:/none.sock", boot="another")
        assert (await examined(redis.url)).one("control-ports").status is Status.OK
        for name, path in (("gone", f"{tmp_path}/b.sock"), ("long", "x" * 200)):
            set_heartbeat(redis, name, control=f"unix:{path}")
        found = (await examined(redis.url)).all("control-ports")
    assert [one.status for one in found] == [Status.OK, Status.WARNING]
    assert "gone" in found[1].seen
