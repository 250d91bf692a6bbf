"""The commands ``skipped list`` and ``discard``, for entries that processors skipped."""

from __future__ import annotations

from typing import Final

import click

from tracker.admin.confirmation import confirm, require_terminal, yes_option
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import output_option, redis_option
from tracker.admin.output import Column, Kind, show_rows
from tracker.admin.redis import known_streams, no_such_stream, run_with_redis
from tracker.errors import Refused, RunFailed
from tracker.keys import checkpoint
from tracker.log.redis.checkpoint import Skipped, find_skipped, record_finished
from tracker.reactor import Reactor
from tracker.redis.connection import RedisConnection
from tracker.redis.protocol import is_wrong_type
from tracker.untrusted import listed, shown
from tracker.wording import counted

SKIPPED: Final = (
    Column("stream"),
    Column("entries", Kind.NUMBER),
    Column("first"),
    Column("last"),
    Column("first_time", Kind.TIME, optional=True),
    Column("last_time", Kind.TIME, optional=True),
)


@click.group()
def skipped() -> None:
    """List or discard entries that the processors skipped.

    They were delivered, but are neither pending nor recorded as stored: a consumer was deleted
    with pending entries, the group was set to a later ID, or entries were acknowledged by hand.
    They are kept until they are replayed (see "replay --help") or discarded.
    """


@skipped.command("list")
@redis_option
@click.option("--stream", "streams", metavar="NAME", multiple=True,
              help="Only this stream; may be repeated.  [default: the streams that processors with "
              "this environment read, and those that ingest instances write]")  # fmt: skip
@output_option
def list_(*, url: str | None, streams: tuple[str, ...], output: str) -> None:
    """List the ranges of skipped entries.

    The exit code is 1 if there are any. Entries that a processor of an earlier version stored may
    be among them, because it does not record what it stores.
    """

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        rows, without, unknown = [], [], []
        for stream in streams or await known_streams(redis):
            found = await _find(redis, stream, may_be_missing=not streams)
            rows += [{"stream": shown(stream), **one.as_json()} for one in found.ranges]
            if not found.complete:
                click.echo(f"{shown(stream)}: more entries not examined", err=True)
            if found.committed is None:
                # The stream of a vendor without devices is empty, and has no checkpoint.
                if streams or await redis.execute("XLEN", stream):
                    unknown.append(stream)
            elif not found.ranges:
                without.append(stream)
        for stream in unknown:
            click.echo(f"{shown(stream)}: no processor has published a checkpoint", err=True)
        known = f" in {listed(without)}" if without else " are known"
        show_rows(SKIPPED, rows, output, empty=f"No skipped entries{known}.")
        return ExitCode.FAILED if rows else ExitCode.DONE

    run_with_redis(url, request)


@skipped.command()
@redis_option
@click.argument("stream", metavar="STREAM")
@yes_option
def discard(*, url: str | None, stream: str, yes: bool) -> None:
    r"""Discard the skipped entries of a stream.

    The janitor then trims them like stored ones. Replay them first; then only entries that cannot
    be stored remain.

    \b
    Example:
      tracker-admin skipped discard telemetry:teltonika
    """
    require_terminal(yes)

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        found = await _find(redis, stream)
        name = shown(stream)
        if found.committed is None:
            raise RunFailed(
                f"No processor has published a checkpoint of {name}. Start one of this version."
            )
        if not found.ranges:
            click.echo(f"{name}: no skipped entries")
            return ExitCode.DONE
        _print_ranges(found)
        entries = counted(found.entries, "skipped entry", "skipped entries")
        question = f"Discard {entries}{'' if found.complete else ' or more'} of {name}?"
        if not yes and not confirm(question):
            raise RunFailed("Cancelled; nothing was discarded.", ExitCode.FAILED)
        discarded = 0
        while found.ranges:
            runs = [(one.first, one.last) for one in found.ranges]
            if await record_finished(redis, stream, runs) != 0:
                raise RunFailed(
                    f"The checkpoint of {name} cannot record the entries: it has too many ranges, "
                    "or was deleted. Repeat the command later."
                )
            discarded += found.entries
            if found.complete:
                break
            found = await _find(redis, stream)
            _print_ranges(found)
        click.echo(f"{name}: {counted(discarded, 'entry', 'entries')} discarded")
        return ExitCode.DONE

    run_with_redis(url, request)


def _print_ranges(found: Skipped) -> None:
    for one in found.ranges:
        first_time, last_time = one.times
        entries = counted(one.entries, "entry", "entries")
        click.echo(f"{entries} from {one.first} ({first_time}) to {one.last} ({last_time})")


async def _find(redis: RedisConnection, stream: str, *, may_be_missing: bool = False) -> Skipped:
    kind = (await redis.execute("TYPE", stream)).decode()
    if kind == "none":
        if may_be_missing:
            return Skipped(None)
        raise await no_such_stream(redis, stream)
    if kind != "stream":
        raise RunFailed(f"Key {shown(stream)} is a {kind}, not a stream.")
    try:
        return await find_skipped(redis, stream)
    except Refused as error:
        if not is_wrong_type(error):
            raise
        raise RunFailed(f"Key {checkpoint(shown(stream))} is not a sorted set.") from None
