"""Redis: a single server, or a master and a replica with three Sentinels."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Protocol

import valkey
from attrs import define, field

from tests.chaos.wiring import Wiring
from tests.proxy import Change, Proxy
from tests.servers import RedisServer, Sentinel
from tests.waiting import wait_for

#: Seconds before a promotion in which a confirmed write may be missing on the replica, and after
#: it in which the old master may still have confirmed writes.
LOSS_BEFORE_PROMOTION: Final = 6.0
LOSS_AFTER_PROMOTION: Final = 12.0
_POLL: Final = 0.1
#: A master refuses writes without a replica that lags by less than two seconds.
_OPTIONS: Final = (
    *("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"),
    *("--repl-diskless-sync-delay", "0", "--replica-announce-ip", "127.0.0.1"),
)


@define
class Failovers:
    """Unplanned failovers, in which Redis may have lost confirmed writes."""

    promotions: list[float] = field(factory=list)
    """UNIX seconds."""
    planned: int = 0

    def may_have_lost(self, at: float, following: float = 0.0) -> bool:
        """Return True if a failover may have lost a write.

        :param at: UNIX time of the write.
        :param following: seconds after the write in which later writes that follow from it may be
            lost.
        """
        return any(
            one - LOSS_BEFORE_PROMOTION - following < at < one + LOSS_AFTER_PROMOTION
            for one in self.promotions
        )


class Server(Protocol):
    """A server into which faults are injected."""

    def start(self, wait: bool = True) -> None: ...
    def is_up(self) -> bool: ...
    def kill(self) -> object: ...
    def stop(self) -> object: ...
    def suspend(self) -> None: ...
    def resume(self) -> None: ...


class Store(Protocol):
    """Redis: a single server or a cluster."""

    servers: dict[str, Server]
    failovers: Failovers

    def start(self) -> None:
        """Start all servers."""

    def url(self, role: str, change: Change | None) -> str:
        """Create the proxy of a role, and return its URL.

        :param change: applied to the bytes that the role reads.
        """

    def client(self) -> Any:
        """Return a client of the master that uses no proxy."""


class Single:
    """One server with a separate proxy for each role."""

    def __init__(self, folder: Path, wiring: Wiring, stack: ExitStack) -> None:
        self.failovers = Failovers()
        self._server = RedisServer(folder / "redis")
        stack.callback(self._server.kill)
        self.servers: dict[str, Server] = {"redis": self._server}
        self._wiring = wiring

    def start(self) -> None:
        """See :class:`Store`."""
        self._server.start()

    def url(self, role: str, change: Change | None) -> str:
        """See :class:`Store`."""
        name, tls = f"{role}-redis", self._wiring.tls
        if tls is None:
            link = self._wiring.link(name, self._server.port, change)
            return f"redis://127.0.0.1:{link.port}/0"
        link = self._wiring.link(name, self._wiring.protected(self._server.port, change))
        return f"rediss://127.0.0.1:{link.port}/0?ca={tls.ca}"

    def client(self) -> Any:
        """See :class:`Store`."""
        return self._server.client


class Cluster:
    """Two servers, each behind one proxy for all clients and the other server."""

    def __init__(self, folder: Path, wiring: Wiring, stack: ExitStack) -> None:
        self.failovers = Failovers()
        self._pair: dict[str, RedisServer] = {}
        self._links: dict[str, Proxy] = {}
        self._server_clients: dict[str, Any] = {}
        for name in ("redis-a", "redis-b"):
            server = RedisServer(folder / name, *_OPTIONS)
            stack.callback(server.kill)
            self._pair[name] = server
            self._links[name] = wiring.link(name, server.port)
            server.extra = self._options(name)
            self._server_clients[name] = _impatient_client(server.port)
        master_port = self._links["redis-a"].port
        self.sentinels = [
            Sentinel(
                folder / f"sentinel-{number}",
                self._pair["redis-a"],
                quorum=2,
                master_port=master_port,
            )
            for number in range(3)
        ]
        proxies = [wiring.link(f"sentinel-{i}", one.port) for i, one in enumerate(self.sentinels)]
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        self._url = f"redis+sentinel://{hosts}/{Sentinel.NAME}"
        self.servers: dict[str, Server] = {**self._pair}
        for number, sentinel in enumerate(self.sentinels):
            stack.callback(sentinel.kill)
            self.servers[f"sentinel-{number}"] = sentinel
        self._sentinel_clients = [_impatient_client(sentinel.port) for sentinel in self.sentinels]
        self._masters = {"redis-a"}
        self._planning = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cluster", daemon=True)
        stack.callback(self._end)

    def _options(self, name: str) -> tuple[str, ...]:
        return ("--replica-announce-port", str(self._links[name].port))

    def start(self) -> None:
        """Start all servers, and wait until a failover is possible."""
        first, second = self._pair.values()
        first.start()
        second.start()
        second.client.replicaof("127.0.0.1", self._links["redis-a"].port)
        wait_for(lambda: second.is_in_sync_with(first), "the replica is in sync")
        for sentinel in self.sentinels:
            sentinel.start(wait=False)
        for sentinel in self.sentinels:
            wait_for(sentinel.is_up, "the Sentinel is up")
            wait_for(sentinel.has_replica, "the Sentinel knows the replica")
            wait_for(lambda: self._others(sentinel) == 2, "the Sentinel knows the others")  # noqa: B023
        self._thread.start()

    @staticmethod
    def _others(sentinel: Sentinel) -> int:
        return len(sentinel.client.execute_command("SENTINEL SENTINELS", Sentinel.NAME))

    def url(self, role: str, change: Change | None) -> str:
        """See :class:`Store`; all roles use the same proxies, and ``change`` is ignored."""
        return self._url

    def client(self) -> Any:
        """See :class:`Store`.

        :raises AssertionError: if no master is found within a minute.
        """
        name = wait_for(self._master, "a master", timeout=60)
        assert name is not None
        return self._pair[name].client

    def _master(self) -> str | None:
        ports = set()
        for sentinel in self.sentinels:
            with suppress(valkey.ValkeyError):
                ports.add(sentinel.master_port())
        masters = [name for name in self._pair if self._role(name) == "master"]
        named = [name for name, link in self._links.items() if {link.port} == ports]
        # A master has the role in its own reply and in those of all Sentinels.
        return masters[0] if masters == named and len(masters) == 1 else None

    def _is_named(self, name: str) -> bool:
        """Return True if a Sentinel names this server as master."""
        for sentinel in self._sentinel_clients:
            with suppress(valkey.ValkeyError):
                _, port = sentinel.execute_command(
                    "SENTINEL GET-MASTER-ADDR-BY-NAME", Sentinel.NAME
                )
                if int(port) == self._links[name].port:
                    return True
        return False

    def _role(self, name: str) -> str | None:
        with suppress(valkey.ValkeyError):
            role: bytes = self._server_clients[name].role()[0]
            return role.decode()
        return None

    def is_in_sync(self) -> bool:
        """Return True if there is one master, with a replica in sync."""
        name = self._master()
        if name is None:
            return False
        (replica,) = (one for one in self._pair if one != name)
        with suppress(valkey.ValkeyError):
            return self._pair[replica].is_in_sync_with(self._pair[name])
        return False

    def fail_over(self, _: float) -> None:
        """Fail over without losing a write, by pausing writes until the promotion."""
        wait_for(self.is_in_sync, "the servers are whole", timeout=60)
        name = self._master()
        assert name is not None
        master = self._pair[name]
        (replica,) = (one for one in self._pair if one != name)
        self._planning = True
        try:
            with suppress(valkey.ValkeyError):
                self._server_clients[name].execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
                wait_for(lambda: self._pair[replica].is_in_sync_with(master), "in sync", timeout=5)
                self.sentinels[0].fail_over()
                wait_for(lambda: self._role(replica) == "master", "promoted", timeout=30)
                # Sentinel would do this twenty seconds later: it cannot reconfigure a server whose
                # writes are paused, and then waits until the server has been healthy for a while.
                self._server_clients[name].replicaof("127.0.0.1", self._links[replica].port)
                self._server_clients[name].execute_command("CLIENT", "UNPAUSE")
                wait_for(lambda: self._role(name) == "slave", "demoted", timeout=60)
                self.failovers.planned += 1
                self._masters.add(replica)
        finally:
            self._planning = False

    def _watch(self) -> None:
        while not self._over.wait(_POLL):
            for name in self._pair:
                role = self._role(name)
                (other,) = (one for one in self._pair if one != name)
                if role == "slave":
                    self._masters.discard(name)
                succeeded = self._role(other) == "master" and self._is_named(other)
                if role == "slave" or (role is None and succeeded):
                    # Sentinel, or an operator if the server is down, would write this to the
                    # server's configuration file. Before the other server is promoted, the two
                    # would be replicas of each other.
                    master = ("--replicaof", "127.0.0.1", str(self._links[other].port))
                    self._pair[name].extra = (*self._options(name), *master)
                elif role == "master" and name not in self._masters:
                    self._masters.add(name)
                    self._pair[name].extra = self._options(name)
                    if not self._planning:
                        self.failovers.promotions.append(time.time())

    def _end(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(20)


def _impatient_client(port: int) -> Any:
    """Return a client with short timeouts."""
    return valkey.Valkey(port=port, retry=None, socket_timeout=0.5, socket_connect_timeout=0.5)
