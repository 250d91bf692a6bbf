"""``tracker-admin``: the operators' command line."""

from __future__ import annotations

import click

from tracker import __version__
from tracker.control.certs import certs
from tracker.control.dead import dead
from tracker.control.decode import decode
from tracker.control.directus.command import directus
from tracker.control.doctor.command import doctor
from tracker.control.encode import encode
from tracker.control.fleets import demo, simulate
from tracker.control.lag import lag
from tracker.control.migrate import migrate
from tracker.control.replay import replay


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tracker-admin")
def main() -> None:
    """Look after Tracker, the telemetry plane of a GPS tracking platform."""


for command in (
    decode,
    encode,
    simulate,
    demo,
    lag,
    dead,
    replay,
    migrate,
    certs,
    doctor,
    directus,
):
    main.add_command(command)
