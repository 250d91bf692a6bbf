"""The command line of ``doctor``."""

from __future__ import annotations

import os
import re
from typing import Any, Final

import click

from tracker.admin.doctor.checkup import examine
from tracker.admin.options import Duration, output_option, redis_option
from tracker.admin.report import as_json, as_table, exit_code
from tracker.config import ConfigError
from tracker.durations import format_duration
from tracker.reactor import Reactor
from tracker.redis.address import redis_address
from tracker.runtime.run import run
from tracker.storage.checks import check_url
from tracker.storage.sinks import KINDS

#: Default of the time limit for the checks of one server, in seconds.
TIMEOUT: Final = 10.0

_HOST_AND_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})")


class _HostAndPort(click.ParamType):  # type: ignore[type-arg]
    name = "HOST:PORT"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int]:
        found = _HOST_AND_PORT.fullmatch(value.removeprefix("tcp:"))
        if found is None or not 0 < int(found[3]) < 65_536:
            self.fail(f"{value!r} is not an address like localhost:5027 or [::1]:5027.", param, ctx)
        return found[1] or found[2], int(found[3])


@click.command()
@redis_option
@click.option(
    "--sink",
    "sink_url",
    metavar="URL",
    envvar="TRACKER_SINK",
    help=f"The sink to check: {KINDS}.  [default: TRACKER_SINK, or none]",
)
@click.option(
    "--port",
    "ports",
    type=_HostAndPort(),
    multiple=True,
    help="A port that devices connect to; may be repeated.",
)
@click.option(
    "--timeout",
    type=Duration(0.1, 3600, bare=True),
    default=format_duration(TIMEOUT),
    show_default=True,
    help="Time for the checks of each server.",
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
    """Check an installation and suggest fixes.

    Checks Redis, the streams, the database, this machine and the ports. Nothing is changed. Run
    it as the user, and with the environment, of the roles.

    The exit code is 1 if a check failed, and 0 otherwise; warnings are not failures.
    """
    try:
        address = redis_address(url, os.environ)
        if sink_url:
            check_url(sink_url)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    except ValueError as error:
        raise click.UsageError(f"--sink or TRACKER_SINK: {error}") from None

    async def main(reactor: Reactor) -> int:
        findings = await examine(reactor, timeout, address, sink=sink_url, ports=ports)
        click.echo(as_json(findings) if output == "json" else as_table(findings))
        return exit_code(findings)

    run(main)
