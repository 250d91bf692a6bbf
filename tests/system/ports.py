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


class ControlPort:
    """The control port of an instance.

    :param kind: ``unix`` or ``ssl``.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self.socket = folder / "control.sock"
        self._certs = folder / "certs"
        if kind == "ssl":
            made = admin("certs", str(self._certs), "--client", "admin", "--client", "eve")
            assert made.returncode == 0, made.stderr

    @property
    def option(self) -> tuple[str, str]:
        """Option and value for the instance."""
        certs = self._certs
        return "--control", {
            "unix": f"unix:{self.socket}",
            "ssl": f"ssl:{self.port}:privateKey={certs}/server.key:certKey={certs}/server.pem"
            f":clientCA={certs}/ca.pem",
        }[self.kind]

    def address(self, name: str = "admin") -> str:
        """Return the endpoint for a client with the certificate ``name``."""
        certs = self._certs
        return {
            "unix": f"unix:{self.socket}",
            "ssl": f"ssl:localhost:{self.port}:privateKey={certs}/{name}.key"
            f":certKey={certs}/{name}.pem:caCert={certs}/ca.pem",
        }[self.kind]


def connect(address: str, retry: bool = False) -> ControlClient:
    """Return a started client."""
    from twisted.internet import reactor

    client = ControlClient(reactor, client_endpoint(reactor, address), "test", retry)
    client.startService()
    return client


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a blocking function in a thread."""
    return await deferToThread(function, *arguments)
