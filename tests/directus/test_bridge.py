"""From a row in a real Directus to a device, and back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.directus.conftest import Prepared
from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon, run
from tests.system.raw import Ingest
from tests.system.test_commands import answer, online, read_command
from tests.unit.bridge.double import BRIDGE_TOKEN, OPERATOR_TOKEN
from tests.waiting import wait_for
from tracker.bridge.schema import BRIDGE_ROLE

DEVICE = "356307042441013"
#: Seconds between two looks of the bridge at what is pending.
POLL = 4


class Site:
    """A Directus, a bridge beside it, and an ingest instance."""

    def __init__(self, folder: Path, redis: RedisServer, directus: Prepared, port: int) -> None:
        self.directus = directus
        self.redis = redis
        control = folder / "control.sock"
        self.ingest = Ingest(folder, redis, "--instance-id", "one", "--control", f"unix:{control}")
        self.bridge = Daemon(
            *(folder, "bridge", "bridge", "--redis", redis.url),
            *("--directus", directus.server.url, "--token-file", str(directus.bridge_token_file)),
            *("--secret-file", str(directus.secret_file), "--webhook", f"tcp:{port}"),
            *("--poll-commands", str(POLL)),
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.directus.server.ask(method, path, body, OPERATOR_TOKEN)
        assert status < 300, (status, answer)
        return answer["data"] if answer else None

    def create(self, text: str = "getinfo", **fields: Any) -> str:
        """Make a row of ``commands``, as an operator does; its id."""
        row = self.ask("POST", "/items/commands", {"imei": DEVICE, "text": text} | fields)
        key: str = row["id"]
        return key

    def row(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/items/commands/{key}")
        return found

    def status(self, key: str) -> str:
        found: str = self.row(key)["status"]
        return found


@pytest.fixture
def site(tmp_path: Path, redis: RedisServer, directus: Prepared) -> Iterator[Site]:
    directus.wipe()
    made = Site(tmp_path, redis, directus, free_port())
    made.ingest.daemon.start()
    made.bridge.start()
    yield made
    made.bridge.kill()
    made.ingest.daemon.kill()


@pytest.fixture
def hooked(tmp_path: Path, redis: RedisServer, directus: Prepared) -> Iterator[Site]:
    """The same, and the Flows of Directus tell the bridge."""
    directus.wipe()
    port = free_port()
    ended = run(
        *("tracker-admin", "directus", "setup", *directus.options()),
        *("--bridge-url", f"http://127.0.0.1:{port}/commands"),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    made = Site(tmp_path, redis, directus, port)
    made.ingest.daemon.start()
    made.bridge.start()
    yield made
    made.bridge.kill()
    made.ingest.daemon.kill()


def test_a_command_that_no_webhook_tells_of_is_found_and_answered(site: Site) -> None:
    device = online(site.ingest)
    began = time.monotonic()
    key = site.create("getinfo")
    command = read_command(device)
    assert command.text == "getinfo"
    wait_for(lambda: site.status(key) == "delivered", "delivered")
    answer(device, "INI:1", command)
    wait_for(lambda: site.status(key) == "responded", "responded")
    print(f"from the row's creation to its final status: {time.monotonic() - began:.2f} s")
    row = site.row(key)
    assert row["response"] == "INI:1"
    assert row["instance"] == "one"
    assert row["routed_at"] <= row["delivered_at"] <= row["finished_at"]


def test_a_webhook_tells_of_a_command_at_once(hooked: Site) -> None:
    device = online(hooked.ingest)
    began = time.monotonic()
    key = hooked.create("setdigout 1", codec="14")
    command = read_command(device)
    assert time.monotonic() - began < POLL / 2, "found by looking for it"
    assert (command.codec.name, command.text, command.imei) == ("14", "setdigout 1", DEVICE)
    answer(device, "DOUT1:1", command)
    wait_for(lambda: hooked.status(key) == "responded", "responded")
    print(f"from the row's creation to its final status: {time.monotonic() - began:.2f} s")


def test_what_makes_no_sense_is_explained_on_the_row(site: Site) -> None:
    keys = [
        site.create("x" * 5000),
        site.create(codec="13"),
        site.create(expires_at="2020-01-01T00:00:00Z"),
    ]
    device = online(site.ingest)
    wait_for(lambda: all(site.row(key)["finished_at"] for key in keys), "explained")
    long, codec, late = map(site.row, keys)
    assert (long["status"], long["reason"]) == ("failed", "malformed")
    assert "4096 bytes" in long["response"]
    assert (codec["status"], codec["reason"]) == ("failed", "malformed")
    assert "13" in codec["response"]
    assert late["status"] == "expired"
    device.socket.close()


def test_devices_follow_the_collection(site: Site) -> None:
    ask = site.directus.server.data
    ask("POST", "/items/devices", {"imei": DEVICE, "model": "FMB120"})
    ask("POST", "/items/devices", {"imei": "356307042441021", "enabled": False})
    site.bridge.kill()
    site.bridge.start()
    allowed = site.redis.client.smembers("devices:allowed")
    assert set(allowed) == {DEVICE.encode()}
    assert site.redis.client.hgetall("devices:models") == {DEVICE.encode(): b"FMB120"}


class Answering:
    """A device that answers each command with its own text, until it is told to stop."""

    def __init__(self, site: Site) -> None:
        self.executed: list[str] = []
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            with suppress(OSError, AssertionError):
                device = self._site.ingest.connect()
                device.login(DEVICE)
                device.deliver(1)
                device.socket.settimeout(1)
                while not self._over.is_set():
                    try:
                        command = read_command(device)
                    except TimeoutError:
                        device.send(b"\xff")
                        continue
                    self.executed.append(command.text or "")
                    answer(device, f"did {command.text}", command)
            self._over.wait(0.1)

    def end(self) -> None:
        self._over.set()
        self._thread.join(20)


def test_hundreds_at_once_while_everything_is_killed(hooked: Site, directus: Prepared) -> None:
    device = Answering(hooked)
    try:
        texts = [f"setparam 1:{number}" for number in range(300)]
        rows = hooked.ask(
            "POST", "/items/commands", [{"imei": DEVICE, "text": text} for text in texts]
        )
        keys = [row["id"] for row in rows]

        def ended() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = hooked.ask(
                "GET", "/items/commands?limit=-1&filter[finished_at][_nnull]=true"
            )
            return found

        wait_for(lambda: len(device.executed) > 20, "some are executed")
        hooked.bridge.kill()
        hooked.bridge.start(ready=False)
        wait_for(lambda: len(ended()) > 40, "some have ended", timeout=60)
        hooked.ingest.daemon.kill()
        hooked.ingest.daemon.start()
        wait_for(lambda: len(ended()) > 80, "more have ended", timeout=60)
        hooked.redis.kill()
        hooked.redis.start()
        wait_for(lambda: len(ended()) > 120, "more have ended", timeout=60)
        directus.server.kill()
        directus.server.start()
        wait_for(lambda: len(ended()) == len(keys), "all have ended", timeout=120)
        assert len(device.executed) == len(set(device.executed))
        for row in ended():
            if row["status"] == "responded":
                assert row["response"] == f"did {row['text']}"
                assert row["text"] in device.executed
            else:
                assert row["reason"] in ("in_doubt", "disconnected"), row
        assert sum(row["status"] == "responded" for row in ended()) > 250
    finally:
        device.end()


def test_a_token_that_is_revoked_loses_nothing(site: Site, directus: Prepared) -> None:
    (user,) = directus.server.data("GET", f"/users?filter[role][_eq]={BRIDGE_ROLE}&fields=id")
    device = online(site.ingest)
    key = site.create("getinfo")
    command = read_command(device)
    directus.server.data("PATCH", f"/users/{user['id']}", {"token": None})
    answer(device, "INI:1", command)
    wait_for(lambda: site.bridge.readyz()[0] == 503, "told")
    assert "Directus" in str(site.bridge.readyz()[1]["reasons"])
    directus.server.data("PATCH", f"/users/{user['id']}", {"token": BRIDGE_TOKEN})
    wait_for(lambda: site.status(key) == "responded", "responded", timeout=60)
    wait_for(lambda: site.bridge.readyz()[0] == 200, "ready again", timeout=60)


def test_a_row_that_is_deleted_meanwhile_is_let_go(site: Site) -> None:
    device = online(site.ingest)
    key = site.create("getinfo")
    command = read_command(device)
    site.directus.server.data("DELETE", f"/items/commands/{key}")
    answer(device, "INI:1", command)
    wait_for(lambda: f"command {key}: no row takes responded" in site.bridge.text, "let go")
    assert site.bridge.readyz()[0] == 200
    (group,) = site.redis.client.xinfo_groups("commands:responses")
    assert group["pending"] == 0
