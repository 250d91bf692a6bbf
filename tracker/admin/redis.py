"""Functions for the commands that use Redis."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import click

from tracker import config
from tracker.admin.exitcodes import ExitCode
from tracker.admin.vendors import vendor_names
from tracker.config import ConfigError
from tracker.errors import Refused, RunFailed, Unavailable
from tracker.log.redis.heartbeats import advertised_streams
from tracker.log.redis.ranges import read_range
from tracker.observe.health import Condition
from tracker.reactor import Reactor
from tracker.redis.address import RedisAddress, redis_address
from tracker.redis.connection import RedisConnection
from tracker.redis.endpoint import redis_endpoint
from tracker.redis.protocol import is_not_permitted
from tracker.runtime.run import run
from tracker.untrusted import listed, shown
from tracker.vendors.installed import installed_vendors

_START: Final = "Start it, or give its address: --redis or REDIS_URL."
_CHECK: Final = "Check its address: --redis or REDIS_URL."
#: Text of an error of a connection that failed → what to do.
_HINTS: Final = {
    os.strerror(errno.ECONNREFUSED).lower(): _START,
    os.strerror(errno.ENOENT).lower(): _START,
    "DNS lookup failed": _CHECK,
    "timed out": _CHECK,
}


def run_with_redis(
    url: str | None, request: Callable[[Any, RedisConnection], Awaitable[int]]
) -> None:
    """Run ``request(reactor, redis)``, and exit with the exit code that it returns.

    If Redis cannot be used, that is an error, without a retry.

    :param url: of Redis, from the command line or the configuration file.
    """

    async def main(reactor: Reactor) -> int:
        try:
            address = redis_address(url, os.environ)
            redis_endpoint(reactor, address)
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
        except OSError as error:
            raise click.UsageError(f"Redis URL: {error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise click.UsageError(f"Redis URL: {error}") from None
        usable = Condition()
        known = usable.reported()
        redis = RedisConnection(reactor, address, usable)
        redis.startService()
        try:
            reason = await known
            if reason is not None:
                raise RunFailed(_not_usable(address, reason), ExitCode.UNREACHABLE)
            return await request(reactor, redis)
        except Refused as error:
            code = ExitCode.NOT_PERMITTED if is_not_permitted(error) else ExitCode.FAILED
            raise RunFailed(f"Redis refused the request: {error}.", code) from None
        except Unavailable as error:
            raise RunFailed(f"Redis does not reply: {error}.", ExitCode.UNREACHABLE) from None
        finally:
            await redis.stopService()

    run(main)


def _not_usable(address: RedisAddress, reason: str) -> str:
    reason = reason.removesuffix(f" ({address})").rstrip(".")
    for text, hint in _HINTS.items():
        if text in reason:
            return f"Cannot connect to Redis at {address}: {reason}. {hint}"
    return f"Cannot use Redis at {address}: {reason}."


def configured_streams() -> dict[str, str]:
    """Return stream → vendor of the streams that a processor with this environment reads."""
    try:
        return config.process_streams(os.environ, vendor_names())
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


async def stream_vendor(redis: RedisConnection, stream: str) -> str | None:
    """Return the vendor of the positions in a stream; None if nothing tells.

    It is the vendor for which processors with this environment read the stream, else the only one
    whose name is a part of the stream's name, as in ``telemetry:teltonika``, else the only one that
    has the codec of the first entry.
    """
    configured = configured_streams()
    if stream in configured:
        return configured[stream]
    vendors = installed_vendors().values()
    named = [vendor.name for vendor in vendors if vendor.name in stream.split(":")]
    if not named:
        for entry in await read_range(redis, stream, "-", "+", count=1):
            codec = entry.fields.get(b"codec", b"").decode(errors="replace")
            named = [vendor.name for vendor in vendors if codec in vendor.codecs]
    return named[0] if len(named) == 1 else None


async def known_streams(redis: RedisConnection) -> list[str]:
    """Return the configured streams and those that heartbeats of ingest instances name."""
    return sorted(configured_streams().keys() | await advertised_streams(redis))


async def no_such_stream(redis: RedisConnection, stream: str) -> RunFailed:
    """Return the exception that ends a command whose stream does not exist."""
    return stream_not_found(stream, await known_streams(redis))


def stream_not_found(stream: str, known: Iterable[str]) -> RunFailed:
    """Return the exception that ends a command whose stream is not among the known ones."""
    others = listed(known)
    return RunFailed(
        f"Stream {shown(stream)} not found. {f'Known: {others}.' if others else ''}".rstrip()
    )
