"""A bridge process with the Redis user of its role, a double of Directus, and a device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.web.server import Site

from tests.acl import AclRedisServer
from tests.servers import free_port
from tests.system.processes import Daemon
from tests.system.raw import RawDevice
from tests.system.test_commands import DEVICE, answer, read_command
from tests.unit.bridge.double import ADMIN_TOKEN, BRIDGE_TOKEN, DirectusDouble
from tests.unit.bridge.items import create
from tests.waiting import until
from tracker.bridge.rest import DirectusClient
from tracker.bridge.schema import COMMANDS, DEVICES

OVER = "2026-01-01T00:00:00.000Z"


def answered(port: int) -> None:
    """Log in as the device, read a command and answer it; blocks."""
    with RawDevice(port) as device:
        assert device.login(DEVICE) == b"\x01"
        answer(device, "done", read_command(device))
        device.is_silent(1)


@ensureDeferred
async def test_bridge_works_as_its_own_user(tmp_path: Path) -> None:
    from twisted.internet import reactor as installed

    reactor: Any = installed
    redis = AclRedisServer(tmp_path / "redis")
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
        variables={"REDIS_URL_FILE": str(redis.url_file("ingest"))},
    )
    # Like the unit: a secret that is not given is an empty file, or a variable.
    (tmp_path / "nothing").write_text("\n")
    bridge = Daemon(
        *(tmp_path, "bridge", "bridge", "--webhook", "none", "--poll-commands", "1"),
        variables={
            "DIRECTUS_URL": directus,
            "DIRECTUS_TOKEN": BRIDGE_TOKEN,
            "DIRECTUS_TOKEN_FILE": str(tmp_path / "nothing"),
            "REDIS_URL_FILE": str(redis.url_file("bridge")),
        },
    )
    try:
        # Expired commands: one that Redis has lost, one that waits, and one that was written.
        row = {**dict.fromkeys(double.tables[COMMANDS].columns), "imei": DEVICE, "text": "x"}
        row |= {"status": "routed", "expires_at": OVER, "date_created": OVER}
        lost, waiting, written = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(3))
        for key in (lost, waiting, written):
            double.rows(COMMANDS)[key] = {**row, "id": key}
        redis.client.xadd(f"commands:waiting:{DEVICE}", {"command_id": waiting})
        entry = redis.client.xadd("commands:outbound:gone", {"command_id": written}).decode()
        redis.client.set(f"commands:sent:{written}", f"delivered commands:outbound:gone {entry}")
        redis.client.hset("connections:registry", DEVICE, "gone")
        await create(admin, DEVICES, {"imei": DEVICE, "model": "FMB120", "vendor": "teltonika"})
        await deferToThread(ingest.start)
        await deferToThread(bridge.start)
        await until(lambda: double.rows(COMMANDS)[lost]["status"] == "failed", "command in doubt")
        made = await create(admin, COMMANDS, {"imei": DEVICE, "text": "getinfo"})
        assert made is not None
        await deferToThread(answered, port)
        await until(
            lambda: double.rows(COMMANDS)[made["id"]]["status"] == "responded",
            "response in Directus",
            timeout=40,
        )
        await until(
            lambda: (
                redis.client.sismember("devices:allowed", DEVICE)
                and redis.client.hgetall("devices:models") == {DEVICE.encode(): b"FMB120"}
                and not redis.client.xpending("commands:responses", "directus")["pending"]
            ),
            "lists in Redis",
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
