"""``tracker-admin doctor``: the command line."""

from __future__ import annotations

import os
import re
from typing import Any, Final

import click

from tracker.admin.doctor.checkup import examine
from tracker.admin.options import Seconds, output_option, redis_option
from tracker.admin.report import as_json, as_table, exit_status
from tracker.config import ConfigError
from tracker.reactor import Reactor
from tracker.redis.address import redis_address
from tracker.runtime.run import run
from tracker.storage.checks import check_url
from tracker.storage.sinks import KINDS

#: Seconds for the checks of one server.
TIMEOUT: Final = 10.0

_PLACE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})")


class _Place(click.ParamType):  # type: ignore[type-arg]
    name = "HOST:PORT"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        found = _PLACE.fullmatch(value)
        if found is None or not 0 < int(found[3]) < 65_536:
            self.fail(f"{value!r} is not like localhost:5027 or [::1]:5027", param, ctx)
        return found[1] or found[2], int(found[3])


@click.command()
@redis_option
@click.option(
    "--sink",
    "sink_url",
    metavar="URL",
    envvar="TRACKER_SINK",
    help=f"Where positions are stored: {KINDS}.  [default: TRACKER_SINK, else not looked at]",
)
@click.option(
    "--port",
    "ports",
    type=_Place(),
    multiple=True,
    help="Where devices connect to; may be repeated.",
)
@click.option(
    "--timeout",
    type=Seconds(0.1, 3600),
    default=TIMEOUT,
    show_default=True,
    help="Seconds for what each server is asked.",
)
@output_option
def doctor(
    *,
    url: str | None,
    sink_url: str | None,
    ports: tuple[tuple[str, int], ...],
    timeout: float,
    output: str,
) -> None:
    """Check an installation, and say what mends it.

    Looks at Redis, the streams, the database, this machine and the ports, and changes
    nothing. Run it with the environment, and as the user, of the roles.

    The status is 0 when nothing has failed (a warning is no failure), 1 when a check has,
    2 for a command line that is not understood.
    """
    try:
        address = redis_address(url, os.environ)
        if sink_url:
            check_url(sink_url)
    except ConfigError as error:
        raise click.UsageError(f"{'--redis' if url else 'REDIS_URL'}: {error}") from None
    except ValueError as error:
        raise click.UsageError(f"--sink, TRACKER_SINK: {error}") from None

    async def main(reactor: Reactor) -> int:
        findings = await examine(reactor, timeout, address, sink=sink_url, ports=ports)
        click.echo(as_json(findings) if output == "json" else as_table(findings))
        return exit_status(findings)

    run(main)
