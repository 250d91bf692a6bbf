"""The command ``positions``, which lists the last position of each device."""

from __future__ import annotations

import os
from typing import Any, Final

import click
from attrs import evolve

from tracker import config
from tracker.admin.control import first_rows, limit_option
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import output_option
from tracker.admin.output import Column, Kind, show_rows
from tracker.config import ConfigError
from tracker.errors import RunFailed
from tracker.reactor import Reactor
from tracker.runtime.run import run
from tracker.storage.reader import LAST, OLD_TABLES, TIMES, QueryFailed
from tracker.storage.sinks import open_reader
from tracker.untrusted import MAX_LINE, shown

_TEXTS: Final = ("device_id", "vendor", "codec", "clock_error")
#: All fields, which are those of JSON.
FIELDS: Final = {
    name: Column(name, Kind.TIME if name in TIMES else Kind.TEXT if name in _TEXTS else Kind.NUMBER)
    for name in LAST
}
#: The columns of a table, which fits into 80 columns of a terminal.
POSITION: Final = (
    FIELDS["device_id"],
    FIELDS["last_contact"],
    evolve(FIELDS["ts"], heading="TIME"),
    FIELDS["latitude"],
    FIELDS["longitude"],
    FIELDS["speed"],
    evolve(FIELDS["satellites"], heading="SATS"),
)


@click.command()
@click.option(
    "--sink",
    metavar="URL",
    help="The database: postgresql://… or sqlite:PATH.  [default: TRACKER_SINK]",
)
@limit_option
@output_option
def positions(*, sink: str | None, limit: int | None, output: str) -> None:
    r"""List the last position of each device, by device ID.

    A position is the latest record with coordinates and a right time. TIME is the time of that
    record, and LAST CONTACT the arrival of the latest record of any kind. Latitude and longitude
    are degrees (WGS 84), speed is in km/h. JSON has further fields.

    \b
    Examples:
      tracker-admin positions --sink sqlite:/var/lib/tracker/positions.sqlite
      tracker-admin -o json positions --sink postgresql:///tracker | jq '.[0]'
    """

    async def main(reactor: Reactor) -> int:
        try:
            url = config.sink_url(sink, os.environ)
        except ConfigError as error:
            raise click.UsageError(f"{str(error).rstrip('.')}.") from None
        try:
            reader = open_reader(reactor, url)
        except ValueError as error:
            raise click.UsageError(f"{'--sink' if sink else 'TRACKER_SINK'}: {error}") from None
        reader.startService()
        try:
            rows = await first_rows(reader.all_devices(), limit)
        except QueryFailed as error:
            raise _failed(error) from None
        finally:
            await reader.stopService()
        columns = tuple(FIELDS.values()) if output == "json" else POSITION
        show_rows(columns, map(_readable, rows), output, empty="No device has reported yet.")
        return 0

    run(main)


def _failed(error: QueryFailed) -> RunFailed:
    reason = shown(error.detail or error, MAX_LINE)
    if str(error) == OLD_TABLES:
        return RunFailed(f"Cannot read positions: {OLD_TABLES} ({reason}).", ExitCode.FAILED)
    return RunFailed(f"Cannot read positions: {reason}.", ExitCode.UNREACHABLE)


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose times are text; SQLite's columns may hold any value."""
    return row | {name: None for name in TIMES if not isinstance(row[name], str)}
