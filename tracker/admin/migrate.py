"""``tracker-admin migrate``: the tables of a sink."""

from __future__ import annotations

import click

from tracker.interfaces import SinkUnusable
from tracker.storage.sinks import KINDS, migrate_sink


@click.command()
@click.option("--sink", "url", metavar="URL", required=True, help=f"The sink: {KINDS}.")
def migrate(url: str) -> None:
    """Make the tables of a sink, or upgrade them.

    A processor does so by itself when it starts, unless it is given --no-migrate. A
    password is better left to PGPASSWORD or ~/.pgpass: other users can see command lines.
    """
    try:
        before, after = migrate_sink(url)
    except ValueError as error:
        raise click.UsageError(f"--sink: {error}") from None
    except SinkUnusable as error:
        raise click.ClickException(str(error)) from None
    if after == 0:
        click.echo("this sink has no tables")
    elif before == after:
        click.echo(f"schema {after}: nothing to do")
    else:
        click.echo(f"schema {before} -> {after}")
