"""A control port and its clients in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.admin import admin
from tests.servers import free_port
from tests.system.raw import Ingest
from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient

Serve = Callable[..., Ingest]


class Place:
    """Where an instance has its control port.

    :param kind: ``unix``, ``ssl`` or ``tcp``.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "control.sock"
        if kind == "ssl":
            self.certificates(folder / "certs")

    def certificates(self, folder: Path) -> Path:
        """Make some, as an operator does."""
        made = admin("certs", str(folder), "--client", "admin", "--client", "eve")
        assert made.returncode == 0, made.stderr
        return folder

    @property
    def option(self) -> tuple[str, str]:
        """What the instance is told."""
        certs = self.folder / "certs"
        return "--control", {
            "unix": f"unix:{self.socket}",
            "ssl": f"ssl:{self.port}:privateKey={certs}/server.key:certKey={certs}/server.pem"
            f":clientCA={certs}/ca.pem",
            "tcp": f"tcp:{self.port}:plaintext=1",
        }[self.kind]

    def address(self, name: str = "admin", certs: Path | None = None, rest: str = "") -> str:
        """What a client is told."""
        certs = certs or self.folder / "certs"
        return {
            "unix": f"unix:{self.socket}",
            "ssl": f"ssl:localhost:{self.port}:privateKey={certs}/{name}.key"
            f":certKey={certs}/{name}.pem:caCert={certs}/ca.pem{rest}",
            "tcp": f"tcp:127.0.0.1:{self.port}",
        }[self.kind]


def connect(where: Any, retry: bool = False) -> ControlClient:
    """A client; of an address, or of an endpoint."""
    from twisted.internet import reactor

    endpoint = client_endpoint(reactor, where) if isinstance(where, str) else where
    client = ControlClient(reactor, endpoint, "test", retry)
    client.startService()
    return client


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """What blocks, as a device does."""
    return await deferToThread(function, *arguments)
