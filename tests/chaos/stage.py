"""All parts of a site as processes, with proxies between them."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.certificates import key_of
from tests.chaos.stores import Cluster, Server, Single, Store
from tests.chaos.wiring import Tls, Wiring
from tests.servers import PostgresServer, free_port
from tests.system.processes import Daemon
from tests.waiting import wait_for

INSTANCES: Final = ("one", "two")
PROCESSORS: Final = ("p1", "p2")


@frozen
class Variant:
    """A way to connect the parts."""

    name: str
    tls: bool = False
    sentinel: bool = False
    directus: bool = False
    """True for a real Directus, False for its double."""


VARIANTS: Final = {
    one.name: one
    for one in (
        Variant("plain"),
        Variant("tls", tls=True),
        Variant("sentinel", sentinel=True),
        Variant("directus", directus=True),
    )
}


class Stage:
    """Redis, PostgreSQL, two instances, two processors, a janitor and a bridge.

    :param folder: folder for all data and logs.
    """

    def __init__(self, folder: Path, variant: Variant, stack: ExitStack) -> None:
        self.folder = folder
        self.wiring = Wiring(Tls.make(folder) if variant.tls else None, stack)
        self._stack = stack
        self.postgres = PostgresServer()
        stack.callback(self.postgres.remove)
        kind = Cluster if variant.sentinel else Single
        self.store: Store = kind(folder, self.wiring, stack)
        self.servers: dict[str, Server] = {"postgres": self.postgres, **self.store.servers}
        """Servers other than Tracker's roles into which faults are injected."""
        self.daemons: dict[str, Daemon] = {}
        self.control_ports = {name: free_port() for name in INSTANCES}
        self._device_ports = {name: free_port() for name in INSTANCES}
        self._webhook_port = free_port()
        self._postgres_port = self.wiring.protected(self.postgres.port)
        for name in INSTANCES:
            self.wiring.link(f"devices-{name}", self._device_ports[name])
            self.wiring.link(f"control-{name}", self.control_ports[name])
            self.wiring.datagram_link(name, self._device_ports[name])
        self.wiring.link("webhook", self._webhook_port)

    def start(self, directus_url: str, token_file: Path, secret_file: Path) -> None:
        """Start all processes, and wait until all roles are ready.

        :param directus_url: URL of Directus for the bridge.
        """
        self.postgres.start(wait=False)
        self.store.start()
        wait_for(self.postgres.is_up, "PostgreSQL is up", timeout=60)
        for name in INSTANCES:
            self._add(name, "ingest", "--instance-id", name, *self._ingest_options(name))
        for name in PROCESSORS:
            self._add(
                *(name, "process", "--consumer", name, "--sink", self._sink(name)),
                *("--claim-after", "3", "--batch-size", "500"),
            )
        self._add("janitor", "janitor", "--interval", "1s")
        self._add(
            *("bridge", "bridge", "--consumer", "bridge", "--directus", directus_url),
            *("--token-file", str(token_file), "--secret-file", str(secret_file)),
            *("--webhook", f"tcp:{self._webhook_port}", "--poll-commands", "2"),
            *self._control_credentials(),
        )
        for daemon in self.daemons.values():
            daemon.start(ready=False)
        self.wait_until_ready()

    def wait_until_ready(self, timeout: float = 60) -> None:
        """Wait until all roles are ready."""
        for daemon in self.daemons.values():
            daemon.wait_until_ready(timeout)

    def are_ready(self) -> bool:
        """Return True if all roles are ready.

        :raises AssertionError: if a role has ended.
        """
        return all(one.running and one.readyz()[0] == 200 for one in self.daemons.values())

    def _add(self, name: str, role: str, *options: str) -> None:
        url = self.store.url(name, self._through_links if role == "bridge" else None)
        daemon = Daemon(self.folder, name, role, "--redis", url, *options)
        self.daemons[name] = daemon
        self._stack.callback(self._end, daemon)

    def _end(self, daemon: Daemon) -> None:
        with suppress(AssertionError, ProcessLookupError):
            os.kill(daemon.pid, signal.SIGCONT)
        daemon.kill()

    def _through_links(self, data: bytes) -> bytes:
        """Replace the addresses of control ports by those of their proxies."""
        for name, port in self.control_ports.items():
            direct, proxied = (
                f"127.0.0.1:{port}",
                f"127.0.0.1:{self.wiring.links[f'control-{name}'].port}",
            )
            data = data.replace(direct.encode(), proxied.encode())
        return data

    def _sink(self, name: str) -> str:
        port = self.wiring.link(f"{name}-postgres", self._postgres_port).port
        url = self.postgres.url.replace(f":{self.postgres.port}/", f":{port}/")
        if self.wiring.tls is None:
            return url
        return f"{url}?sslmode=verify-full&sslnegotiation=direct&sslrootcert={self.wiring.tls.ca}"

    def _ingest_options(self, name: str) -> tuple[str, ...]:
        port, control = self._device_ports[name], self.control_ports[name]
        plain = f"{port}:interface=127.0.0.1"
        options = ("--late-answer", "0.5", "--listen", f"teltonika=udp:{plain}", "--listen")
        if self.wiring.tls is None:
            return (*options, f"teltonika=tcp:{plain}", "--control", f"tcp:{control}:plaintext=1")
        certs = self.wiring.tls.certs
        permissions = self.folder / "permissions"
        permissions.write_text("bridge operate\n")
        return (
            *options,
            f"teltonika=ssl:{plain}:privateKey={key_of(self.wiring.tls.ca)}:certKey={self.wiring.tls.ca}",
            *("--control-permissions", str(permissions), "--control"),
            f"ssl:{control}:privateKey={certs}/server.key:certKey={certs}/server.pem"
            f":clientCA={certs}/ca.pem",
        )

    def control_address(self, name: str) -> str:
        """Return the address of an instance's control port for a client."""
        port = self.wiring.links[f"control-{name}"].port
        if self.wiring.tls is None:
            return f"tcp:127.0.0.1:{port}"
        certs = self.wiring.tls.certs
        return (
            f"ssl:127.0.0.1:{port}:privateKey={certs}/bridge.key:certKey={certs}/bridge.pem"
            f":caCert={certs}/ca.pem"
        )

    def _control_credentials(self) -> tuple[str, ...]:
        if self.wiring.tls is None:
            return ()
        certs = self.wiring.tls.certs
        return (
            *("--control-key", f"{certs}/bridge.key", "--control-cert", f"{certs}/bridge.pem"),
            *("--control-ca", f"{certs}/ca.pem"),
        )

    def memory(self) -> dict[str, int]:
        """Return role → peak memory of its process, in bytes."""
        return {name: self.peak(name) for name in self.daemons}

    def peak(self, name: str) -> int:
        """Return the peak memory of a role's process, in bytes; 0 if it does not run."""
        daemon = self.daemons[name]
        return _peak(daemon.pid) if daemon.started else 0


def _peak(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
