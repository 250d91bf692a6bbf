"""``tracker-admin``: the operators' command line."""

from __future__ import annotations

from pathlib import Path

import click

from tracker import __version__
from tracker.control.admin.completion import completion
from tracker.control.admin.group import AdminGroup
from tracker.control.admin.look import connections, device, info, registry
from tracker.control.admin.operate import drain, drop, log_level
from tracker.control.admin.options import CONTROL_VARIABLE, FILE_VARIABLE, FILES, SOCKETS, Options
from tracker.control.admin.send import send, status
from tracker.control.admin.watch import watch
from tracker.control.certs import certs
from tracker.control.dead import dead
from tracker.control.decode import decode
from tracker.control.directus.command import directus
from tracker.control.doctor.command import doctor
from tracker.control.encode import encode
from tracker.control.fleets import demo, simulate
from tracker.control.lag import lag
from tracker.control.migrate import migrate
from tracker.control.operators import console_operator
from tracker.control.replay import replay


@click.group(cls=AdminGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tracker-admin")
@click.option(
    "--control",
    metavar="ENDPOINT",
    help="The control port of an instance: unix:PATH, ssl:HOST:PORT:privateKey=FILE:"
    f"certKey=FILE:caCert=FILE or tcp:HOST:PORT.  [default: {CONTROL_VARIABLE}, else as the file "
    f"says, else the one socket in {SOCKETS}]",
)
@click.option(
    "--config",
    "file",
    envvar=FILE_VARIABLE,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with control and redis under [tracker-admin].  [default: "
    f"{FILE_VARIABLE}, else {' or '.join(FILES)} if there]",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How results are shown.",
)
@click.pass_context
def main(ctx: click.Context, control: str | None, file: Path | None, output: str) -> None:
    """Look after Tracker, the telemetry plane of a GPS tracking platform.

    \b
    Examples:
      tracker-admin --control unix:/run/tracker/control-eu-1.sock info
      tracker-admin send 356307042441013 getinfo
    """
    ctx.obj = Options(control, file, output)


main.add_sections(
    {
        "Look inside": (
            info,
            connections,
            device,
            registry,
            status,
            watch,
            lag,
            doctor,
        ),
        "Operate": (
            send,
            drop,
            drain,
            log_level,
            certs,
            directus,
            console_operator,
        ),
        "Bytes": (
            decode,
            encode,
            simulate,
            demo,
        ),
        "Data": (
            dead,
            replay,
            migrate,
        ),
        "This program": (completion,),
    }
)
