"""Run a command that uses a control port, and report an error in one line."""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

import click
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    TimeoutError,  # noqa: A004
)
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint

from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import Options, Origin, Setting, options
from tracker.admin.output import only_first
from tracker.admin.variables import CONTROL_VARIABLE
from tracker.control.addresses import client_endpoint, unix_address
from tracker.control.client import ControlClient
from tracker.control.commands import (
    MAX_ROWS,
    BadArgument,
    ControlError,
    NoSuchCommand,
    NoSuchDevice,
    NotPermitted,
    RedisUnavailable,
)
from tracker.control.connection import NotConnected, reason_of, with_remedy
from tracker.control.sockets import SocketFolders
from tracker.errors import RunFailed
from tracker.net.endpoints import connecting_endpoint
from tracker.reactor import Reactor
from tracker.runtime.run import run
from tracker.untrusted import shown

#: Name of this program in an instance's log.
NAME: Final = "tracker-admin"

#: Maximum number of control ports, and of reasons, that a message lists.
MAX_LISTED: Final = 10

#: Seconds for an orderly end of the connection.
_CLOSE_TIMEOUT: Final = 1.0

Request = Callable[[Any, ControlClient], Awaitable[int]]

#: Chooses one of several control ports.
Choice = Callable[[Reactor, Sequence[Setting]], Awaitable[Setting]]

limit_option = click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Maximum number of rows.  [default: all]",
)


def control_ports(options: Options, folders: SocketFolders | None = None) -> list[Setting]:
    """Return the control port that is given, or else those of all instances on this machine.

    :param folders: the folders to search.
    :raises click.UsageError: if none is given or found.
    """
    given = options.given_control()
    if given is not None:
        return [given]
    folders = folders or SocketFolders(options.environ)
    found = folders.search()
    if found.served:
        addresses = [unix_address(path) for path in found.served]
        return [Setting(address, Origin.FOUND, address) for address in addresses]
    reasons = [f"{reason}." for reason in found.unusable[:MAX_LISTED]]
    if not reasons:
        reasons = [f"Searched: {', '.join(map(str, folders.searched))}."]
    raise click.UsageError(
        f"No instance with a control port found on this machine. {' '.join(reasons)} Run this "
        "command as the user of the instance, or give --control ENDPOINT; the log of the instance "
        "names its control port."
    )


async def only_one(reactor: Reactor, ports: Sequence[Setting]) -> Setting:
    """Refuse to choose, for a command about one instance."""
    names = [port.value for port in ports[:MAX_LISTED]]
    if len(ports) > MAX_LISTED:
        names.append(f"and {len(ports) - MAX_LISTED} more")
    raise click.UsageError(
        f"{len(ports)} control ports found: {', '.join(names)}. "
        f"Choose one with --control or {CONTROL_VARIABLE}."
    )


async def any_instance(reactor: Reactor, ports: Sequence[Setting]) -> Setting:
    """Return the port of the first instance that replies."""

    async def ask(client: ControlClient) -> None:
        await client.info()

    return await _first(reactor, ports, ask)


def instance_of(device_id: str) -> Choice:
    """Return a function that returns the port of the instance of a device.

    If no instance on this machine has the device, it is the port of any of them.
    """

    async def ask(client: ControlClient) -> None:
        if not (await client.device(device_id))["here"]:
            raise NoSuchDevice

    async def choose(reactor: Reactor, ports: Sequence[Setting]) -> Setting:
        return await _first(reactor, ports, ask)

    return choose


async def _first(
    reactor: Reactor,
    ports: Sequence[Setting],
    ask: Callable[[ControlClient], Awaitable[None]],
) -> Setting:
    """Ask all instances at once; return the first port without an error.

    Otherwise return the first port that has replied, with whatever error.

    :raises RunFailed: if none replies.
    """

    async def succeeds(port: Setting) -> None:
        async with _connected(reactor, _endpoint(reactor, port), retry=False) as client:
            await ask(client)

    asked = [Deferred.fromCoroutine(succeeds(port)) for port in ports]
    result: Any = await DeferredList(asked, fireOnOneCallback=True, consumeErrors=True)
    if isinstance(result, tuple):
        for one in asked:
            one.cancel()
        return ports[result[1]]
    errors = [failed.value for _, failed in result]
    for port, error in zip(ports, errors, strict=True):
        if isinstance(error, ControlError) and not isinstance(error, NotConnected):
            return port
    reasons = [
        f"{port.value}: {error}" for port, error in zip(ports[:MAX_LISTED], errors, strict=False)
    ]
    raise RunFailed(f"No instance replies: {'; '.join(reasons)}.", ExitCode.UNREACHABLE)


def run_with_control_port(
    request: Request, *, reconnect: bool = False, choose: Choice = only_one
) -> None:
    """Run ``request(reactor, client)``, and exit with the exit code that it returns.

    An instance that cannot be reached is an error, without a retry.

    :param reconnect: True to reconnect when the connection is lost.
    :param choose: chooses one of several control ports if none is given.
    """
    ports = control_ports(options())

    async def main(reactor: Reactor) -> int:
        port = ports[0] if len(ports) == 1 else await choose(reactor, ports)
        endpoint = _endpoint(reactor, port)
        greeted = False
        try:
            if reconnect:  # a client that reconnects also retries the first connection
                async with _connected(reactor, endpoint, retry=False) as client:
                    await client.info()
            async with _connected(reactor, endpoint, retry=reconnect) as client:
                try:
                    return await request(reactor, client)
                finally:
                    greeted = bool(client.greeting)
        except NotConnected as error:
            raise not_connected(port.value, greeted, error) from None
        except ControlError as error:
            raise failure(error) from None

    run(main)


def _endpoint(reactor: Reactor, port: Setting) -> IStreamClientEndpoint:
    try:
        return client_endpoint(reactor, port.value)
    except ValueError as error:
        raise click.UsageError(f"{port.source}: {error}") from None


@asynccontextmanager
async def _connected(
    reactor: Reactor, endpoint: IStreamClientEndpoint, retry: bool
) -> AsyncIterator[ControlClient]:
    client = ControlClient(reactor, endpoint, NAME, retry)
    client.startService()
    try:
        yield client
    finally:
        with suppress(TimeoutError):  # a peer that hangs does not end TLS
            await client.stopService().addTimeout(_CLOSE_TIMEOUT, reactor)


def failure(error: ControlError) -> Exception:
    """Return the exception that ends the command, with its message and exit code."""
    if isinstance(error, BadArgument):
        return click.UsageError(f"Invalid argument: {error}.")
    if isinstance(error, NotPermitted):
        return RunFailed(f"Not permitted: {error}.", ExitCode.NOT_PERMITTED)
    if isinstance(error, NoSuchDevice | NoSuchCommand):
        return RunFailed(str(error), ExitCode.FAILED)
    return RunFailed(f"The request failed: {error}.", ExitCode.UNREACHABLE)


def not_connected(port: str, greeted: bool, error: NotConnected) -> RunFailed:
    """Return the exception that ends a command whose connection failed or was lost.

    :param port: the endpoint of the control port.
    :param greeted: True if the instance had replied before.
    """
    kind = connecting_endpoint(port).partition(":")[0]
    # Files are left out: the address ends where named arguments begin.
    name = port if kind == "unix" else re.split(r":(?=\w+=)", port, maxsplit=1)[0]
    reason = str(error)
    if greeted:
        text = f"Connection to {name} failed: {reason}."
    elif reason == reason_of(ConnectError(errno.ENOENT)):
        text = f"Cannot connect to {name}: no such socket."
    elif reason == reason_of(ConnectionDone()) and kind != "ssl":
        text = f"{name} is not a control port (it closed the connection)."
    else:
        text = f"Cannot connect to {name}: {with_remedy(port, reason)}."
    return RunFailed(text, ExitCode.UNREACHABLE)


async def whereabouts(client: ControlClient, device_id: str) -> str:
    """Return where a device is connected that the client's instance does not have."""
    try:
        other = (await client.device(device_id))["instance_id"]
    except (NoSuchDevice, RedisUnavailable):
        other = None
    return f"connected to {shown(other)}" if other else "not connected"


def page_size(limit: int | None) -> int:
    """Return the number of rows to request: one more than are shown, to detect further ones."""
    return MAX_ROWS if limit is None else min(limit + 1, MAX_ROWS)


async def first_rows(
    rows: AsyncIterator[dict[str, Any]], limit: int | None
) -> list[dict[str, Any]]:
    """Return the first rows; print a note on standard error if there are more."""
    found: list[dict[str, Any]] = []
    async with aclosing(rows) as all_rows:  # type: ignore[type-var]
        async for row in all_rows:
            if len(found) == limit:
                click.echo(f"{only_first(limit)} (--limit {limit}).", err=True)
                break
            found.append(row)
    return found
