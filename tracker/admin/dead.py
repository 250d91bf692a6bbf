"""The commands ``dead list``, ``show``, ``retry`` and ``drop``, for dead letters."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Final

import click

from tracker.admin.options import output_option, redis_option
from tracker.admin.output import echo_pairs, echo_table, only_first
from tracker.admin.redis import run_with_redis
from tracker.errors import RunFailed
from tracker.keys import dead_letters, telemetry_stream
from tracker.log.entries import exclusive_start
from tracker.log.redis.dead import DeadLetter, RetryResult, drop_dead, read_dead, retry_dead
from tracker.reactor import Reactor
from tracker.redis.connection import RedisConnection
from tracker.untrusted import listed, shown

_HEADING: Final = ("ID", "ORIGINAL ID", "ATTEMPTS", "REASON")
_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_PAGE: Final = 500


class _EntryId(click.ParamType):  # type: ignore[type-arg]
    name = "ID"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        if not _ID.fullmatch(value):
            self.fail(f"{value!r} is not an entry ID like 1795341600000-0.", param, ctx)
        return value


def _stream_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select the stream."""
    for option in (
        click.option(
            "--stream", metavar="NAME", help="Stream of the entries, instead of --vendor."
        ),
        click.option(
            "--vendor",
            metavar="NAME",
            default="teltonika",
            show_default=True,
            help="Vendor whose stream is used.",
        ),
        redis_option,
    ):
        command = option(command)
    return command


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
def list_(
    *, url: str | None, vendor: str, stream: str | None, limit: int, after: str | None, output: str
) -> None:
    """List dead letters, oldest first.

    Long reasons are cut; "dead show" prints them whole.
    """
    name = _stream(stream, vendor)

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        first = "-" if after is None else exclusive_start(after)
        letters: list[dict[str, Any]] = []
        while (left := limit + 1 - len(letters)) and first is not None:
            if not (page := await read_dead(redis, name, first, count=left)):
                break
            letters += map(_brief, page)
            first = exclusive_start(page[-1].id)
        more, letters = len(letters) > limit, letters[:limit]
        if output == "json":
            click.echo(json.dumps(letters, indent=2))
        else:
            echo_table([_HEADING, *map(_row, letters)])
        if more:
            next_page = f"Next page: --after {letters[-1]['id']}"
            click.echo(f"{only_first(limit)}. {next_page}", err=True)
        return 0

    run_with_redis(url, request)


@dead.command()
@_stream_options
@click.argument("entry_id", metavar="ID", type=_EntryId())
@output_option
def show(*, url: str | None, vendor: str, stream: str | None, entry_id: str, output: str) -> None:
    """Show a dead letter with all its fields."""
    name = _stream(stream, vendor)

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        found = await read_dead(redis, name, entry_id, entry_id)
        if not found:
            raise RunFailed(f"Entry {entry_id} not found in {dead_letters(name)}.")
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
def retry(
    *, url: str | None, vendor: str, stream: str | None, ids: tuple[str, ...], everything: bool
) -> None:
    """Append dead letters to their stream again.

    Entries that still cannot be stored become dead letters again. An entry that cannot be
    appended stays a dead letter, and does not stop the others.

    The exit code is 1 if an entry could not be appended or was not found.
    """
    _apply(
        url,
        _stream(stream, vendor),
        ids=ids,
        everything=everything,
        change=retry_dead,
        done="retried",
    )


@dead.command()
@_stream_options
@_ids
@_all
def drop(
    *, url: str | None, vendor: str, stream: str | None, ids: tuple[str, ...], everything: bool
) -> None:
    """Delete dead letters for good.

    The exit code is 1 if an ID was not found.
    """
    _apply(
        url, _stream(stream, vendor), ids=ids, everything=everything, change=_drop, done="deleted"
    )


async def _drop(redis: RedisConnection, stream: str, ids: Sequence[str]) -> RetryResult:
    return RetryResult(await drop_dead(redis, stream, ids))


def _apply(
    url: str | None,
    stream: str,
    *,
    ids: Sequence[str],
    everything: bool,
    change: Callable[[RedisConnection, str, Sequence[str]], Coroutine[Any, Any, RetryResult]],
    done: str,
) -> None:
    if bool(ids) == everything:
        raise click.UsageError("Give one or more IDs, or --all.")

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        requested, changed, failed = 0, 0, 0
        by_reason: dict[str, list[str]] = {}
        async for page in _pages(redis, stream, ids):
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
    redis: RedisConnection, stream: str, ids: Sequence[str]
) -> AsyncIterator[Sequence[str]]:
    """Yield the given IDs, or those of all dead letters that exist now."""
    if ids:
        unique = list(dict.fromkeys(ids))
        for start in range(0, len(unique), _PAGE):
            yield unique[start : start + _PAGE]
        return
    newest = await redis.execute("XREVRANGE", dead_letters(stream), "+", "-", "COUNT", 1)
    first: str | None = "-"
    # Stop at the entry that is the last one now: entries that fail again are appended after it.
    while newest and first is not None:
        page = await read_dead(redis, stream, first, newest[0][0].decode(), count=_PAGE)
        if not page:
            return
        yield [letter.id for letter in page]
        first = exclusive_start(page[-1].id)


def _stream(stream: str | None, vendor: str) -> str:
    return (stream or telemetry_stream(vendor)).removesuffix(dead_letters(""))


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


def _row(letter: dict[str, Any]) -> tuple[str, ...]:
    attempts = "?" if letter["attempts"] is None else str(letter["attempts"])
    return letter["id"], letter["original_id"] or "?", attempts, letter["reason"]
