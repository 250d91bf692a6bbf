"""The demo: the standalone role as its own process, a fleet, and a line of figures."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tracker.durations import format_duration
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

#: TCP ports of the console and of the health checks; others are used where they are taken.
CONSOLE_PORT: Final = 9120
HEALTH_PORT: Final = 9127

#: Number of the first device. Fleets that also report to the demo have lower ones by default.
FIRST_DEVICE: Final = 900_000

#: Width of the overview, and its indentation.
_WIDTH: Final = 80
_INDENT: Final = 12

#: Program that runs twistd with the inherited sockets as systemd's (sd_listen_fds(3)).
_TWISTD: Final = (
    "import os; os.environ['LISTEN_PID'] = str(os.getpid()); "
    "from twisted.scripts.twistd import run; run()"
)


@frozen
class Share:
    """The devices of one vendor."""

    vendor: str
    devices: int
    behaviour: Behaviour
    port: int
    """TCP port on 127.0.0.1 that they connect to."""
    is_fixed: bool = False
    """True if the demo fails where the port is in use; else it takes another one."""


class Demo:
    """A run of the stack with fleets, which checks that all acknowledged positions are stored.

    :param data: folder for the stack's data; None for a temporary one.
    :param shares: the devices of each vendor.
    :param seconds: duration; None to run until Ctrl-C or SIGTERM.
    """

    def __init__(
        self, data: Path | None, shares: Sequence[Share], *, seconds: float | None
    ) -> None:
        self._data = data
        self._shares = shares
        self._devices = sum(share.devices for share in shares)
        self._streams = [telemetry_stream(share.vendor) for share in shares]
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
        except OSError as error:
            raise RunFailed(f"cannot create the folder {folder}: {error.strerror}") from None
        try:
            address = socket_address(folder)
            find_server()
        except ValueError as error:
            raise RunFailed(str(error)) from None
        waits = until_interrupted(reactor)
        stack = _Stack(reactor, folder, self._shares)
        redis = RedisConnection(reactor, address, Condition())
        redis.startService()
        try:
            await self._wait_for_start(reactor, waits, stack, redis)
            if waits.stopped:
                return 0
            print(self._overview(stack, address, folder), flush=True)
            return await self._drive(
                reactor=reactor,
                waits=waits,
                stack=stack,
                redis=redis,
                fleets=self._fleets(reactor, stack),
            )
        finally:
            await redis.stopService()
            await stack.stop()

    def _fleets(self, reactor: Reactor, stack: _Stack) -> dict[str, Fleet]:
        """Return vendor → its fleet."""
        fleets: dict[str, Fleet] = {}
        first = FIRST_DEVICE
        for share in self._shares:
            endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{stack.ports[share.vendor]}")
            fleets[share.vendor] = Fleet(
                reactor, endpoint, share.devices, share.behaviour, first=first
            )
            first += share.devices
        return fleets

    async def _wait_for_start(
        self, reactor: Reactor, waits: Waits, stack: _Stack, redis: RedisConnection
    ) -> None:
        deadline = reactor.seconds() + START_TIMEOUT
        while not waits.stopped:
            stack.check()
            if (await self._read(redis))[1] is not None:
                return
            if reactor.seconds() > deadline:
                raise RunFailed(
                    f"the stack did not start within {format_duration(START_TIMEOUT)}; "
                    f"see {stack.log}"
                )
            await waits.sleep(0.05)

    def _overview(self, stack: _Stack, address: RedisAddress, folder: Path) -> str:
        """Return what there is to look at. Each command works in any folder."""
        # Another terminal may have neither this one's folder nor its PATH.
        admin = shlex.quote(str(Path(sys.executable).absolute().with_name("tracker-admin")))
        control = shlex.quote(f"unix:{folder / 'control.sock'}")
        devices = [
            f"{share.devices:,} simulated, on 127.0.0.1:{stack.ports[share.vendor]} "
            f"({share.vendor})"
            for share in self._shares
        ]
        rows = (
            ("devices", f"\n{'':{_INDENT}}".join(devices)),
            ("console", stack.console),
            ("health", f"curl -s {stack.health}"),
            ("stream", admin, "lag", f"--redis {shlex.quote(str(address))}"),
            ("database", admin, "positions", f"--sink {shlex.quote(f'sqlite:{stack.database}')}"),
            ("control", admin, f"--control {control}", "connections"),
            ("log", "tail -f", shlex.quote(str(stack.log))),
            ("data", str(folder) + ("" if self._data else " (removed at the end)")),
        )
        lines = ["Tracker demo is running. Press Ctrl-C to stop.", *stack.notes, ""]
        lines += [f"  {name:{_INDENT - 2}}{folded(parts)}" for name, *parts in rows]
        return "\n".join([*lines, ""])

    async def _drive(
        self,
        *,
        reactor: Reactor,
        waits: Waits,
        stack: _Stack,
        redis: RedisConnection,
        fleets: Mapping[str, Fleet],
    ) -> int:
        progress = Progress(reactor)
        own = {
            device.device_id: vendor for vendor, fleet in fleets.items() for device in fleet.devices
        }
        received_before, _ = await self._read(redis)
        stored_before = _stored(stack.database)
        all_before = _count(stack.database)
        end = None if self._seconds is None else reactor.seconds() + self._seconds

        async def figures() -> tuple[int, int, int | None]:
            stack.check()
            received, lag = await self._read(redis)
            return received - received_before, _count(stack.database) - all_before, lag

        async def show() -> None:
            received, stored, lag = await figures()
            connected = sum(fleet.counters.connected for fleet in fleets.values())
            progress.show(
                f"{counted(connected, 'device')} connected · "
                f"{counted(received, 'record')} received · {stored:,} stored · {_lag(lag)}"
            )

        def unacknowledged() -> int:
            return sum(fleet.unacknowledged for fleet in fleets.values())

        for fleet in fleets.values():
            fleet.startService()
        while not waits.stopped and (end is None or reactor.seconds() < end):
            left = 0.5 if end is None else min(0.5, max(0.0, end - reactor.seconds()))
            await waits.sleep(left)
            await show()
        waits = until_interrupted(reactor)
        await drain(
            reactor,
            waits,
            list(fleets.values()),
            lambda: progress.show(
                f"stopping · {counted(unacknowledged(), 'position')} not acknowledged yet"
            ),
        )
        acknowledged = Counter(
            {vendor: fleet.counters.acknowledged for vendor, fleet in fleets.items()}
        )
        deadline = reactor.seconds() + STORE_TIMEOUT
        while True:
            _, _, lag = await figures()
            new = _stored(stack.database) - stored_before
            stored: Counter[str] = Counter()
            for device, count in new.items():
                if device in own:
                    stored[own[device]] += count
            others = new.keys() - own.keys()
            # The entries of other devices may keep the lag above zero forever.
            if stored >= acknowledged and (lag == 0 or others):
                break
            if waits.stopped or reactor.seconds() > deadline:
                break
            await waits.sleep(0.05)
        await show()
        progress.end()
        for vendor, fleet in fleets.items():
            await fleet.stopService()
            print(
                f"{counted(len(fleet.devices), f'{vendor} device')}: "
                f"{counted(acknowledged[vendor], 'position')} acknowledged, "
                f"{stored[vendor]:,} stored"
            )
        if others:
            print(
                f"{counted(len(others), 'other device')} reported, too: "
                f"{counted(sum(new[device] for device in others), 'position')} stored"
            )
        print(
            f"demo: {counted(acknowledged.total(), 'position')} from "
            f"{counted(self._devices, 'device')} acknowledged, {stored.total():,} stored, "
            f"{_lag(lag)}"
        )
        complete = all(
            0 <= stored[vendor] - acknowledged[vendor] <= fleet.counters.unconfirmed
            for vendor, fleet in fleets.items()
        )
        return 0 if complete and (lag == 0 or others) else 1

    async def _read(self, redis: RedisConnection) -> tuple[int, int | None]:
        """Return the number of entries received, and the lag (None if unknown)."""
        received, lags = 0, []
        for stream in self._streams:
            try:
                read = await stream_lag(redis, stream)
            except (Refused, Unavailable):
                return 0, None
            group = None if read is None else read.group(PROCESSOR_GROUP)
            received += 0 if read is None else read.added
            lags.append(None if group is None else group.total)
        known = [lag for lag in lags if lag is not None]
        return received, sum(known) if len(known) == len(lags) else None


class _Stack(ProcessProtocol):
    """``twistd tracker standalone`` as a child process."""

    def __init__(self, reactor: Reactor, folder: Path, shares: Sequence[Share]) -> None:
        self._reactor = reactor
        self._ended: Deferred[None] = Deferred()
        self._exit_reason: str | None = None
        self._output = b""
        self.log = folder / "tracker.log"
        self.database = folder / "positions.sqlite"
        self.notes: list[str] = []
        with ExitStack() as sockets:
            devices = {
                share.vendor: sockets.enter_context(self._device_socket(share)) for share in shares
            }
            console = sockets.enter_context(self._socket("console", CONSOLE_PORT))
            health = sockets.enter_context(self._socket("health", HEALTH_PORT))
            self.ports = {vendor: one.getsockname()[1] for vendor, one in devices.items()}
            self.console = f"http://127.0.0.1:{console.getsockname()[1]}/"
            self.health = f"http://127.0.0.1:{health.getsockname()[1]}/readyz"
            self._start(folder, list(devices), {**devices, "console": console, "health": health})

    def _socket(self, name: str, port: int) -> socket.socket:
        found, note = free_socket(name, port)
        self.notes += note
        return found

    def _device_socket(self, share: Share) -> socket.socket:
        if share.is_fixed:
            return _fixed_socket(share.port)
        return self._socket(share.vendor, share.port)

    def _start(
        self, folder: Path, vendors: Sequence[str], sockets: Mapping[str, socket.socket]
    ) -> None:
        """Start the process, which inherits the sockets."""
        child = (sys.executable, "-P", "-m", "tracker.runtime.childprocess", str(os.getpid()))
        twistd = (sys.executable, "-P", "-c", _TWISTD)
        listening = [
            word
            for vendor in vendors
            for word in ("--listen", f"{vendor}=systemd:domain=INET:name={vendor}")
        ]
        command = (
            *child,
            str(folder / "demo.lock"),
            *twistd,
            *("--nodaemon", "--pidfile=", f"--logfile={self.log}"),
            *("tracker", "standalone", "--data", str(folder)),
            *listening,
            *("--console", "systemd:domain=INET:name=console"),
            *("--http", "systemd:domain=INET:name=health"),
        )
        unset = ("REDIS_TELEMETRY_STREAM", "INSTANCE_ID")
        environment = {key: value for key, value in os.environ.items() if key not in unset}
        environment |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": ":".join(sockets)}
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r"}
        descriptors |= {
            number: inherited.fileno() for number, inherited in enumerate(sockets.values(), 3)
        }
        self._transport = self._reactor.spawnProcess(
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


def _count(database: Path) -> int:
    """Return the number of positions and messages in the database."""
    return sum(
        count
        for table in ("positions", "messages")
        for (count,) in _select(database, f"SELECT count(*) FROM {table}")  # noqa: S608 - own names
    )


def _stored(database: Path) -> Counter[str]:
    """Return the number of positions in the database by device."""
    query = "SELECT device_id, count(*) FROM positions GROUP BY device_id"
    return Counter(dict(_select(database, query)))


def _select(database: Path, query: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query; none if the database has no tables yet."""
    if not database.exists():
        return []
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()
    except sqlite3.Error:
        return []


def _lag(lag: int | None) -> str:
    return f"lag {'unknown' if lag is None else f'{lag:,}'}"


def folded(parts: Sequence[str]) -> str:
    """Return a command on one line, or, for the shell, on several ones of the overview's width."""
    line = " ".join(parts)
    if _INDENT + len(line) <= _WIDTH:
        return line
    lines = [parts[0]]
    for part in parts[1:]:
        if _INDENT + len(f"{lines[-1]} {part} \\") <= _WIDTH:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return f" \\\n{'':{_INDENT + 2}}".join(lines)


def _fixed_socket(port: int) -> socket.socket:
    try:
        return listening_socket(port)
    except OSError as error:
        raise RunFailed(
            f"cannot listen on 127.0.0.1:{port}: {str(error.strerror).lower()}. "
            "Give devices another port: --port N, or make demo DEMO_PORT=N."
        ) from None


def free_socket(name: str, port: int) -> tuple[socket.socket, list[str]]:
    """Return a socket on a port, or on another one with a note, in one line, that says so.

    :param name: name of what it serves.
    """
    try:
        return listening_socket(port), []
    except OSError as error:
        other = listening_socket()
        reason = str(error.strerror).lower()
        return other, [f"Port {port}: {reason}; {name} uses {other.getsockname()[1]} instead."]


def listening_socket(port: int = 0) -> socket.socket:
    """Return a socket that listens on 127.0.0.1, on a port or on any free one.

    The process that serves the socket inherits it. Passing a free port number instead would let
    another process take the port first.

    :raises OSError: if the port cannot be used.
    """
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(int(BACKLOG))
    except BaseException:
        listening.close()
        raise
    return listening
