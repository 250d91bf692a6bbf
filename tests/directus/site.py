"""A bridge between a real Directus and an ingest instance, and simulated devices."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.directus.server import DirectusServer
from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tests.system.raw import Ingest, RawDevice
from tests.system.test_commands import answer
from tests.unit.bridge.double import OPERATOR_TOKEN
from tracker.outcomes import Decoded
from tracker.vendors.teltonika.envelope import decode_frame
from tracker.vendors.teltonika.messages import Message, decode_messages

DEVICE = "356307042441013"
#: Seconds between two polls of the bridge for pending rows.
POLL = 4


class Site:
    """A Directus, a bridge, and an ingest instance.

    :param secrets: the folder of the bridge's token and of the secret.
    :param port: port of the bridge's webhook.
    :param control: endpoint of the instance's control port.
    :param options: options of the bridge.
    :param permissions: file with the permissions of the control port.
    """

    def __init__(
        self,
        folder: Path,
        redis: RedisServer,
        directus: DirectusServer,
        secrets: Path,
        port: int | None = None,
        control: str = "",
        options: tuple[str, ...] = (),
        permissions: Path | None = None,
    ) -> None:
        self.directus = directus
        self.redis = redis
        control = control or f"unix:{folder / 'control.sock'}"
        self.ingest = Ingest(
            *(folder, redis, "--instance-id", "one", "--control", control),
            *(() if permissions is None else ("--control-permissions", str(permissions))),
        )
        self.bridge = Daemon(
            *(folder, "bridge", "bridge", "--redis", redis.url),
            *("--directus", directus.url, "--token-file", str(secrets / "bridge")),
            *("--secret-file", str(secrets / "secret")),
            *("--webhook", f"tcp:{port or free_port()}", "--poll-commands", str(POLL), *options),
        )

    def start(self) -> Site:
        self.ingest.daemon.start()
        self.bridge.start()
        return self

    def end(self) -> None:
        self.bridge.kill()
        self.ingest.daemon.kill()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request as an operator, which must succeed, and return its ``data``."""
        status, response = self.directus.ask(method, path, body, OPERATOR_TOKEN)
        assert status < 300, (status, response)
        return response["data"] if response else None

    def create(self, text: str | None = "getinfo", **fields: Any) -> str:
        """Create a row of ``commands`` as an operator, and return its id."""
        row = self.ask("POST", "/items/commands", {"imei": DEVICE, "text": text} | fields)
        key: str = row["id"]
        return key

    def row(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/items/commands/{key}")
        return found

    def status(self, key: str) -> str:
        found: str = self.row(key)["status"]
        return found


def read_frame(device: RawDevice) -> bytes:
    """Return the bytes of the next frame that a device receives."""
    head = device.read(8)
    return head + device.read(int.from_bytes(head[4:], "big") + 4)


def message_in(frame: bytes) -> Message:
    """Return the command in a frame."""
    found = decode_frame(frame, 1 << 16)
    assert isinstance(found, Decoded), frame
    decoded = decode_messages(found.value)
    assert isinstance(decoded, Decoded), frame
    return decoded.value.parts[0]


class AnsweringDevice:
    """A device that answers each command with the command's text, until :meth:`end`."""

    def __init__(self, site: Site, device_id: str = DEVICE) -> None:
        self.executed: list[str] = []
        self.frames: list[bytes] = []
        """The received frames, byte for byte."""
        self.ready = threading.Event()
        self._device_id = device_id
        self._site = site
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            with suppress(OSError, AssertionError):
                device = self._site.ingest.connect()
                device.login(self._device_id)
                device.deliver(1)
                self.ready.set()
                device.socket.settimeout(1)
                while not self._over.is_set():
                    try:
                        frame = read_frame(device)
                    except TimeoutError:
                        device.send(b"\xff")
                        continue
                    command = message_in(frame)
                    self.frames.append(frame)
                    self.executed.append(command.text or "")
                    answer(device, f"{self._device_id} did {command.text}", command)
            self._over.wait(0.1)

    def end(self) -> None:
        self._over.set()
        self._thread.join(20)
