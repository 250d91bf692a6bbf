"""The command ``replay``, which stores retained entries of a stream once more."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

import click
from attrs import define, field

from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import clock_options, redis_option
from tracker.admin.redis import no_such_stream, run_with_redis, stream_vendor
from tracker.admin.vendors import check_vendor, vendor_names
from tracker.clock import DEFAULT_CLOCKS, ClockRule
from tracker.errors import Refused, RunFailed
from tracker.interfaces import (
    Batch,
    BatchRefused,
    IPositionSink,
    SinkDown,
    SinkTimedOut,
    SinkUnusable,
    StoredPosition,
)
from tracker.keys import PROCESSOR_GROUP
from tracker.log.entries import StreamEntry, exclusive_start
from tracker.log.redis.checkpoint import Run, Skipped, find_skipped, record_finished
from tracker.log.redis.ranges import read_range
from tracker.position import LAST_TIME, BadEntry, iso_milliseconds
from tracker.processing.decoding import stored_position
from tracker.reactor import Reactor
from tracker.redis.connection import RedisConnection
from tracker.storage.sinks import KINDS, make_sink
from tracker.untrusted import MAX_LINE, listed, shown
from tracker.wording import counted

_PAGE: Final = 1000
#: Number of malformed entries that are shown.
_SHOWN: Final = 20
#: Eight digits may be a date, 20261122: as milliseconds since 1970 they would be in January 1970.
_ID: Final = re.compile(r"(?!(?:19|20)[0-9]{6}$)[0-9]{1,20}(-[0-9]{1,20})?")


class _TimeOrId(click.ParamType):  # type: ignore[type-arg]
    name = "TIME|ID"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        if _ID.fullmatch(value):
            return value
        try:
            if value.isdigit():
                raise ValueError(value)
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a time like 2026-11-22T10:00:00Z nor an entry ID.",
                param,
                ctx,
            )
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        return str(max(0, round(time.timestamp() * 1000)))


@click.command()
@redis_option
@click.option("--stream", required=True, metavar="NAME", help="Name of the stream.")
@click.option("--vendor", metavar="NAME", help="Vendor of the positions.  "
              "[default: as the stream's name or first entry tells]")  # fmt: skip
@click.option("--from", "first", type=_TimeOrId(), default="0",
              help="First entry: the time when it was appended (UTC unless it has an offset), or "
              "its ID.  [default: the first entry]")  # fmt: skip
@click.option("--to", "last", type=_TimeOrId(),
              help="Last entry, in the same form.  [default: the last entry now]")  # fmt: skip
@click.option("--sink", "sink_url", required=True, metavar="URL", help=f"The sink: {KINDS}.")
@clock_options
def replay(
    *,
    url: str | None,
    stream: str,
    vendor: str | None,
    first: str,
    last: str | None,
    sink_url: str,
    clocks: ClockRule,
) -> None:
    r"""Store the entries of a stream once more.

    Consumer groups and the sink's checkpoints do not change. Positions that the sink already has
    do not change either. With a time, --to includes all entries of that millisecond.

    Skipped entries (see "skipped --help") that are stored are settled: the janitor may trim them.
    This requires a sink into which processors have stored entries of the stream.

    Malformed entries are counted, and the first ones are shown. The exit code is 1 if an entry is
    malformed.

    \b
    Example:
      tracker-admin replay --stream telemetry:teltonika --from 2026-11-22T10:00:00Z \
        --sink sqlite:/var/lib/tracker/positions.sqlite
    """
    if vendor is not None:
        check_vendor(vendor)

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        ends = await _ends(redis, stream, first, last)
        its_vendor = await _vendor(redis, stream, vendor)
        try:
            sink = make_sink(reactor, sink_url, clocks=clocks)
        except ValueError as error:
            raise click.UsageError(f"--sink: {error}") from None
        now = iso_milliseconds(int(reactor.seconds() * 1000))
        replayed = Replay(sink, its_vendor, sink_url == "jsonlines:-", clocks=clocks, now=now)
        try:
            await _open(sink)
            if ends is not None:
                settlement = await _settlement(redis, stream, sink)
                if settlement is not None:
                    replayed.settle = settlement.settle
                await _replay(redis, stream, *ends, replayed=replayed)
        finally:
            await sink.close()
        replayed.print_result()
        if ends is not None and settlement is not None:
            await settlement.print_result()
        return 1 if replayed.bad else 0

    run_with_redis(url, request)


async def _vendor(redis: RedisConnection, stream: str, given: str | None) -> str:
    """Return the vendor of the positions in a stream.

    :param given: the value of ``--vendor``.
    :raises click.UsageError: if it is unknown, or another one than the stream tells.
    """
    found = await stream_vendor(redis, stream)
    if found is None and given is None:
        names = listed(vendor_names())
        raise click.UsageError(f"Vendor of stream {shown(stream)} unknown. Add --vendor: {names}.")
    if None not in (found, given) and found != given:
        raise click.UsageError(
            f"--vendor {given}: the positions in {shown(stream)} are of {found}."
        )
    return found or given or ""


@define
class _Settlement:
    """Settles the skipped entries of a stream that are stored."""

    redis: RedisConnection
    stream: str
    before: Skipped

    async def settle(self, runs: Sequence[Run]) -> None:
        """Record stored entries in the checkpoint of the stream."""
        await record_finished(self.redis, self.stream, runs)

    async def print_result(self) -> None:
        """Print on standard error how many entries are settled, and how many are left."""
        after = await find_skipped(self.redis, self.stream)
        if not self.before.complete:
            # The search ends before all are found, so the difference of the numbers says nothing.
            click.echo(
                f"Skipped entries that were stored are settled; {after.count} left", err=True
            )
            return
        settled = max(0, self.before.entries - after.entries)
        click.echo(
            f"{counted(settled, 'skipped entry', 'skipped entries')} settled, {after.count} left",
            err=True,
        )


async def _settlement(
    redis: RedisConnection, stream: str, sink: IPositionSink
) -> _Settlement | None:
    """Return the settlement of skipped entries; None if none may be settled."""
    try:
        before = await find_skipped(redis, stream)
    except Refused as error:
        click.echo(f"Skipped entries are not settled: {error}.", err=True)
        return None
    if not before.ranges:
        return None
    if await sink.checkpoint(stream, PROCESSOR_GROUP) is None:
        click.echo(
            "Skipped entries are not settled: no processor has stored entries of this stream in "
            "this sink.",
            err=True,
        )
        return None
    return _Settlement(redis, stream, before)


@define
class Replay:
    """Stores entries, and counts those that were read, new, known and malformed."""

    sink: IPositionSink
    vendor: str
    to_stdout: bool = False
    """True if the sink writes to standard output."""
    clocks: ClockRule = DEFAULT_CLOCKS
    now: str = LAST_TIME
    read: int = 0
    new: int = 0
    known: int = 0
    bad: int = 0
    errors: list[str] = field(factory=list)
    settle: Callable[[Sequence[Run]], Awaitable[None]] | None = None
    """Called with the runs of stored entries."""
    _rejected: set[str] = field(factory=set, init=False)
    """The IDs of malformed entries among the last ones."""

    async def store(self, entries: Sequence[StreamEntry]) -> None:
        """Store the entries that are positions.

        :raises RunFailed: if the sink fails for a reason other than an entry.
        """
        self.read += len(entries)
        self._rejected.clear()
        rows = []
        for entry in entries:
            try:
                stored = stored_position(entry, self.vendor, self.clocks, self.now)
                rows.append((entry.id, stored))
            except BadEntry as error:
                self._reject(entry.id, str(error))
            except Exception as error:  # noqa: BLE001 - one entry must not stop all others
                self._reject(entry.id, repr(error))
        await self._store(rows)
        runs = _runs([entry.id for entry in entries], self._rejected)
        if self.settle is not None and runs:
            await self.settle(runs)

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
                self._reject(rows[0][0], f"refused by the sink: {error}")
            else:
                raise _failed(error, rows[0][0]) from None
        except Exception as error:  # noqa: BLE001 - each sink fails in its own way
            raise _failed(error, rows[0][0]) from None
        else:
            self.new += new
            self.known += len(rows) - new

    def _reject(self, entry_id: str, reason: str) -> None:
        self.bad += 1
        self._rejected.add(entry_id)
        if len(self.errors) < _SHOWN:
            self.errors.append(f"{entry_id}: {shown(reason)}")

    def print_result(self) -> None:
        """Print the counts, and on standard error the first malformed entries."""
        for error in self.errors:
            click.echo(error, err=True)
        if more := self.bad - len(self.errors):
            entries = counted(more, "more malformed entry", "more malformed entries")
            click.echo(f"{entries} not shown", err=True)
        result = f"replay: {self.read} read, {self.new} new, {self.known} known, {self.bad} bad"
        click.echo(result, err=self.to_stdout)


def _runs(entry_ids: Iterable[str], rejected: Collection[str]) -> list[Run]:
    """Return the runs of neighbouring entries without the rejected ones."""
    groups = groupby(entry_ids, key=lambda entry_id: entry_id in rejected)
    parts = [list(part) for is_rejected, part in groups if not is_rejected]
    return [(part[0], part[-1]) for part in parts]


def _failed(error: Exception, entry_id: str) -> RunFailed:
    reason = shown(error, MAX_LINE)
    code = ExitCode.UNREACHABLE if isinstance(error, SinkDown) else ExitCode.FAILED
    return RunFailed(f"The sink failed: {reason}. Continue with --from {entry_id}.", code)


async def _open(sink: IPositionSink) -> None:
    try:
        await sink.open()
    except SinkUnusable as error:
        raise RunFailed(str(error)) from None
    except SinkDown as error:
        raise RunFailed(shown(error, MAX_LINE), ExitCode.UNREACHABLE) from None
    except Exception as error:  # noqa: BLE001 - each sink fails in its own way
        raise RunFailed(f"cannot open the sink: {shown(error, MAX_LINE)}") from None


async def _ends(
    redis: RedisConnection, stream: str, first: str, last: str | None
) -> tuple[str, str] | None:
    """Return the IDs of the first and last entry of the range; None if it is empty."""
    if not await redis.execute("EXISTS", stream):
        raise await no_such_stream(redis, stream)
    ends = [
        await redis.execute("XRANGE", stream, first, last or "+", "COUNT", 1),
        await redis.execute("XREVRANGE", stream, last or "+", first, "COUNT", 1),
    ]
    if not all(ends):
        return None
    low, high = (entries[0][0].decode() for entries in ends)
    return low, high


async def _replay(
    redis: RedisConnection, stream: str, first: str, last: str, *, replayed: Replay
) -> None:
    start = _milliseconds(first)
    # Progress is measured in time, since Redis cannot count the entries between two IDs.
    with click.progressbar(
        length=_milliseconds(last) - start + 1,
        label="Replaying",
        show_pos=False,
        item_show_func=lambda shown: shown,
        file=sys.stderr,
    ) as bar:
        done, following = 0, first
        while entries := await read_range(redis, stream, following, last, count=_PAGE):
            await replayed.store(entries)
            reached = _milliseconds(entries[-1].id) - start + 1
            bar.update(reached - done, f"{replayed.read:,} read")
            further = exclusive_start(entries[-1].id)
            if further is None:
                break
            done, following = reached, further


def _milliseconds(entry_id: str) -> int:
    return int(entry_id.partition("-")[0])
