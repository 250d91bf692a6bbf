"""The command ``migrate``, which creates or upgrades the tables of a sink."""

from __future__ import annotations

import click

from tracker.admin.exitcodes import ExitCode
from tracker.errors import RunFailed
from tracker.interfaces import SinkDown, SinkUnusable
from tracker.storage.sinks import KINDS, migrate_sink


@click.command()
@click.option("--sink", "url", metavar="URL", required=True, help=f"The sink: {KINDS}.")
def migrate(url: str) -> None:
    """Create or upgrade the tables of a sink.

    A processor also does this when it starts, unless it has --no-migrate. Put a password into
    PGPASSWORD or ~/.pgpass rather than into the URL: other users can see command lines.
    """
    try:
        before, after = migrate_sink(url)
    except ValueError as error:
        raise click.UsageError(f"--sink: {error}") from None
    except SinkUnusable as error:
        raise RunFailed(str(error)) from None
    except SinkDown as error:
        raise RunFailed(str(error), ExitCode.UNREACHABLE) from None
    if after == 0:
        click.echo("This sink has no tables.")
    elif before == after:
        click.echo(f"Nothing to do (schema version {after}).")
    elif before == 0:
        click.echo(f"Tables created (schema version {after}).")
    else:
        click.echo(f"Tables upgraded from schema version {before} to {after}.")
