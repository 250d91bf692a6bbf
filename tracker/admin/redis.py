"""Functions for the commands that use Redis."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import click
from twisted.plugin import getPlugins

from tracker import config
from tracker.admin.exitcodes import ExitCode
from tracker.config import ConfigError
from tracker.errors import Refused, Unavailable
from tracker.interfaces import IVendor
from tracker.log.redis.heartbeats import advertised_streams
from tracker.observe.health import Condition
from tracker.reactor import Reactor
from tracker.redis.address import redis_address
from tracker.redis.connection import RedisConnection
from tracker.runtime.run import RunFailed, run


def run_with_redis(url: str | None, ask: Callable[[Any, RedisConnection], Awaitable[int]]) -> None:
    """Run ``ask(reactor, redis)`` with a usable connection, and exit with its status.

    If Redis cannot be used, that is reported in one line, without a retry.
    """

    async def main(reactor: Reactor) -> int:
        try:
            address = redis_address(url, os.environ)
            address.endpoint(reactor)
        except (ConfigError, OSError, ValueError) as error:
            raise click.UsageError(f"Redis: {error}") from None
        usable = Condition()
        known = usable.reported()
        redis = RedisConnection(reactor, address, usable)
        redis.startService()
        try:
            reason = await known
            if reason is not None:
                raise RunFailed(f"cannot use Redis: {reason}", ExitCode.UNREACHABLE)
            return await ask(reactor, redis)
        except (Refused, Unavailable) as error:
            raise RunFailed(f"Redis: {error}", status_of(error)) from None
        finally:
            await redis.stopService()

    run(main)


def status_of(error: Exception) -> ExitCode:
    """Return the status of a command that Redis has refused, or not answered."""
    if isinstance(error, Unavailable):
        return ExitCode.UNREACHABLE
    denied = str(error).startswith("NOPERM")
    return ExitCode.NOT_PERMITTED if denied else ExitCode.NO


def configured_streams() -> dict[str, str]:
    """Return stream → vendor, of the streams that a processor would read in this environment."""
    try:
        return config.process_streams(os.environ, [vendor.name for vendor in getPlugins(IVendor)])
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


async def known_streams(redis: RedisConnection) -> list[str]:
    """Return these streams, and those that heartbeats name."""
    return sorted(configured_streams().keys() | await advertised_streams(redis))
