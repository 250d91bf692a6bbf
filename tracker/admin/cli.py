"""The command line for operators, ``tracker-admin``.

Modules are imported on demand: by a command those that it needs, by ``--version`` only click.
"""

from __future__ import annotations

import click

from tracker import __version__
from tracker.admin.group import AdminGroup
from tracker.admin.variables import CONTROL_VARIABLE, FILE_VARIABLE, FILES


@click.group(
    cls=AdminGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed or not found, 2 bad usage, 3 a server cannot be reached "
    "or used, 4 not permitted.",
)
@click.version_option(__version__, prog_name="tracker-admin")
@click.option(
    "--control",
    metavar="ENDPOINT",
    help="Control port of an instance: unix:PATH, ssl:HOST:PORT:privateKey=FILE:"
    f"certKey=FILE:caCert=FILE or tcp:HOST:PORT.  [default: {CONTROL_VARIABLE}, or control in the "
    "configuration file, or the instances on this machine]",
)
@click.option(
    "--config",
    "file",
    envvar=FILE_VARIABLE,
    type=click.Path(exists=True, dir_okay=False),
    help="Configuration file, with the keys control and redis in the section [tracker-admin].  "
    f"[default: {FILE_VARIABLE}, or the first that exists of {' and '.join(FILES)}]",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Format of the results.",
)
@click.pass_context
def main(ctx: click.Context, control: str | None, file: str | None, output: str) -> None:
    r"""Operate Tracker, the telemetry plane of a GPS tracking platform.

    \b
    Examples:
      tracker-admin --control unix:/run/tracker/control-eu-1.sock info
      tracker-admin send 356307042441013 getinfo
    """
    from pathlib import Path

    from tracker.admin.options import Options

    ctx.obj = Options(control, None if file is None else Path(file), output)


main.add_sections(
    {
        "Inspect": {
            "info": "tracker.admin.queries",
            "connections": "tracker.admin.queries",
            "device": "tracker.admin.queries",
            "device-registry": "tracker.admin.queries",
            "status": "tracker.admin.send",
            "watch": "tracker.admin.watch",
            "lag": "tracker.admin.lag",
            "positions": "tracker.admin.positions",
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
        "Devices and frames": {
            "decode": "tracker.admin.decode",
            "encode": "tracker.admin.encode",
            "simulate": "tracker.admin.fleets",
            "demo": "tracker.admin.fleets",
        },
        "Data": {
            "dead": "tracker.admin.dead",
            "replay": "tracker.admin.replay",
            "skipped": "tracker.admin.skipped",
            "streams": "tracker.admin.streams",
            "migrate": "tracker.admin.migrate",
            "repair": "tracker.admin.repair",
        },
        "Shell": {"completion": "tracker.admin.completion"},
    }
)
