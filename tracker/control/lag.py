"""``tracker-admin lag``: how far behind the groups of each stream are."""

from __future__ import annotations

import json
from typing import Any

import click

from tracker.control.redis import ask_redis, known_streams, output_option, redis_option, table
from tracker.simulator.run import Failed
from tracker.streams.connection import RedisConnection
from tracker.streams.lag import GroupLag, StreamLag, stream_lag

_HEADING = ("STREAM", "GROUP", "LAG", "PENDING", "OLDEST", "CONSUMERS (PENDING, IDLE)")


@click.command()
@redis_option
@click.option(
    "--stream",
    "streams",
    metavar="NAME",
    multiple=True,
    help="Only this stream; may be repeated.  [default: those that processors read and ingest "
    "instances write]",
)
@output_option
def lag(url: str | None, streams: tuple[str, ...], output: str) -> None:
    """Show how far behind each group is.

    LAG is how many entries the group was not given yet (a question mark where Redis
    cannot tell), PENDING how many it was given and has not acknowledged, OLDEST how
    long ago the oldest of all these was appended.
    """

    async def ask(reactor: Any, redis: RedisConnection) -> int:
        found = []
        for stream in streams or await known_streams(redis):
            read = await stream_lag(redis, stream)
            if read is not None:
                found.append(read)
            elif streams:
                raise Failed(f"there is no stream {stream}")
        click.echo(_json(found) if output == "json" else _table(found))
        return 0

    ask_redis(url, ask)


def _json(found: list[StreamLag]) -> str:
    return json.dumps(
        [
            {"stream": read.stream, "group": group.name, **group.as_json()}
            for read in found
            for group in read.groups
        ]
        + [{"stream": read.stream, "group": None} for read in found if not read.groups],
        indent=2,
    )


def _table(found: list[StreamLag]) -> str:
    rows: list[tuple[str, ...]] = [_HEADING]
    for read in found:
        rows += [(read.stream, *_row(group)) for group in read.groups]
        if not read.groups:
            rows.append((read.stream, "-", "", "", "", ""))
    return table(rows)


def _row(group: GroupLag) -> tuple[str, ...]:
    return (
        group.name,
        "?" if group.undelivered is None else str(group.undelivered),
        str(group.pending),
        f"{group.oldest_age:.1f}s",
        ", ".join(f"{one.name} ({one.pending}, {one.idle:.1f}s)" for one in group.consumers) or "-",
    )
