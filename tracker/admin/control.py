"""Run a command that uses a control port, and report an error in one line."""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

import click
from twisted.internet.defer import TimeoutError  # noqa: A004
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint

from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import options
from tracker.admin.output import only_first
from tracker.control.addresses import client_endpoint
from tracker.control.client import ControlClient
from tracker.control.commands import (
    MAX_ROWS,
    BadArgument,
    ControlError,
    NoSuchCommand,
    NoSuchDevice,
    NotPermitted,
)
from tracker.control.connection import NotConnected, reason_of
from tracker.errors import RunFailed
from tracker.reactor import Reactor
from tracker.runtime.run import run

#: Name of this program in an instance's log.
NAME: Final = "tracker-admin"

#: Seconds for an orderly end of the connection.
_CLOSE_TIMEOUT: Final = 1.0

Request = Callable[[Any, ControlClient], Awaitable[int]]

limit_option = click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Maximum number of rows.  [default: all]",
)


def run_with_control_port(request: Request, reconnect: bool = False) -> None:
    """Run ``request(reactor, client)``, and exit with the exit code that it returns.

    An instance that cannot be reached is an error, without a retry.

    :param reconnect: True to reconnect when the connection is lost.
    """
    port = options().control_port()

    async def main(reactor: Reactor) -> int:
        try:
            endpoint = client_endpoint(reactor, port.value)
        except ValueError as error:
            raise click.UsageError(f"{port.source}: {error}") from None
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
    kind, *parts = re.split(r"(?<!\\):", port)
    name = ":".join([kind, *parts[: 1 if kind == "unix" else 2]])
    reason = str(error)
    if greeted:
        text = f"Connection to {name} failed: {reason}."
    elif reason == reason_of(ConnectError(errno.ENOENT)):
        text = f"Cannot connect to {name}: no such socket."
    elif reason == reason_of(ConnectionDone()) and kind != "ssl":
        text = f"{name} is not a control port (it closed the connection)."
    else:
        text = f"Cannot connect to {name}: {reason}."
    return RunFailed(text, ExitCode.UNREACHABLE)


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
