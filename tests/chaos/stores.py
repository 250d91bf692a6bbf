"""Redis: one server, or a master and its replica with three Sentinels that watch them."""

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

#: Seconds before a promotion in which an acknowledged write may be missing on the replica, and
#: after it in which the old master may still have acknowledged some.
BEFORE: Final = 6.0
AFTER: Final = 12.0
_POLL: Final = 0.1
#: A server that has no replica within two seconds of it refuses writes.
_OPTIONS: Final = (
    *("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"),
    *("--repl-diskless-sync-delay", "0", "--replica-announce-ip", "127.0.0.1"),
)


@define
class Excuses:
    """Times of unplanned failovers, in which Redis may have lost confirmed writes."""

    promotions: list[float] = field(factory=list)
    """UNIX seconds."""
    planned: int = 0

    def cover(self, at: float, longer: float = 0.0) -> bool:
        """Return whether a write at this time may be lost.

        :param longer: seconds after it in which it could be lost as well.
        """
        return any(one - BEFORE - longer < at < one + AFTER for one in self.promotions)


class Server(Protocol):
    """A server that can fail."""

    def start(self, wait: bool = True) -> None: ...
    def is_up(self) -> bool: ...
    def kill(self) -> object: ...
    def stop(self) -> object: ...
    def suspend(self) -> None: ...
    def resume(self) -> None: ...


class Store(Protocol):
    """Redis, as roles and judges use it."""

    servers: dict[str, Server]
    excuses: Excuses

    def start(self) -> None:
        """Start all of it."""

    def url(self, role: str, change: Change | None) -> str:
        """Make the proxy of a role, and return its URL.

        :param change: applied to the bytes that the role reads.
        """

    def client(self) -> Any:
        """Return a client of the master, past all proxies."""


class Single:
    """One server, to which each role has a proxy of its own."""

    def __init__(self, folder: Path, wiring: Wiring, stack: ExitStack) -> None:
        self.excuses = Excuses()
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
    """Two servers, each behind one proxy that all clients, and the other server, use."""

    def __init__(self, folder: Path, wiring: Wiring, stack: ExitStack) -> None:
        self.excuses = Excuses()
        self._pair: dict[str, RedisServer] = {}
        self._links: dict[str, Proxy] = {}
        self._watchers: dict[str, Any] = {}
        for name in ("redis-a", "redis-b"):
            server = RedisServer(folder / name, *_OPTIONS)
            stack.callback(server.kill)
            self._pair[name] = server
            self._links[name] = wiring.link(name, server.port)
            server.extra = self._options(name)
            self._watchers[name] = _hasty(server.port)
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
        doors = [wiring.link(f"sentinel-{i}", one.port) for i, one in enumerate(self.sentinels)]
        hosts = ",".join(f"127.0.0.1:{door.port}" for door in doors)
        self._url = f"redis+sentinel://{hosts}/{Sentinel.NAME}"
        self.servers: dict[str, Server] = {**self._pair}
        for number, sentinel in enumerate(self.sentinels):
            stack.callback(sentinel.kill)
            self.servers[f"sentinel-{number}"] = sentinel
        self._asked = [_hasty(sentinel.port) for sentinel in self.sentinels]
        self._masters = {"redis-a"}
        self._planning = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cluster", daemon=True)
        stack.callback(self._end)

    def _options(self, name: str) -> tuple[str, ...]:
        return ("--replica-announce-port", str(self._links[name].port))

    def start(self) -> None:
        """Start all; returns when a failover would be possible."""
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
            wait_for(lambda: self._others(sentinel) == 2, "it knows the others")  # noqa: B023
        self._thread.start()

    @staticmethod
    def _others(sentinel: Sentinel) -> int:
        return len(sentinel.client.execute_command("SENTINEL SENTINELS", Sentinel.NAME))

    def url(self, role: str, change: Change | None) -> str:
        """See :class:`Store`; all roles use the same proxies, and ``change`` is ignored."""
        return self._url

    def client(self) -> Any:
        """See :class:`Store`.

        :raises AssertionError: when there is no master within a minute.
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
        # The master is one by its own word and by that of all Sentinels.
        return masters[0] if masters == named and len(masters) == 1 else None

    def _is_named(self, name: str) -> bool:
        """Return whether some Sentinel calls this server the master."""
        for sentinel in self._asked:
            with suppress(valkey.ValkeyError):
                _, port = sentinel.execute_command(
                    "SENTINEL GET-MASTER-ADDR-BY-NAME", Sentinel.NAME
                )
                if int(port) == self._links[name].port:
                    return True
        return False

    def _role(self, name: str) -> str | None:
        with suppress(valkey.ValkeyError):
            role: bytes = self._watchers[name].role()[0]
            return role.decode()
        return None

    def is_whole(self) -> bool:
        """Return whether there is one master, with a replica that is in sync."""
        name = self._master()
        if name is None:
            return False
        (replica,) = (one for one in self._pair if one != name)
        with suppress(valkey.ValkeyError):
            return self._pair[replica].is_in_sync_with(self._pair[name])
        return False

    def fail_over(self, _: float) -> None:
        """Fail over without losing a write: writes are paused until the replica is promoted."""
        wait_for(self.is_whole, "the servers are whole", timeout=60)
        name = self._master()
        assert name is not None
        master = self._pair[name]
        (replica,) = (one for one in self._pair if one != name)
        self._planning = True
        try:
            with suppress(valkey.ValkeyError):
                self._watchers[name].execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
                wait_for(lambda: self._pair[replica].is_in_sync_with(master), "in sync", timeout=5)
                self.sentinels[0].fail_over()
                wait_for(lambda: self._role(replica) == "master", "promoted", timeout=30)
                # Sentinel would do it, too, twenty seconds later: it cannot talk to a server
                # whose writes are paused, and then waits until that has been well for a while.
                self._watchers[name].replicaof("127.0.0.1", self._links[replica].port)
                self._watchers[name].execute_command("CLIENT", "UNPAUSE")
                wait_for(lambda: self._role(name) == "slave", "demoted", timeout=60)
                self.excuses.planned += 1
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
                    # Sentinel writes it into the server's file, where there is one; or the
                    # operator does, of a server that is down and has a successor. While that
                    # is still to be promoted, the two would be replicas of each other.
                    master = ("--replicaof", "127.0.0.1", str(self._links[other].port))
                    self._pair[name].extra = (*self._options(name), *master)
                elif role == "master" and name not in self._masters:
                    self._masters.add(name)
                    self._pair[name].extra = self._options(name)
                    if not self._planning:
                        self.excuses.promotions.append(time.time())

    def _end(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(20)


def _hasty(port: int) -> Any:
    """Return a client with short timeouts."""
    return valkey.Valkey(port=port, retry=None, socket_timeout=0.5, socket_connect_timeout=0.5)
