"""The commands ``dead list``, ``show``, ``retry`` and ``drop``, for dead letters."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, Final

import click

from tracker import config
from tracker.admin.confirmation import confirm, require_terminal, yes_option
from tracker.admin.options import output_option, redis_option
from tracker.admin.output import Column, Kind, echo_pairs, only_first, show_rows
from tracker.admin.redis import configured_streams, no_such_stream, run_with_redis
from tracker.admin.vendors import check_vendor
from tracker.errors import RunFailed
from tracker.keys import RESPONSES, dead_letters
from tracker.log.entries import exclusive_start
from tracker.log.redis.dead import DeadLetter, RetryResult, drop_dead, read_dead, retry_dead
from tracker.reactor import Reactor
from tracker.redis.connection import RedisConnection
from tracker.untrusted import listed, shown
from tracker.wording import counted

DEAD_LETTER: Final = (
    Column("id"),
    Column("original_id", optional=True),
    Column("attempts", Kind.NUMBER),
    Column("reason", Kind.PROSE),
)
_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_PAGE: Final = 500


class _EntryId(click.ParamType):  # type: ignore[type-arg]
    name = "ID"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        if not _ID.fullmatch(value):
            self.fail(f"{value!r} is not an entry ID like 1795341600000-0.", param, ctx)
        return value


def _stream_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select the stream, which is passed as ``stream``."""

    @wraps(command)
    def with_stream(*, vendor: str | None, stream: str | None, **others: Any) -> None:
        if vendor is not None and stream is not None:
            raise click.UsageError("Give --vendor or --stream, not both.")
        name = stream or _stream_of(vendor or config.PINNED_VENDOR)
        command(stream=name.removesuffix(dead_letters("")), **others)

    decorated: Callable[..., Any] = with_stream
    for option in (
        click.option(
            "--stream", metavar="NAME", help="Stream of the entries, instead of --vendor."
        ),
        click.option(
            "--vendor",
            metavar="NAME",
            help=f"Vendor whose stream is used.  [default: {config.PINNED_VENDOR}]",
        ),
        redis_option,
    ):
        decorated = option(decorated)
    return decorated


def _stream_of(vendor: str) -> str:
    """Return the stream that processors with this environment read for a vendor.

    :raises click.UsageError: if the vendor is unknown, or has several streams.
    """
    check_vendor(vendor)
    names = [name for name, its in configured_streams().items() if its == vendor]
    if len(names) > 1:
        raise click.UsageError(
            f"REDIS_TELEMETRY_STREAM names several streams. Add --stream: {listed(names)}."
        )
    return names[0]


_ids = click.argument("ids", metavar="[ID]...", type=_EntryId(), nargs=-1)
_all = click.option("--all", "everything", is_flag=True, help="All dead letters that exist now.")


@click.group()
def dead() -> None:
    """List, show, retry or delete dead letters.

    Dead letters are entries that could not be stored.
    """


@dead.command("list")
@_stream_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True,
              help="Maximum number of rows.")  # fmt: skip
@click.option(
    "--after", type=_EntryId(), help="Only dead letters after this one, to get the next page."
)
@output_option
def list_(*, url: str | None, stream: str, limit: int, after: str | None, output: str) -> None:
    """List dead letters, oldest first.

    Long reasons are cut; "dead show" prints them whole.
    """

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        first = "-" if after is None else exclusive_start(after)
        letters: list[dict[str, Any]] = []
        while (left := limit + 1 - len(letters)) and first is not None:
            if not (page := await read_dead(redis, stream, first, count=left)):
                break
            letters += map(_brief, page)
            first = exclusive_start(page[-1].id)
        more, letters = len(letters) > limit, letters[:limit]
        if not letters:
            await _require(redis, stream)
        show_rows(DEAD_LETTER, letters, output, empty=_none(stream))
        if more:
            next_page = f"Next page: --after {letters[-1]['id']}"
            click.echo(f"{only_first(limit)}. {next_page}", err=True)
        return 0

    run_with_redis(url, request)


@dead.command()
@_stream_options
@click.argument("entry_id", metavar="ID", type=_EntryId())
@output_option
def show(*, url: str | None, stream: str, entry_id: str, output: str) -> None:
    """Show a dead letter with all its fields."""

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        found = await read_dead(redis, stream, entry_id, entry_id)
        if not found:
            await _require(redis, stream)
            raise RunFailed(f"Entry {entry_id} not found in {shown(dead_letters(stream))}.")
        (letter,) = found
        if output == "json":
            # A list of pairs, since a name may occur twice.
            click.echo(json.dumps({**_summary(letter), "fields": letter.fields}, indent=2))
        else:
            rows = [(key, str(value)) for key, value in _summary(letter).items()]
            echo_pairs([*rows, *letter.fields])
        return 0

    run_with_redis(url, request)


@dead.command()
@_stream_options
@_ids
@_all
def retry(*, url: str | None, stream: str, ids: tuple[str, ...], everything: bool) -> None:
    """Append dead letters to their stream again.

    Entries that still cannot be stored become dead letters again. An entry that cannot be
    appended stays a dead letter, and does not stop the others.

    The exit code is 1 if an entry could not be appended or was not found.
    """
    _apply(url, stream, ids=ids, everything=everything, change=retry_dead, done="retried")


@dead.command()
@_stream_options
@_ids
@_all
@yes_option
def drop(
    *, url: str | None, stream: str, ids: tuple[str, ...], everything: bool, yes: bool
) -> None:
    """Delete dead letters for good.

    With --all, you are asked for confirmation.

    The exit code is 1 if an ID was not found.
    """
    _apply(
        url,
        stream,
        ids=ids,
        everything=everything,
        change=_drop,
        done="deleted",
        ask=everything and not yes,
    )


async def _drop(redis: RedisConnection, stream: str, ids: Sequence[str]) -> RetryResult:
    return RetryResult(await drop_dead(redis, stream, ids))


def _apply(
    url: str | None,
    stream: str,
    *,
    ids: Sequence[str],
    everything: bool,
    ask: bool = False,
    change: Callable[[RedisConnection, str, Sequence[str]], Coroutine[Any, Any, RetryResult]],
    done: str,
) -> None:
    if bool(ids) == everything:
        raise click.UsageError("Give one or more IDs, or --all.")
    require_terminal(not ask)

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        requested, changed, failed = 0, 0, 0
        by_reason: dict[str, list[str]] = {}
        # Stop at the entry that is the last one now: entries that fail again are appended after it.
        newest = await redis.execute("XREVRANGE", dead_letters(stream), "+", "-", "COUNT", 1)
        if not newest:
            await _require(redis, stream)
        elif ask:
            letters = counted(await redis.execute("XLEN", dead_letters(stream)), "dead letter")
            if not confirm(f"Delete {letters} of {shown(stream)} for good?"):
                raise RunFailed("Cancelled; nothing was deleted.")
        async for page in _pages(redis, stream, ids, newest[0][0].decode() if newest else ""):
            requested += len(page)
            result = await change(redis, stream, page)
            changed += result.moved
            failed += len(result.failed)
            for entry_id, reason in result.failed.items():
                by_reason.setdefault(reason, []).append(entry_id)
        missing = requested - changed - failed
        counts = [f"{changed} {done}"]
        counts += [f"{failed} failed"] if failed else []
        counts += [f"{missing} not found"] if missing else []
        click.echo(", ".join(counts))
        for reason, entry_ids in by_reason.items():
            click.echo(f"not {done}: {reason}: {listed(entry_ids)}", err=True)
        return 0 if changed == requested else 1

    run_with_redis(url, request)


async def _pages(
    redis: RedisConnection, stream: str, ids: Sequence[str], newest: str
) -> AsyncIterator[Sequence[str]]:
    """Yield the given IDs, or those of all dead letters up to the newest one."""
    if ids:
        unique = list(dict.fromkeys(ids))
        for start in range(0, len(unique), _PAGE):
            yield unique[start : start + _PAGE]
        return
    first: str | None = "-"
    while newest and first is not None:
        page = await read_dead(redis, stream, first, newest, count=_PAGE)
        if not page:
            return
        yield [letter.id for letter in page]
        first = exclusive_start(page[-1].id)


async def _require(redis: RedisConnection, stream: str) -> None:
    """Check that a stream without dead letters exists, or that processors would read it.

    :raises RunFailed: if not, since its name is a mistake then.
    """
    if stream not in {*configured_streams(), RESPONSES} and not await redis.execute(
        "EXISTS", stream
    ):
        raise await no_such_stream(redis, stream)


def _none(stream: str) -> str:
    return f"No dead letters in {shown(dead_letters(stream))}."


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "original_id": letter.original_id,
        "attempts": letter.attempts,
        "reason": letter.reason,
    }


def _brief(letter: DeadLetter) -> dict[str, Any]:
    """Return the summary for a list, with long texts cut."""
    texts = {"original_id": shown(letter.original_id), "reason": shown(letter.reason)}
    return _summary(letter) | texts
