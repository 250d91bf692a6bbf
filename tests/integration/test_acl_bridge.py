"""A whole bridge with the user of its role, between a double of Directus and a device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.web.server import Site

from tests.guarded import GuardedServer
from tests.servers import free_port
from tests.system.processes import Daemon
from tests.system.raw import RawDevice
from tests.system.test_commands import DEVICE, answer, read_command
from tests.unit.bridge.double import ADMIN_TOKEN, BRIDGE_TOKEN, DirectusDouble
from tests.waiting import until
from tracker.bridge.rest import DirectusClient
from tracker.bridge.schema import COMMANDS, DEVICES


def answered(port: int) -> None:
    """Log in as the device, take a command and answer it; blocks."""
    with RawDevice(port) as device:
        assert device.login(DEVICE) == b"\x01"
        answer(device, "done", read_command(device))
        device.says_nothing(1)


@ensureDeferred
async def test_the_bridge_does_its_work_as_its_own_user(tmp_path: Path) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    redis = GuardedServer(tmp_path / "redis")
    redis.start()
    double = DirectusDouble(time.time)
    web = reactor.listenTCP(0, Site(double), interface="127.0.0.1")
    directus = f"http://127.0.0.1:{web.getHost().port}"
    port = free_port()
    admin = DirectusClient(reactor, directus, ADMIN_TOKEN)
    ingest = Daemon(
        *(tmp_path, "ingest", "ingest", "--instance-id", "one"),
        *("--listen", f"teltonika=tcp:{port}:interface=127.0.0.1"),
        *("--control", f"unix:{tmp_path / 'control.sock'}"),
        variables={"REDIS_URL_FILE": str(redis.file_of("ingest"))},
    )
    # As the unit has it: what is not given is in a file that is empty, or in a variable.
    (tmp_path / "nothing").write_text("\n")
    bridge = Daemon(
        *(tmp_path, "bridge", "bridge", "--webhook", "none", "--poll-commands", "1"),
        variables={
            "DIRECTUS_URL": directus,
            "DIRECTUS_TOKEN": BRIDGE_TOKEN,
            "DIRECTUS_TOKEN_FILE": str(tmp_path / "nothing"),
            "REDIS_URL_FILE": str(redis.file_of("bridge")),
        },
    )
    try:
        await admin.create(DEVICES, {"imei": DEVICE, "model": "FMB120"})
        await deferToThread(ingest.start)
        await deferToThread(bridge.start)
        row = await admin.create(COMMANDS, {"imei": DEVICE, "text": "getinfo"})
        assert row is not None
        await deferToThread(answered, port)
        await until(
            lambda: double.rows(COMMANDS)[row["id"]]["status"] == "responded",
            "Directus is told",
            timeout=40,
        )
        await until(
            lambda: (
                redis.client.sismember("devices:allowed", DEVICE)
                and redis.client.hgetall("devices:models") == {DEVICE.encode(): b"FMB120"}
                and not redis.client.xpending("commands:responses", "directus")["pending"]
            ),
            "Redis is told",
        )
        assert redis.denied() == []
        assert "NOPERM" not in bridge.text + ingest.text
        assert await deferToThread(bridge.stop) == 0
        assert redis.denied() == []
    finally:
        bridge.kill()
        ingest.kill()
        await admin.close()
        await web.stopListening()
        redis.kill()
