"""``tracker-admin``: the operators' command line."""

from __future__ import annotations

from pathlib import Path

import click

from tracker import __version__
from tracker.admin.certs import certs
from tracker.admin.completion import completion
from tracker.admin.dead import dead
from tracker.admin.decode import decode
from tracker.admin.directus.command import directus
from tracker.admin.doctor.command import doctor
from tracker.admin.encode import encode
from tracker.admin.fleets import demo, simulate
from tracker.admin.group import AdminGroup
from tracker.admin.lag import lag
from tracker.admin.look import connections, device, info, registry
from tracker.admin.migrate import migrate
from tracker.admin.operate import drain, drop, log_level
from tracker.admin.operators import console_operator
from tracker.admin.options import CONTROL_VARIABLE, FILE_VARIABLE, FILES, SOCKETS, Options
from tracker.admin.replay import replay
from tracker.admin.send import send, status
from tracker.admin.watch import watch


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
