"""``tracker-admin replay``: entries that are still in a stream, through a sink once more."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from attrs import define, field

from tracker import config
from tracker.admin.options import redis_option
from tracker.admin.redis import configured_streams, run_with_redis
from tracker.interfaces import (
    Batch,
    BatchRefused,
    IPositionSink,
    SinkTimedOut,
    SinkUnusable,
    StoredPosition,
)
from tracker.log.entries import Delivered, exclusive_start
from tracker.log.redis.ranges import read_range
from tracker.position import BadEntry
from tracker.processing.taking import stored_position
from tracker.reactor import Reactor
from tracker.redis.connection import RedisConnection
from tracker.runtime.run import RunFailed
from tracker.storage.sinks import make_sink
from tracker.untrusted import MAX_LINE, shown

_PAGE: Final = 1000
#: Bad entries that are shown.
_SHOWN: Final = 20
#: Eight digits may be a date, 20261122, and are no ID that a clock has made since 1970.
_ID: Final = re.compile(r"(?!(?:19|20)[0-9]{6}$)[0-9]{1,20}(-[0-9]{1,20})?")


class _Place(click.ParamType):  # type: ignore[type-arg]
    """A time or an ID."""

    name = "TIME|ID"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        if _ID.fullmatch(value):
            return value
        try:
            if value.isdigit():
                raise ValueError(value)
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r}: neither like 2026-11-22T10:00:00Z nor an ID", param, ctx)
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return str(max(0, round(time.timestamp() * 1000)))


@click.command()
@redis_option
@click.option("--stream", required=True, metavar="NAME", help="The stream.")
@click.option("--from", "first", type=_Place(), default="0",
              help="The first entry: when it was appended (UTC unless it says otherwise), or its "
              "ID.  [default: the beginning]")  # fmt: skip
@click.option("--to", "last", type=_Place(), help="The last one.  [default: the last there is now]")
@click.option("--sink", "sink_url", required=True, metavar="URL", help="As for process.")
def replay(*, url: str | None, stream: str, first: str, last: str | None, sink_url: str) -> None:
    """Store entries that are still in a stream once more.

    It reads outside of any group, and moves no checkpoint; what the sink has already it
    leaves alone. A time means a whole millisecond. Bad entries are counted and shown; the
    status is 1 when there were any.

    \b
    Example:
      tracker-admin replay --stream telemetry:teltonika --from 2026-11-22T10:00:00Z \\
        --sink sqlite:/var/lib/tracker/positions.sqlite
    """

    async def ask(reactor: Reactor, redis: RedisConnection) -> int:
        vendor = configured_streams().get(stream, config.PINNED_VENDOR)
        ends = await _ends(redis, stream, first, last)
        try:
            sink = make_sink(reactor, sink_url)
        except ValueError as error:
            raise click.UsageError(f"--sink: {error}") from None
        outcome = Replay(sink, vendor, sink_url == "jsonlines:-")
        try:
            await _open(sink)
            if ends is not None:
                await _replay(redis, stream, *ends, outcome=outcome)
        finally:
            await sink.close()
        outcome.tell()
        return 1 if outcome.bad else 0

    run_with_redis(url, ask)


@define
class Replay:
    """Stores entries, and counts the results."""

    sink: IPositionSink
    vendor: str
    to_stdout: bool = False
    """True if the sink writes to standard output."""
    read: int = 0
    new: int = 0
    known: int = 0
    bad: int = 0
    complaints: list[str] = field(factory=list)

    async def store(self, entries: Sequence[Delivered]) -> None:
        """Store the entries that are positions.

        :raises RunFailed: if the sink fails for another reason than the entries.
        """
        self.read += len(entries)
        rows = []
        for entry in entries:
            try:
                rows.append((entry.id, stored_position(entry, self.vendor)))
            except BadEntry as error:
                self._complain(entry.id, str(error))
            except Exception as error:  # noqa: BLE001 - one entry must not stop all others
                self._complain(entry.id, repr(error))
        await self._store(rows)

    async def _store(self, rows: Sequence[tuple[str, StoredPosition]]) -> None:
        if not rows:
            return
        try:
            new = await self.sink.store(Batch([stored for _, stored in rows], {}))
        except (BatchRefused, SinkTimedOut) as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                await self._store(rows[:middle])
                await self._store(rows[middle:])
            elif isinstance(error, BatchRefused):
                self._complain(rows[0][0], f"refused by the sink: {error}")
            else:
                raise _failed(error, rows[0][0]) from None
        except Exception as error:  # noqa: BLE001 - each sink fails in its own way
            raise _failed(error, rows[0][0]) from None
        else:
            self.new += new
            self.known += len(rows) - new

    def _complain(self, entry_id: str, why: str) -> None:
        self.bad += 1
        if len(self.complaints) < _SHOWN:
            self.complaints.append(f"{entry_id}: {shown(why)}")

    def tell(self) -> None:
        """Print the results."""
        for complaint in self.complaints:
            click.echo(complaint, err=True)
        if self.bad > len(self.complaints):
            click.echo(f"and {self.bad - len(self.complaints)} more bad ones", err=True)
        told = f"replay: {self.read} read, {self.new} new, {self.known} known, {self.bad} bad"
        click.echo(told, err=self.to_stdout)


def _failed(error: Exception, entry_id: str) -> RunFailed:
    why = shown(error, MAX_LINE)
    return RunFailed(f"the sink does not store: {why} (go on --from {entry_id})")


async def _open(sink: IPositionSink) -> None:
    try:
        await sink.open()
    except SinkUnusable as error:
        raise RunFailed(str(error)) from None
    except Exception as error:  # noqa: BLE001 - each sink fails in its own way
        raise RunFailed(f"the sink cannot be opened: {shown(error, MAX_LINE)}") from None


async def _ends(
    redis: RedisConnection, stream: str, first: str, last: str | None
) -> tuple[str, str] | None:
    """Return the IDs of the first and last entry of the range; None if it is empty."""
    if not await redis.execute("EXISTS", stream):
        raise RunFailed(f"there is no stream {stream}")
    ends = [
        await redis.execute("XRANGE", stream, first, last or "+", "COUNT", 1),
        await redis.execute("XREVRANGE", stream, last or "+", first, "COUNT", 1),
    ]
    if not all(ends):
        return None
    low, high = (entries[0][0].decode() for entries in ends)
    return low, high


async def _replay(
    redis: RedisConnection, stream: str, first: str, last: str, *, outcome: Replay
) -> None:
    start = _milliseconds(first)
    # By time: how many entries there are between two IDs, Redis cannot tell.
    with click.progressbar(
        length=_milliseconds(last) - start + 1,
        label="replay",
        show_pos=False,
        item_show_func=lambda shown: shown,
        file=sys.stderr,
    ) as bar:
        done, following = 0, first
        while entries := await read_range(redis, stream, following, last, count=_PAGE):
            await outcome.store(entries)
            reached = _milliseconds(entries[-1].id) - start + 1
            bar.update(reached - done, f"{outcome.read:,} read")
            further = exclusive_start(entries[-1].id)
            if further is None:
                break
            done, following = reached, further


def _milliseconds(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])
