"""The command ``lag``, which shows the lag of the consumer groups of each stream."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click
from click.core import ParameterSource
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text
from twisted.internet.task import deferLater

from tracker.admin.control import run_with_control_port
from tracker.admin.options import Duration, options, output_option, redis_option
from tracker.admin.output import (
    Column,
    Kind,
    iso,
    on_terminal,
    show_rows,
    terminal,
    terminal_table,
)
from tracker.admin.redis import (
    configured_streams,
    known_streams,
    no_such_stream,
    run_with_redis,
    stream_not_found,
)
from tracker.control.client import ControlClient
from tracker.control.commands import RedisUnavailable
from tracker.control.connection import NotConnected
from tracker.errors import Refused, RunFailed, Unavailable
from tracker.keys import PROCESSOR_GROUP
from tracker.log.redis.checkpoint import find_skipped
from tracker.log.redis.lag import StreamLag, stream_lag
from tracker.log.redis.stranded import (
    SEARCH_SECONDS,
    StreamSearch,
    examine,
    is_stranded,
    stranded,
)
from tracker.reactor import Reactor
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import listed, shown

Group = dict[str, Any]
#: Returns the groups and their lag now.
Read = Callable[[], Awaitable[list[Group]]]

LAG: Final = (
    Column("stream"),
    Column("group"),
    Column("lag", Kind.NUMBER),
    Column("pending", Kind.NUMBER),
    Column("oldest", Kind.DURATION),
    Column("consumers", Kind.LIST, heading="CONSUMERS (PENDING, IDLE)"),
)
_EMPTY: Final = "No streams of positions: no ingest instance has appended a record."
_FIELDS: Final = (
    *("stream", "entries", "group", "lag", "pending", "oldest_unprocessed_age"),
    *("consumers", "consumer_count", "stranded", "skipped"),
)
#: Errors of a source that may work again at the next reading.
_TEMPORARY: Final = (Refused, Unavailable, NotConnected, RedisUnavailable)


@click.command()
@redis_option
@click.option(
    "--stream",
    "streams",
    metavar="NAME",
    multiple=True,
    help="Only this stream; may be repeated.  [default: the streams that processors with this "
    "environment read, those that ingest instances write, and stranded ones]",
)
@click.option("--follow", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval",
    type=Duration(),
    default="2s",
    show_default=True,
    help="Time between two readings.",
)
@output_option
def lag(
    *, url: str | None, streams: tuple[str, ...], follow: bool, interval: float, output: str
) -> None:
    r"""Show the lag of each consumer group.

    LAG is the number of entries that were not delivered to the group yet ("?" if it is unknown).
    PENDING is the number of entries that were delivered and not acknowledged. OLDEST is the age of
    the oldest of all these.

    The figures come from Redis, or from an instance if its control port is given. If both are
    given, the command line precedes the environment, and the environment precedes the
    configuration file; in the same place, Redis precedes the control port. An instance does not
    report the names of consumers, stranded streams or skipped entries.

    \b
    Examples:
      tracker-admin lag
      tracker-admin lag --follow --interval 10s >> lag.log
      tracker-admin --control unix:/run/tracker/control-eu-1.sock lag -o json
    """

    async def show(reactor: Reactor, read: Read) -> int:
        found = await read()
        if follow:
            if not (found or on_terminal()):
                click.echo(_EMPTY, err=True)
            await _follow(reactor, read, found, interval=interval, output=output)
        elif output == "json":
            click.echo(json.dumps(found, indent=2))
        else:
            show_rows(LAG, map(_row, found), output, empty=_EMPTY)
        if not follow and (names := [one["stream"] for one in found if one["skipped"]]):
            click.echo(
                f"Streams with skipped entries: {listed(names)}. Run tracker-admin skipped list.",
                err=True,
            )
        return 0

    if _is_by_control(url):

        async def request(reactor: Reactor, client: ControlClient) -> int:
            return await show(reactor, lambda: _from_control(client, streams))

        run_with_control_port(request)
    else:

        async def request_redis(reactor: Reactor, redis: RedisConnection) -> int:
            others = [] if streams else await _stranded_streams(reactor, redis)
            return await show(reactor, lambda: _from_redis(redis, streams, others))

        run_with_redis(url, request_redis)


def _is_by_control(url: str | None) -> bool:
    """Return True if a control port is given, and no Redis of the same or higher precedence."""
    source = click.get_current_context().get_parameter_source("url")
    redis = options().given_redis(url if source is ParameterSource.COMMANDLINE else None)
    control = options().given_control()
    return control is not None and (redis is None or control.origin < redis.origin)


async def _stranded_streams(reactor: Reactor, redis: RedisConnection) -> list[str]:
    """Return the stranded streams, and name them on standard error."""
    search = StreamSearch(redis, reactor)
    if not await search.proceed(SEARCH_SECONDS):
        click.echo("Not all keys were examined. Run tracker-admin streams list.", err=True)
    configured = configured_streams()
    names = [one.name for one in await stranded(redis, search.streams.values(), configured)]
    if names:
        click.echo(
            f"Streams that no processor reads: {listed(names)}. Run tracker-admin streams adopt.",
            err=True,
        )
    return names


async def _from_redis(
    redis: RedisConnection, streams: Sequence[str], others: Sequence[str] = ()
) -> list[Group]:
    """Return the lag of some streams, by default of the known ones and of stranded ``others``."""
    found: list[Group] = []
    for stream in streams or sorted({*await known_streams(redis), *others}):
        try:
            read = await stream_lag(redis, stream)
        except Refused as error:
            if not is_wrong_type(error):
                raise
            if streams:
                raise RunFailed(f"Key {shown(stream)} is not a stream.") from None
            click.echo(f"{shown(stream)} is not a stream. Rename or delete the key.", err=True)
            continue
        if read is not None:
            rows = await _stranded_groups(redis, read) if stream in others else _groups(read)
            skipped = await _skipped(redis, stream)
            found += [
                {**one, "skipped": skipped} if one["group"] == PROCESSOR_GROUP else one
                for one in rows
            ]
        elif streams:
            raise await no_such_stream(redis, stream)
    return found


async def _skipped(redis: RedisConnection, stream: str) -> int | None:
    """Return the number of skipped entries of a stream; None if it is unknown."""
    try:
        found = await find_skipped(redis, stream)
    except Refused:  # the key is of another type, or the user may not read it; see doctor
        return None
    return None if found.committed is None else found.entries


async def _stranded_groups(redis: RedisConnection, read: StreamLag) -> list[Group]:
    """Return the groups of a stream that was stranded; without ``processor`` one more, unnamed."""
    processors = read.group(PROCESSOR_GROUP)
    if processors is not None:
        return [
            {**one, "stranded": one["group"] == PROCESSOR_GROUP and is_stranded(processors)}
            for one in _groups(read)
        ]
    examined = await examine(redis, read.stream.encode())
    missing = {
        "stream": shown(read.stream),
        "entries": read.entries,
        "lag": read.entries,
        "pending": 0,
        "oldest_unprocessed_age": 0.0 if examined is None else examined.oldest_age,
        "consumers": {},
        "consumer_count": 0,
        "stranded": read.entries > 0,
    }
    return [*(_groups(read) if read.groups else ()), _complete(missing)]


async def _from_control(client: ControlClient, streams: Sequence[str]) -> list[Group]:
    groups = await client.lag(list(streams) or None)
    found = {group["stream"] for group in groups}
    for stream in streams:
        if stream not in found:
            raise stream_not_found(stream, {one["stream"] for one in await client.lag(None)})
    return [
        _complete({**group, "consumers": None, "consumer_count": group["consumers"]})
        for group in groups
    ]


def _groups(read: StreamLag) -> list[Group]:
    about = {"stream": shown(read.stream), "entries": read.entries}
    groups = [
        {**about, "group": group.name, **group.as_json(), "consumer_count": group.consumer_count}
        for group in read.groups
    ]
    return list(map(_complete, groups or [about]))


def _complete(group: Group) -> Group:
    """Return a group with all fields, in a fixed order."""
    return {name: group.get(name) for name in _FIELDS} | {"stranded": group.get("stranded", False)}


def _row(group: Group) -> dict[str, Any]:
    if group["group"] is None and not group["stranded"]:
        return {"stream": group["stream"]}
    return {
        "stream": group["stream"],
        "group": group["group"],
        "lag": _lag(group),
        "pending": group["pending"],
        "oldest": group["oldest_unprocessed_age"],
        "consumers": _consumers(group),
    }


def _lag(group: Group) -> str:
    return "?" if group["lag"] is None else str(group["lag"])


def _consumers(group: Group) -> list[str]:
    if group["consumers"] is None:
        return [str(group["consumer_count"])]
    named = [
        f"{name} ({one['pending']}, {one['idle']:.1f}s)" for name, one in group["consumers"].items()
    ]
    return named + _marks(group)


def _marks(group: Group) -> list[str]:
    """Return what is wrong with a group beside its lag."""
    marks = ["stranded"] if group["stranded"] else []
    return marks + ([f"{group['skipped']} skipped"] if group["skipped"] else [])


async def _follow(
    reactor: Reactor, read: Read, found: list[Group], *, interval: float, output: str
) -> None:
    lost = False
    with _output(output) as show:
        while True:
            show(found)
            await deferLater(reactor, interval)
            try:
                found = await read()
            except _TEMPORARY as error:
                if not lost:
                    click.echo(f"{iso(time.time())} connection lost: {error}", err=True)
                lost, found = True, []
            else:
                if lost:
                    click.echo(f"{iso(time.time())} connected again", err=True)
                lost = False


@contextmanager
def _output(output: str) -> Iterator[Callable[[list[Group]], None]]:
    """Yield the function that shows a reading; on a terminal it overwrites the last one."""
    if output == "json":
        yield _echo_objects
    elif not on_terminal():
        yield _echo_lines
    else:
        with Live(console=terminal(), auto_refresh=False) as live:
            yield lambda found: live.update(_drawn(found, live.console.width), refresh=True)


def _drawn(found: list[Group], width: int) -> RenderableType:
    return terminal_table(LAG, map(_row, found), width)[0] if found else Text(_EMPTY)


def _echo_objects(found: list[Group]) -> None:
    at = iso(time.time())
    for group in found:
        click.echo(json.dumps({"at": at, **group}))


def _echo_lines(found: list[Group]) -> None:
    at = iso(time.time())
    for group in found:
        if group["group"] is None and not group["stranded"]:
            click.echo(f"{at} {group['stream']} -")
            continue
        click.echo(
            f"{at} {group['stream']} {group['group'] or '-'} lag={_lag(group)} "
            f"pending={group['pending']} oldest={group['oldest_unprocessed_age']:.1f}s "
            f"consumers={group['consumer_count']}{''.join(f' {mark}' for mark in _marks(group))}"
        )
