"""The command ``repair``, which repairs rows that earlier versions have stored."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from typing import Final

import click
from attrs import asdict, define, field

from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import clock_options, redis_option
from tracker.admin.redis import run_with_redis
from tracker.clock import ClockRule
from tracker.config import ConfigError
from tracker.errors import RunFailed
from tracker.interfaces import SinkDown, SinkUnusable
from tracker.processing.naming import namings_of, read_models
from tracker.reactor import Reactor
from tracker.redis.connection import RedisConnection
from tracker.runtime.run import PLAIN_INTERVAL
from tracker.storage.repair import TABLES, Counts, Names, Repair, State
from tracker.storage.sinks import open_repair
from tracker.untrusted import MAX_LINE, shown
from tracker.wording import counted

#: Seconds between two updates of the progress on a terminal.
_INTERVAL: Final = 0.5


@click.command()
@click.option("--sink", "sink_url", required=True, metavar="URL",
              help="The database: postgresql://… or sqlite:PATH.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only count what would change.")
@click.option("--restart", is_flag=True,
              help="Begin again, instead of continuing an interrupted repair.")  # fmt: skip
@click.option("--names", is_flag=True,
              help="Also name the attributes of all positions anew; requires Redis, for the models "
              "of devices.")  # fmt: skip
@click.option("--names-map", "files", metavar="[VENDOR:]MODEL=FILE", multiple=True,
              help="Use names from a CSV file for a model, as the processor does; may be "
              "repeated.")  # fmt: skip
@click.option("--default-model", metavar="[VENDOR:]MODEL",
              help="Model of devices that are not in devices:models, as for the "
              "processor.")  # fmt: skip
@redis_option
@clock_options
def repair(
    *,
    sink_url: str,
    dry_run: bool,
    restart: bool,
    names: bool,
    files: tuple[str, ...],
    default_model: str | None,
    url: str | None,
    clocks: ClockRule,
) -> None:
    r"""Repair rows stored by earlier versions of Tracker.

    Records that are not places (without a fix, or with a wrong time) are marked. Last positions
    that are not places are replaced by the latest place of the device, and last contacts in the
    future by its latest contact. With --names, attributes are named as this version names them;
    give it the same options as the processors.

    Processors may run meanwhile. If the command is interrupted, run it again with the same
    options: it continues. A second repair changes nothing.

    \b
    Example:
      tracker-admin repair --sink postgresql:///tracker --dry-run
    """
    if files and not names:
        raise click.UsageError("--names-map requires --names.")
    if default_model is not None and not names:
        raise click.UsageError("--default-model requires --names.")
    try:
        namings = namings_of(files, default_model) if names else {}
    except ConfigError as error:
        raise click.UsageError(f"{str(error).rstrip('.')}.") from None
    models = _models(url) if names else {}
    try:
        database = open_repair(sink_url, clocks, dry_run)
    except ValueError as error:
        raise click.UsageError(f"--sink: {error}") from None
    except SinkUnusable as error:
        raise RunFailed(shown(error, MAX_LINE)) from None
    except SinkDown as error:
        raise RunFailed(shown(error, MAX_LINE), ExitCode.UNREACHABLE) from None
    options = {"names": names, "files": sorted(files), "model": default_model, **asdict(clocks)}
    progress = _Progress()
    work = Repair(
        database, clocks, Names(namings, models), options, dry_run=dry_run, report=progress.show
    )
    try:
        if not (dry_run or restart) and work.resume():
            place = shown(work.state.after[0])
            click.echo(f"Continuing in {work.state.table} after device {place}.", err=True)
        counts = work.run()
    except SinkDown as error:
        reason = shown(error, MAX_LINE)
        raise RunFailed(
            f"The database failed: {reason}. Run the command again when the cause is removed.",
            ExitCode.UNREACHABLE,
        ) from None
    finally:
        progress.end()
        database.close()
    _print_result(counts, dry_run)


def _models(url: str | None) -> Mapping[str, str]:
    """Return device → model, from Redis."""
    models: dict[str, str] = {}

    async def request(reactor: Reactor, redis: RedisConnection) -> int:
        models.update(await read_models(redis))
        return 0

    run_with_redis(url, request)
    # The reactor has installed its own handlers, which no longer do anything.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return models


@define
class _Progress:
    """A line on standard error that is updated in place; in a pipe, a line every few seconds."""

    in_place: bool = field(factory=lambda: sys.stderr.isatty())
    begun: float = field(factory=time.monotonic)
    shown: bool = False
    next: float = 0.0
    first: int | None = None  # rows that an interrupted repair had examined

    def show(self, state: State) -> None:
        rows, now = state.counts.rows, time.monotonic()
        if self.first is None:
            self.first = rows
        if now < self.next:
            return
        self.next = now + (_INTERVAL if self.in_place else PLAIN_INTERVAL)
        rate = (rows - self.first) / max(now - self.begun, 0.001)
        text = f"{state.table}: device {shown(state.after[0])}"
        if state.table != TABLES[0]:
            text += f", {counted(rows, 'row', 'rows')}, {rate:,.0f} a second"
        click.echo(f"\r\x1b[K{text}" if self.in_place else text, err=True, nl=not self.in_place)
        self.shown = True

    def end(self) -> None:
        if self.in_place and self.shown:
            click.echo(err=True)


def _print_result(counts: Counts, dry_run: bool) -> None:
    result = (
        f"{counted(counts.rows, 'row')} read, {counts.no_fix:,} without a fix, "
        f"{counts.wrong_clock:,} with a wrong time, {counts.named} named anew, "
        f"{counted(counts.last_positions, 'last position')} wrong"
    )
    if counts.malformed:
        result += f", {counts.malformed:,} malformed and left alone"
    click.echo(f"dry run, nothing changed: {result}" if dry_run else f"repaired: {result}")
