"""``tracker-admin drop``, ``drain`` and ``log-level``: operating an instance."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from tracker.admin.control import run_with_control_port
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import Imei, Seconds, output_option
from tracker.admin.output import Column, Kind, show_record
from tracker.control.client import ControlClient
from tracker.control.operations import MAX_DRAIN_SECONDS
from tracker.observe.levels import LEVELS
from tracker.reactor import Reactor
from tracker.runtime.run import RunFailed

DROPPED: Final = (Column("device_id"), Column("address"))
DRAINED: Final = (
    Column("instance_id"),
    Column("closed", Kind.NUMBER),
    Column("left", Kind.NUMBER),
)
LEVEL: Final = (Column("namespace"), Column("level"), Column("before"))


@click.command()
@click.argument("imei", type=Imei())
@output_option
def drop(imei: str, output: str) -> None:
    """Close the connection of a device to the instance.

    Nothing is lost: what it was not told of having been received, it sends again when it has
    connected anew. The status is 1 when it is not connected to this instance.

    \b
    Example:
      tracker-admin drop 356307042441013
    """

    async def ask(reactor: Reactor, client: ControlClient) -> int:
        address = await client.drop_connection(imei)
        show_record(DROPPED, {"device_id": imei, "address": address}, output)
        return ExitCode.DONE

    run_with_control_port(ask)


@click.command()
@click.option(
    "--seconds",
    type=Seconds(0, MAX_DRAIN_SECONDS),
    default=60,
    show_default=True,
    help="The time over which connections are closed, one after another.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def drain(seconds: float, yes: bool, output: str) -> None:
    """Let all devices of the instance go, and accept no more.

    To be done before it is stopped, so that they find another one in good time. It cannot be
    undone, other than by starting the instance again. The status is 1 when devices are left at
    the end.

    \b
    Example:
      tracker-admin --control unix:/run/tracker/control-eu-1.sock drain --seconds 60 --yes
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody to ask, as this is no terminal: say --yes")

    run_with_control_port(lambda reactor, client: _drain(client, seconds, yes, output))


async def _drain(client: ControlClient, seconds: float, yes: bool, output: str) -> int:
    told = await client.info()
    question = (
        f"Close {told['devices']} connections to {told['instance_id']} within {seconds:g} s, "
        "and accept no more?"
    )
    if not yes and not _is_sure(question):
        raise RunFailed("nothing was done", ExitCode.NO)
    outcome = await client.drain(seconds)
    show_record(DRAINED, {**outcome, "instance_id": told["instance_id"]}, output)
    return ExitCode.NO if outcome["left"] else ExitCode.DONE


@click.command("log-level")
@click.argument("level", type=click.Choice(LEVELS))
@click.option(
    "--namespace", metavar="NAME", help="Only for this module or package, as tracker.ingestion."
)
@output_option
def log_level(level: str, namespace: str | None, output: str) -> None:
    """Change which events the instance logs.

    Those of this level and above, until it is started again.

    \b
    Examples:
      tracker-admin log-level debug --namespace tracker.ingestion
      tracker-admin log-level info
    """

    async def ask(reactor: Reactor, client: ControlClient) -> int:
        before = await client.set_log_level(level, namespace)
        record = {"namespace": namespace, "level": level, "before": before}
        show_record(LEVEL, record, output)
        return ExitCode.DONE

    run_with_control_port(ask)


def _is_sure(question: str) -> bool:
    with _interruptible():
        return click.confirm(question, err=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C gets through to a question; else the reactor would hear of it after the answer."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
