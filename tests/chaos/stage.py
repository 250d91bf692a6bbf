"""All parts of the path as processes, with a proxy between every two of them."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from attrs import frozen

from tests.certificates import certify, key_of
from tests.chaos.cluster import Cluster, Excuses
from tests.chaos.network import UdpProxy
from tests.proxy import LoopThread, Proxy, TlsPort
from tests.servers import PostgresServer, RedisServer, free_port
from tests.system.processes import Daemon, run

INSTANCES: Final = ("one", "two")
PROCESSORS: Final = ("p1", "p2")


class Server(Protocol):
    """A server that can fail."""

    def start(self, wait: bool = True) -> None: ...
    def answers(self) -> bool: ...
    def kill(self) -> None: ...
    def stop(self) -> None: ...
    def suspend(self) -> None: ...
    def resume(self) -> None: ...


@frozen
class Variant:
    """A way to connect the parts."""

    name: str
    tls: bool = False
    sentinel: bool = False
    directus: bool = False
    """Whether Directus is a real one, not the double."""


VARIANTS: Final = {
    one.name: one
    for one in (
        Variant("plain"),
        Variant("tls", tls=True),
        Variant("sentinel", sentinel=True),
        Variant("directus", directus=True),
    )
}


@frozen
class Tls:
    """Certificates of all ports, and of the clients of control ports."""

    ca: Path
    certs: Path
    """The folder that ``tracker-admin certs`` has made."""

    @classmethod
    def make(cls, folder: Path) -> Tls:
        """Make them all."""
        made = run("tracker-admin", "certs", str(folder / "certs"), "--client", "bridge")
        assert made.returncode == 0, made.stderr
        return cls(certify(folder, "127.0.0.1"), folder / "certs")

    def server(self) -> ssl.SSLContext:
        """Context of a port."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key_of(self.ca))
        context.set_alpn_protocols(["postgresql"])  # libpq demands it; others do not ask
        return context

    def client(self) -> ssl.SSLContext:
        """Context of a device."""
        return ssl.create_default_context(cafile=str(self.ca))


class Stage:
    """Redis, PostgreSQL, two instances, two processors, a janitor and a bridge.

    :param folder: for all data and logs.
    :param directus_url: where the bridge finds Directus; its link is made here.
    """

    def __init__(self, folder: Path, variant: Variant, stack: ExitStack) -> None:
        self.folder = folder
        self.variant = variant
        self.network = LoopThread("proxies")
        stack.callback(self.network.close)
        self.links: dict[str, Proxy] = {}
        self.datagrams: dict[str, UdpProxy] = {}
        self.daemons: dict[str, Daemon] = {}
        self.servers: dict[str, Server] = {}
        """What is no role of Tracker's, and fails all the same."""
        self.tls = Tls.make(folder) if variant.tls else None
        self._stack = stack
        self.postgres = PostgresServer()
        stack.callback(self.postgres.remove)
        self.servers["postgres"] = self.postgres
        self.excuses = Excuses()
        self.cluster: Cluster | None = None
        if variant.sentinel:
            self.cluster = Cluster(folder, self.link, stack)
            self.excuses = self.cluster.excuses
            self.servers |= self.cluster.servers
            for number, sentinel in enumerate(self.cluster.sentinels):
                self.servers[f"sentinel-{number}"] = sentinel
        else:
            self._redis = RedisServer(folder / "redis")
            stack.callback(self._redis.kill)
            self.servers["redis"] = self._redis
            self._redis_port = self._plain_or_tls(self._redis.port)
        self._postgres_port = self._plain_or_tls(self.postgres.port)
        self.control_ports = {name: free_port() for name in INSTANCES}
        self.device_ports = {name: free_port() for name in INSTANCES}
        self.webhook_port = free_port()
        for name in INSTANCES:
            self.link(f"devices-{name}", self.device_ports[name])
            self.link(f"control-{name}", self.control_ports[name])
            self.datagrams[name] = UdpProxy(self.network, self.device_ports[name])
        self.link("webhook", self.webhook_port)

    def _plain_or_tls(self, port: int, change: Callable[[bytes], bytes] | None = None) -> int:
        if self.tls is None:
            return port
        return TlsPort(self.network, port, self.tls.server(), change).port

    def link(self, name: str, target: int, change: Callable[[bytes], bytes] | None = None) -> Proxy:
        """Make a proxy between two parts."""
        proxy = Proxy(target, thread=self.network, port=free_port(), change=change)
        self.links[name] = proxy
        return proxy

    def start(self, directus_url: str, token_file: Path, secret_file: Path) -> None:
        """Start everything; returns when all roles are ready.

        :param directus_url: Directus, as the bridge reaches it.
        """
        if self.cluster is not None:
            self.cluster.start()
        else:
            self._redis.start(wait=False)
        self.postgres.start()
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
            *("--webhook", f"tcp:{self.webhook_port}", "--poll-commands", "2"),
            *self._control_credentials(),
        )
        for daemon in self.daemons.values():
            daemon.start(ready=False)
        self.wait_until_ready()

    def wait_until_ready(self, timeout: float = 60) -> None:
        """Wait until every role says that it is ready."""
        for daemon in self.daemons.values():
            daemon.wait_until_ready(timeout)

    def are_ready(self) -> bool:
        """Return whether every role says that it is ready.

        :raises AssertionError: when one has ended.
        """
        return all(one.running and one.readyz()[0] == 200 for one in self.daemons.values())

    def _add(self, name: str, role: str, *options: str) -> None:
        url = self._redis_url(name)
        daemon = Daemon(self.folder, name, role, "--redis", url, *options)
        self.daemons[name] = daemon
        self._stack.callback(self._end, daemon)

    def _end(self, daemon: Daemon) -> None:
        with suppress(AssertionError, ProcessLookupError):
            os.kill(daemon.pid, signal.SIGCONT)
        daemon.kill()

    def _redis_url(self, name: str) -> str:
        if self.cluster is not None:
            return self.cluster.url
        change = self._through_links if name == "bridge" and self.tls is None else None
        if self.tls is None:
            link = self.link(f"{name}-redis", self._redis_port, change)
            return f"redis://127.0.0.1:{link.port}/0"
        # What the bridge reads is changed where it is not encrypted yet.
        port = self._redis_port
        if name == "bridge":
            port = self._plain_or_tls(self._redis.port, self._through_links)
        link = self.link(f"{name}-redis", port)
        return f"rediss://127.0.0.1:{link.port}/0?ca={self.tls.ca}"

    def _through_links(self, data: bytes) -> bytes:
        """Let the bridge find the control ports where their proxies are."""
        for name, port in self.control_ports.items():
            here, there = f"127.0.0.1:{port}", f"127.0.0.1:{self.links[f'control-{name}'].port}"
            data = data.replace(here.encode(), there.encode())
        return data

    def _sink(self, name: str) -> str:
        port = self.link(f"{name}-postgres", self._postgres_port).port
        url = self.postgres.url.replace(f":{self.postgres.port}/", f":{port}/")
        if self.tls is None:
            return url
        return f"{url}?sslmode=verify-full&sslnegotiation=direct&sslrootcert={self.tls.ca}"

    def _ingest_options(self, name: str) -> tuple[str, ...]:
        port, control = self.device_ports[name], self.control_ports[name]
        plain = f"{port}:interface=127.0.0.1"
        options = ("--late-answer", "0.5", "--listen", f"teltonika=udp:{plain}", "--listen")
        if self.tls is None:
            return (*options, f"teltonika=tcp:{plain}", "--control", f"tcp:{control}:plaintext=1")
        certs = self.tls.certs
        roles = self.folder / "roles"
        roles.write_text("bridge operate\n")
        return (
            *options,
            f"teltonika=ssl:{plain}:privateKey={key_of(self.tls.ca)}:certKey={self.tls.ca}",
            *("--control-roles", str(roles), "--control"),
            f"ssl:{control}:privateKey={certs}/server.key:certKey={certs}/server.pem"
            f":clientCA={certs}/ca.pem",
        )

    def control_address(self, name: str) -> str:
        """The control port of an instance, as a client names it."""
        port = self.links[f"control-{name}"].port
        if self.tls is None:
            return f"tcp:127.0.0.1:{port}"
        certs = self.tls.certs
        return (
            f"ssl:127.0.0.1:{port}:privateKey={certs}/bridge.key:certKey={certs}/bridge.pem"
            f":caCert={certs}/ca.pem"
        )

    def _control_credentials(self) -> tuple[str, ...]:
        if self.tls is None:
            return ()
        certs = self.tls.certs
        return (
            *("--control-key", f"{certs}/bridge.key", "--control-cert", f"{certs}/bridge.pem"),
            *("--control-ca", f"{certs}/ca.pem"),
        )

    def redis_client(self) -> Any:
        """A client of the Redis that is the master now, past all proxies."""
        return (self.cluster.master() if self.cluster is not None else self._redis).client

    def memory(self) -> dict[str, int]:
        """Role → the most memory that its process has had, in bytes."""
        return {name: _peak(daemon.pid) for name, daemon in self.daemons.items()}


def _peak(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
