"""The demo: the standalone role as its own process, a fleet, and a line of figures."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tracker.errors import Refused, RunFailed, Unavailable
from tracker.keys import PROCESSOR_GROUP, telemetry_stream
from tracker.log.redis.lag import stream_lag
from tracker.net.ports import BACKLOG
from tracker.observe.health import Condition
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress
from tracker.redis.connection import RedisConnection
from tracker.redis.embedded import find_server, socket_address
from tracker.runtime.run import Progress, until_interrupted
from tracker.runtime.waits import Waits
from tracker.simulator.device import Behaviour
from tracker.simulator.fleet import Fleet
from tracker.simulator.run import drain
from tracker.wording import counted

#: Seconds for the stack to start, to store the last positions, and to stop.
START_TIMEOUT: Final = 30.0
STORE_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 30.0

#: Preferred TCP port of the console; another one is used if it is taken.
CONSOLE_PORT: Final = 9120

#: Program that runs twistd with the inherited sockets as systemd's (sd_listen_fds(3)).
_TWISTD: Final = (
    "import os; os.environ['LISTEN_PID'] = str(os.getpid()); "
    "from twisted.scripts.twistd import run; run()"
)

_STREAM: Final = telemetry_stream("teltonika")


class Demo:
    """A run of the stack with a fleet, which checks that all acknowledged positions are stored.

    :param data: folder for the stack's data; None for a temporary one.
    :param port: TCP port on 127.0.0.1 that the devices connect to.
    :param seconds: duration; None to run until Ctrl-C or SIGTERM.
    """

    def __init__(
        self,
        data: Path | None,
        port: int,
        *,
        devices: int,
        behaviour: Behaviour,
        seconds: float | None,
    ) -> None:
        self._data = data
        self._port = port
        self._devices = devices
        self._behaviour = behaviour
        self._seconds = seconds

    async def run(self, reactor: Reactor) -> int:
        """Run the demo; return exit code 0 if all acknowledged positions are stored, else 1.

        :raises RunFailed: if the stack does not start, or ends by itself.
        """
        if self._data is not None:
            return await self._run_in(reactor, self._data.absolute())
        folder = Path(tempfile.mkdtemp(prefix="tracker-demo-"))
        try:
            return await self._run_in(reactor, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _run_in(self, reactor: Reactor, folder: Path) -> int:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            address = socket_address(folder)
            server = Path(find_server())
        except (OSError, ValueError) as error:
            raise RunFailed(str(error)) from None
        waits = until_interrupted(reactor)
        stack = _Stack(reactor, folder, self._port)
        redis = RedisConnection(reactor, address, Condition())
        redis.startService()
        try:
            await self._wait_for_start(reactor, waits, stack, redis)
            if waits.stopped:
                return 0
            endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{self._port}")
            fleet = Fleet(reactor, endpoint, self._devices, self._behaviour)
            self._print_overview(stack, server, address, folder)
            return await self._drive(
                reactor=reactor, waits=waits, stack=stack, redis=redis, fleet=fleet
            )
        finally:
            await redis.stopService()
            await stack.stop()

    async def _wait_for_start(
        self, reactor: Reactor, waits: Waits, stack: _Stack, redis: RedisConnection
    ) -> None:
        deadline = reactor.seconds() + START_TIMEOUT
        while not waits.stopped:
            stack.check()
            if (await _read(redis))[1] is not None:
                return
            if reactor.seconds() > deadline:
                raise RunFailed(
                    f"the stack did not start within {START_TIMEOUT:.0f} s; see {stack.log}"
                )
            await waits.sleep(0.05)

    def _print_overview(
        self, stack: _Stack, server: Path, address: RedisAddress, folder: Path
    ) -> None:
        client = server.with_name(server.name.replace("-server", "-cli"))
        query = "select * from last_positions limit 5"
        admin = Path(sys.executable).with_name("tracker-admin")
        rows = (
            ("devices", f"{self._devices} simulated, on 127.0.0.1:{self._port} (Teltonika)"),
            ("console", stack.console),
            ("health", f"curl -s {stack.health}"),
            ("stream", f"{client} -s {address.path} xinfo groups {_STREAM}"),
            ("database", shlex.join(("sqlite3", "-readonly", str(stack.database), query))),
            ("control", f"{admin} --control unix:{folder / 'control.sock'} connections"),
            ("log", f"tail -f {stack.log}"),
            ("data", f"{folder}" + ("" if self._data else " (removed at the end)")),
        )
        print("Tracker demo is running. Press Ctrl-C to stop.\n")
        for name, text in rows:
            print(f"  {name:9} {text}")
        print(flush=True)

    async def _drive(
        self,
        *,
        reactor: Reactor,
        waits: Waits,
        stack: _Stack,
        redis: RedisConnection,
        fleet: Fleet,
    ) -> int:
        progress = Progress(reactor)
        received_before, _ = await _read(redis)
        stored_before = _stored(stack.database)
        end = None if self._seconds is None else reactor.seconds() + self._seconds

        async def figures() -> tuple[int, int, int | None]:
            stack.check()
            received, lag = await _read(redis)
            return received - received_before, _stored(stack.database) - stored_before, lag

        async def show() -> None:
            received, stored, lag = await figures()
            progress.show(
                f"{counted(fleet.counters.connected, 'device')} connected · "
                f"{counted(received, 'position')} received"
                f" · {stored:,} stored · lag {'unknown' if lag is None else lag}"
            )

        fleet.startService()
        while not waits.stopped and (end is None or reactor.seconds() < end):
            left = 0.5 if end is None else min(0.5, max(0.0, end - reactor.seconds()))
            await waits.sleep(left)
            await show()
        await drain(reactor, fleet)
        acknowledged = fleet.counters.acknowledged
        deadline = reactor.seconds() + STORE_TIMEOUT
        while True:
            _, stored, lag = await figures()
            if (stored >= acknowledged and lag == 0) or reactor.seconds() > deadline:
                break
            await deferLater(reactor, 0.05)
        await show()
        progress.end()
        await fleet.stopService()
        print(
            f"demo: {counted(acknowledged, 'position')} from {counted(self._devices, 'device')} "
            f"acknowledged, "
            f"{stored} stored, lag {'unknown' if lag is None else lag}"
        )
        return 0 if (stored, lag) == (acknowledged, 0) else 1


class _Stack(ProcessProtocol):
    """``twistd tracker standalone`` as a child process."""

    def __init__(self, reactor: Reactor, folder: Path, port: int) -> None:
        self.log = folder / "tracker.log"
        self.database = folder / "positions.sqlite"
        console, health = listening_socket(CONSOLE_PORT), listening_socket()
        self.console = f"http://127.0.0.1:{console.getsockname()[1]}/"
        self.health = f"http://127.0.0.1:{health.getsockname()[1]}/readyz"
        self._reactor = reactor
        self._ended: Deferred[None] = Deferred()
        self._exit_reason: str | None = None
        self._output = b""
        child = (sys.executable, "-P", "-m", "tracker.runtime.childprocess", str(os.getpid()))
        twistd = (sys.executable, "-P", "-c", _TWISTD)
        command = (
            *child,
            str(folder / "demo.lock"),
            *twistd,
            *("--nodaemon", "--pidfile=", f"--logfile={self.log}"),
            *("tracker", "standalone", "--data", str(folder)),
            *("--listen", f"teltonika=tcp:{port}:interface=127.0.0.1"),
            *("--console", "systemd:domain=INET:name=console"),
            *("--http", "systemd:domain=INET:name=health"),
        )
        unset = ("REDIS_TELEMETRY_STREAM", "INSTANCE_ID")
        environment = {key: value for key, value in os.environ.items() if key not in unset}
        environment |= {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "console:health"}
        with console, health:
            descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r"}
            descriptors |= {3: console.fileno(), 4: health.fileno()}
            self._transport = reactor.spawnProcess(
                self, command[0], command, env=environment, childFDs=descriptors
            )

    def check(self) -> None:
        """Raise if the stack has ended by itself.

        :raises RunFailed: with the reason.
        """
        if self._exit_reason is None:
            return
        reason = self._output.decode(errors="replace").strip()
        if not reason and self.log.exists():
            lines = self.log.read_text(errors="replace").splitlines()
            fatal = [line for line in lines if "giving up: " in line]
            reason = fatal[-1].partition("giving up: ")[2] if fatal else ""
        where = "" if reason else f"; see {self.log}"
        raise RunFailed(f"the stack ended: {reason or self._exit_reason}{where}")

    async def stop(self) -> None:
        """Stop the stack and wait until it has ended."""
        if self._exit_reason is not None:
            return
        self._signal("TERM")
        kill = self._reactor.callLater(STOP_TIMEOUT, self._signal, "KILL")
        await self._ended
        if kill.active():
            kill.cancel()

    def _signal(self, name: str) -> None:
        try:
            self._transport.signalProcess(name)
        except ProcessExitedAlready:
            return

    def outReceived(self, data: bytes) -> None:
        self._output += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self._exit_reason = reason.getErrorMessage()
        self._ended.callback(None)


async def _read(redis: RedisConnection) -> tuple[int, int | None]:
    """Return the number of positions received, and the lag (None if unknown)."""
    try:
        read = await stream_lag(redis, _STREAM)
    except (Refused, Unavailable):
        return 0, None
    group = None if read is None else read.group(PROCESSOR_GROUP)
    return (0 if read is None else read.added), (None if group is None else group.total)


def _stored(database: Path) -> int:
    if not database.exists():
        return 0
    try:
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
        try:
            (count,) = connection.execute("SELECT count(*) FROM positions").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return 0
    return int(count)


def listening_socket(wanted: int = 0) -> socket.socket:
    """Return a socket that listens on 127.0.0.1, on the wanted port if it is free, else on another.

    The process that serves the socket inherits it. Passing a free port number instead would let
    another process take the port first.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", wanted))
        listening.listen(int(BACKLOG))
    except OSError:
        listening.close()
        if not wanted:
            raise
        return listening_socket()
    return listening
