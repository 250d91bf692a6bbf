"""What the commands that ask Redis have in common."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import click
from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins

from tracker import config
from tracker.config import ConfigError
from tracker.interfaces import IVendor
from tracker.simulator.run import Failed, run
from tracker.streams.advertised import advertised_streams
from tracker.streams.connection import RedisConnection, Refused, Unavailable

redis_option = click.option(
    "--redis",
    "url",
    metavar="URL",
    help=f"Where Redis is.  [default: REDIS_URL, else {config.DEFAULT_REDIS}]",
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How the result is shown.",
)


def ask_redis(url: str | None, ask: Callable[[Any, RedisConnection], Awaitable[int]]) -> None:
    """Run ``ask(reactor, redis)`` with a usable connection, and exit with its status.

    A Redis that cannot be used is told in one line; it is not waited for.
    """

    async def main(reactor: Any) -> int:
        try:
            address = config.redis_address(url, os.environ)
            address.endpoint(reactor)
        except (ConfigError, OSError, ValueError) as error:
            raise Failed(str(error)) from None
        known: Deferred[str | None] = Deferred()

        def report(reason: str | None) -> None:
            if not known.called:
                known.callback(reason)

        redis = RedisConnection(reactor, address, report)
        redis.startService()
        try:
            reason = await known
            if reason is not None:
                raise Failed(f"cannot use Redis: {reason}")
            return await ask(reactor, redis)
        except (Refused, Unavailable) as error:
            raise Failed(f"Redis: {error}") from None
        finally:
            await redis.stopService()

    run(main)


def configured_streams() -> dict[str, str]:
    """Stream → vendor, for the streams that a processor would read in this environment."""
    try:
        return config.process_streams(os.environ, [vendor.name for vendor in getPlugins(IVendor)])
    except ConfigError as error:
        raise Failed(str(error)) from None


async def known_streams(redis: RedisConnection) -> list[str]:
    """Those, and the ones that ingest instances say they write."""
    return sorted(configured_streams().keys() | await advertised_streams(redis))


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as columns that are as wide as they must be; the first row is the heading.

    What a terminal might take for a command of its own is escaped.
    """
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def printable(cell: str) -> str:
    """The same text, with what a terminal might obey escaped."""
    return cell if cell.isprintable() else cell.encode("unicode_escape").decode("ascii")
