"""Run a command on a control port, and report an error in one line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final

import click
from twisted.internet.defer import TimeoutError  # noqa: A004
from twisted.internet.interfaces import IStreamClientEndpoint

from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import options
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
from tracker.reactor import Reactor
from tracker.runtime.run import RunFailed, run

#: The name of this program in an instance's log.
NAME: Final = "tracker-admin"

#: Seconds for a connection to be closed in order.
_CLOSING: Final = 1.0

Ask = Callable[[Any, ControlClient], Awaitable[int]]

limit_option = click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), help="How many, at most.  [default: all]"
)


def run_with_control_port(ask: Ask, stay: bool = False) -> None:
    """Run ``ask(reactor, client)``, and exit with its status.

    If the instance cannot be reached, that is reported in one line, without a retry.

    :param stay: True: the client reconnects if the connection is lost.
    """
    given = options().found_control()

    async def main(reactor: Reactor) -> int:
        try:
            endpoint = client_endpoint(reactor, given.value)
        except ValueError as error:
            raise click.UsageError(f"{given.place}: {error}") from None
        try:
            if stay:  # one that does so would wait for the first connection, too
                async with _connected(reactor, endpoint, retry=False) as client:
                    await client.info()
            async with _connected(reactor, endpoint, retry=stay) as client:
                return await ask(reactor, client)
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
        with suppress(TimeoutError):  # over TLS, a peer that hangs does not say goodbye
            await client.stopService().addTimeout(_CLOSING, reactor)


def failure(error: ControlError) -> Exception:
    """Return the exception that ends the command, with its line and status."""
    if isinstance(error, BadArgument):
        return click.UsageError(str(error))
    if isinstance(error, NotPermitted):
        return RunFailed(f"not permitted: {error}", ExitCode.NOT_PERMITTED)
    if isinstance(error, NoSuchDevice | NoSuchCommand):
        return RunFailed(str(error), ExitCode.NO)
    return RunFailed(f"control port: {error}", ExitCode.UNREACHABLE)


def page_size(limit: int | None) -> int:
    """Return the rows of one request: one more than are shown, as there may be more."""
    return MAX_ROWS if limit is None else min(limit + 1, MAX_ROWS)


async def first_rows(
    rows: AsyncIterator[dict[str, Any]], limit: int | None
) -> list[dict[str, Any]]:
    """Return the rows that may be shown; print on standard error if there are more."""
    found: list[dict[str, Any]] = []
    async with aclosing(rows) as all_rows:  # type: ignore[type-var]
        async for row in all_rows:
            if len(found) == limit:
                click.echo(f"There are more than {limit}.", err=True)
                break
            found.append(row)
    return found
