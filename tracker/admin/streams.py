"""The commands ``streams list`` and ``adopt``, for all streams of positions in Redis."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any, Final

import click

from tracker.admin.options import output_option, redis_option
from tracker.admin.output import Column, Kind, show_rows
from tracker.admin.redis import configured_streams, run_with_redis, stream_vendor
from tracker.durations import format_duration
from tracker.errors import Refused, RunFailed
from tracker.keys import PROCESSOR_GROUP, dead_letters
from tracker.log.redis.heartbeats import advertised_streams, is_stream_name
from tracker.log.redis.lag import stream_lag
from tracker.log.redis.moving import delete_empty, move_all
from tracker.log.redis.stranded import (
    FoundStream,
    StreamSearch,
    examine,
    has_live_consumer,
    is_stranded,
)
from tracker.reactor import Reactor
from tracker.redis.connection import RedisConnection
from tracker.untrusted import listed, shown
from tracker.wording import counted

#: Maximum seconds of the search for streams.
MAX_SEARCH: Final = 60.0

STREAM: Final = (
    Column("stream"),
    Column("state"),
    Column("entries", Kind.NUMBER),
    Column("unprocessed", Kind.NUMBER),
    Column("oldest_age", Kind.DURATION),
)


@click.group()
def streams() -> None:
    """List the streams of positions, or adopt a stranded one.

    A stream is stranded if no processor reads it, for example after a wrong
    REDIS_TELEMETRY_STREAM was corrected.
    """


@streams.command("list")
@redis_option
@output_option
def list_(*, url: str | None, output: str) -> None:
    """List all streams of positions and dead letters, under any name.

    STATE is "read" if a processor reads the stream, "not read" if only a processor with this
    environment would read it, "stranded" if no processor would, "finished" if no processor reads
    it and all its entries are processed, or "dead letters". OLDEST AGE is the age of the
    first unprocessed entry (or dead letter).
    """

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        configured = configured_streams().keys()
        search = StreamSearch(redis, reactor)
        complete = await search.proceed(MAX_SEARCH)
        found = sorted(search.streams.values(), key=lambda one: one.name)
        rows = [await _row(redis, one, configured) for one in found]
        show_rows(STREAM, rows, output, empty="No streams of positions in Redis.")
        if not complete:
            click.echo(
                f"Not all keys were examined within {format_duration(MAX_SEARCH)}.", err=True
            )
        if search.left_out:
            click.echo(f"{counted(search.left_out, 'more stream')} not shown.", err=True)
        return 0

    run_with_redis(url, request)


async def _row(
    redis: RedisConnection, stream: FoundStream, configured: Collection[str]
) -> dict[str, Any]:
    row = {"stream": shown(stream.name), "entries": stream.entries}
    age = round(stream.oldest_age, 1)
    if stream.is_dead:
        return {**row, "state": "dead letters", "oldest_age": age}
    lag = await stream_lag(redis, stream.name)
    group = None if lag is None else lag.group(PROCESSOR_GROUP)
    if group is None:
        state = "not read" if stream.name in configured else "stranded"
        return {**row, "state": state, "unprocessed": stream.entries, "oldest_age": age}
    if has_live_consumer(group):
        state = "read"
    elif stream.name in configured:
        state = "not read"
    else:
        state = "stranded" if is_stranded(group) else "finished"
    oldest = None if group.total == 0 else round(group.oldest_age, 1)
    return {**row, "state": state, "unprocessed": group.total, "oldest_age": oldest}


@streams.command()
@redis_option
@click.argument("stream", metavar="STREAM")
@click.option("--to", "target", metavar="NAME", help="Stream that gets the entries; a processor "
              "with this environment must read it.  "
              "[default: the stream of the same vendor]")  # fmt: skip
def adopt(*, url: str | None, stream: str, target: str | None) -> None:
    r"""Move the entries of a stranded stream to one that processors read.

    The positions keep the time of their first arrival, and are stored once even if some were
    stored before. The source is deleted once it is empty.

    Each entry is moved atomically: nothing is lost if the command is interrupted, and it continues
    if it is repeated. Streams that an ingest instance writes or a processor reads are refused.

    \b
    Example:
      tracker-admin streams adopt telemtry:teltonika
    """
    if not is_stream_name(stream):
        raise click.UsageError(f"Invalid name of a stream: '{shown(stream)}'.")
    configured = configured_streams()
    if target is not None and target not in configured:
        names = ", ".join(configured)
        raise click.UsageError(
            f"--to {shown(target)}: processors with this environment read {names}."
        )
    if stream in configured:
        raise click.UsageError(f"Processors with this environment read {shown(stream)}.")

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        entries = await _adoptable(redis, stream)
        to = await _target(redis, stream, target)
        moved = 0
        try:
            with click.progressbar(length=entries, label="Adopting", file=sys.stderr) as bar:
                async for count in move_all(redis, stream, to):
                    moved += count
                    bar.update(count)
        except Refused as error:
            raise RunFailed(
                f"Redis refused an entry: {error}. Entries moved: {moved:,}. The others are still "
                f"in {shown(stream)}. Remove the cause and repeat the command."
            ) from None
        reason = await delete_empty(redis, stream, PROCESSOR_GROUP)
        rest = f"not deleted: {reason}" if reason else "deleted"
        click.echo(
            f"{counted(moved, 'entry', 'entries')} moved to {shown(to)}; {shown(stream)} {rest}"
        )
        return 0

    run_with_redis(url, request)


async def _target(redis: RedisConnection, stream: str, given: str | None) -> str:
    """Return the stream that gets the entries of a stranded stream.

    :param given: the value of ``--to``, one of the configured streams.
    :raises click.UsageError: if it is unknown, or has positions of another vendor.
    """
    configured = configured_streams()
    vendor = await stream_vendor(redis, stream)
    if given is None:
        given = next((name for name, its in configured.items() if its == vendor), None)
    if given is None:
        raise click.UsageError(
            f"Vendor of stream {shown(stream)} unknown. Add --to: {listed(configured)}."
        )
    if vendor not in (None, configured[given]):
        raise click.UsageError(
            f"--to {given}: the positions in {shown(stream)} are of {vendor}, not of "
            f"{configured[given]}."
        )
    return given


async def _adoptable(redis: RedisConnection, stream: str) -> int:
    """Return the number of entries of a stream whose entries may be moved.

    :raises RunFailed: if they must not be moved.
    """
    name = shown(stream)
    if not await redis.execute("EXISTS", stream):
        raise RunFailed(f"Stream {name} not found. Run tracker-admin streams list.")
    found = await examine(redis, stream.encode())
    if found is None:
        raise RunFailed(f"Key {name} is not a stream of positions, or is empty.")
    if found.is_dead:
        original = shown(stream.removesuffix(dead_letters("")))
        raise RunFailed(
            f"Stream {name} holds dead letters. Use tracker-admin dead retry --stream {original}."
        )
    writer = (await advertised_streams(redis)).get(stream)
    if writer is not None:
        raise RunFailed(
            f"Instance {shown(writer)} writes {name}. Correct its REDIS_TELEMETRY_STREAM and "
            "restart it, then repeat the command."
        )
    lag = await stream_lag(redis, stream)
    group = None if lag is None else lag.group(PROCESSOR_GROUP)
    if group is not None and has_live_consumer(group):
        raise RunFailed(f"A processor reads {name}: {listed(c.name for c in group.consumers)}.")
    return found.entries
