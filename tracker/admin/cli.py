"""``tracker-admin``: the operators' command line."""

from __future__ import annotations

from pathlib import Path

import click

from tracker import __version__
from tracker.admin.group import AdminGroup
from tracker.admin.options import CONTROL_VARIABLE, FILE_VARIABLE, FILES, SOCKETS, Options


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


# The modules of the commands are imported when they are needed: most of them are slow to import.
main.add_sections(
    {
        "Look inside": {
            "info": "tracker.admin.queries",
            "connections": "tracker.admin.queries",
            "device": "tracker.admin.queries",
            "device-registry": "tracker.admin.queries",
            "status": "tracker.admin.send",
            "watch": "tracker.admin.watch",
            "lag": "tracker.admin.lag",
            "doctor": "tracker.admin.doctor.command",
        },
        "Operate": {
            "send": "tracker.admin.send",
            "drop": "tracker.admin.operations",
            "drain": "tracker.admin.operations",
            "log-level": "tracker.admin.operations",
            "certs": "tracker.admin.certs",
            "directus": "tracker.admin.directus.command",
            "console-operator": "tracker.admin.consoleoperators",
        },
        "Bytes": {
            "decode": "tracker.admin.decode",
            "encode": "tracker.admin.encode",
            "simulate": "tracker.admin.fleets",
            "demo": "tracker.admin.fleets",
        },
        "Data": {
            "dead": "tracker.admin.dead",
            "replay": "tracker.admin.replay",
            "migrate": "tracker.admin.migrate",
        },
        "This program": {"completion": "tracker.admin.completion"},
    }
)
