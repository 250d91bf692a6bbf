"""The commands ``drop``, ``drain`` and ``log-level``, which operate an instance."""

from __future__ import annotations

from typing import Final

import click

from tracker.admin.confirmation import confirm, require_terminal, yes_option
from tracker.admin.control import instance_of, run_with_control_port, whereabouts
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import DeviceId, Duration, output_option
from tracker.admin.output import Column, Kind, show_record
from tracker.control.client import ControlClient
from tracker.control.commands import NoSuchDevice
from tracker.control.operations import MAX_DRAIN_SECONDS
from tracker.durations import format_duration
from tracker.errors import RunFailed
from tracker.observe.levels import LEVELS
from tracker.reactor import Reactor
from tracker.wording import counted

DROPPED: Final = (Column("device_id"), Column("address"))
DRAINED: Final = (
    Column("instance_id"),
    Column("closed", Kind.NUMBER),
    Column("left", Kind.NUMBER),
)
LEVEL: Final = (Column("namespace"), Column("level"), Column("before"))


@click.command()
@click.argument("device_id", metavar="DEVICE", type=DeviceId())
@output_option
def drop(device_id: str, output: str) -> None:
    r"""Close the connection of a device to the instance.

    No records are lost: the device re-sends unacknowledged records after it reconnects.

    The exit code is 1 if the device is not connected to this instance.

    \b
    Example:
      tracker-admin drop 356307042441013
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        try:
            address = await client.drop_connection(device_id)
        except NoSuchDevice:
            where = await whereabouts(client, device_id)
            raise RunFailed(f"No connection to drop: {device_id} is {where}.") from None
        show_record(DROPPED, {"device_id": device_id, "address": address}, output)
        return ExitCode.DONE

    run_with_control_port(request, choose=instance_of(device_id))


@click.command()
@click.option(
    "--seconds",
    type=Duration(0, MAX_DRAIN_SECONDS, bare=True),
    default="1m",
    show_default=True,
    help="Time over which the connections are closed, one after another.",
)
@yes_option
@output_option
def drain(seconds: float, yes: bool, output: str) -> None:
    r"""Close all device connections and refuse new ones.

    Drain an instance before you stop it, so that its devices reconnect to another one. To end
    the drain, restart the instance.

    The exit code is 1 if some devices are still connected at the end.

    \b
    Example:
      tracker-admin --control unix:/run/tracker/control-eu-1.sock drain --seconds 60s --yes
    """
    require_terminal(yes)
    run_with_control_port(lambda reactor, client: _drain(client, seconds, yes, output))


async def _drain(client: ControlClient, seconds: float, yes: bool, output: str) -> int:
    info = await client.info()
    connections = counted(info["devices"], "connection")
    within = format_duration(seconds)
    question = f"Close {connections} to {info['instance_id']} within {within} and refuse new ones?"
    if not yes and not confirm(question):
        raise RunFailed("Cancelled; no connection was closed.", ExitCode.FAILED)
    drained = await client.drain(seconds)
    show_record(DRAINED, {**drained, "instance_id": info["instance_id"]}, output)
    return ExitCode.FAILED if drained["left"] else ExitCode.DONE


@click.command("log-level")
@click.argument("level", metavar="LEVEL", type=click.Choice(LEVELS))
@click.option(
    "--namespace", metavar="NAME", help="Only this module or package, such as tracker.ingestion."
)
@output_option
def log_level(level: str, namespace: str | None, output: str) -> None:
    r"""Change the log level of the instance.

    LEVEL is debug, info, warn, error or critical. The instance logs events of this level and
    above until it is restarted.

    \b
    Examples:
      tracker-admin log-level debug --namespace tracker.ingestion
      tracker-admin log-level info
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        before = await client.set_log_level(level, namespace)
        record = {"namespace": namespace, "level": level, "before": before}
        show_record(LEVEL, record, output)
        return ExitCode.DONE

    run_with_control_port(request)
