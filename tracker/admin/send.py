"""``tracker-admin send`` and ``status``: a command to a device, and what became of it."""

from __future__ import annotations

import sys
from typing import Final
from uuid import uuid4

import click

from tracker.admin.control import run_with_control_port
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import Duration, Imei, output_option
from tracker.admin.output import Column, Kind, show_record
from tracker.command import Status
from tracker.control.client import ControlClient
from tracker.control.commands import RedisUnavailable
from tracker.control.connection import NotConnected
from tracker.reactor import Reactor
from tracker.runtime.run import RunFailed

FATE: Final = (
    Column("command_id"),
    Column("device_id"),
    Column("instance_id"),
    Column("status"),
    Column("reason"),
    Column("response"),
    Column("truncated"),
    Column("at", Kind.TIME),
)
_BAD_ENDS: Final = (Status.REJECTED, Status.FAILED, Status.EXPIRED)


@click.command()
@click.argument("imei", type=Imei())
@click.argument("text")
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait until it has come to its end: for the device's answer, if all goes well.",
)
@click.option(
    "--codec", type=click.Choice(["12", "14"]), help="How it is sent.  [default: the vendor's]"
)
@click.option(
    "--expires",
    type=Duration(),
    default="5m",
    show_default=True,
    help="How long it may take until it is sent.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="How long an answer is waited for after that.",
)
@click.option(
    "--offline",
    type=click.Choice(["wait", "fail"]),
    default="wait",
    show_default=True,
    help="What becomes of it while the device is connected nowhere.",
)
@click.option(
    "--id", "command_id", metavar="ID", help="What it is called; it is sent once.  [default: made]"
)
@output_option
def send(
    *,
    imei: str,
    text: str,
    wait: bool,
    codec: str | None,
    expires: float,
    timeout: float,
    offline: str,
    command_id: str | None,
    output: str,
) -> None:
    """Send the command TEXT to a device, wherever it is connected.

    With - as TEXT it is read from standard input, as it is, without its last line break.

    The status is 0 when the device has answered, 1 when it has rejected the command, or that
    failed or expired; with --no-wait, 0 as soon as the command is on its way. Ctrl-C ends the
    waiting only.

    \b
    Examples:
      tracker-admin send 356307042441013 getinfo
      tracker-admin -o json send 356307042441013 getver | jq -r .response
      tracker-admin send 356307042441013 cpureset --no-wait --expires 24h --id reset-7
    """
    name = command_id or str(uuid4())
    told = _from_stdin() if text == "-" else text

    async def ask(reactor: Reactor, client: ControlClient) -> int:
        if wait and sys.stderr.isatty():
            click.echo(f"waiting for {name} (Ctrl-C ends the waiting only)", err=True)
        try:
            fate = await client.send_command(
                imei,
                told,
                wait=wait,
                command_id=name,
                codec=codec,
                expires_in=expires,
                timeout=timeout,
                offline=offline,
            )
        except (NotConnected, RedisUnavailable) as error:
            if not client.greeting:
                raise
            later = f"tracker-admin status {name} --device {imei}"
            raise RunFailed(
                f"control port: {error}; what became of it: {later}", ExitCode.UNREACHABLE
            ) from None
        show_record(FATE, {**fate, "device_id": imei}, output)
        ended_well = fate["status"] == Status.RESPONDED
        if ended_well or (not wait and fate["status"] not in _BAD_ENDS):
            return ExitCode.DONE
        return ExitCode.NO

    run_with_control_port(ask)


@click.command()
@click.argument("command_id")
@click.option("--device", "imei", type=Imei(), help="For one that nobody has begun with yet.")
@output_option
def status(command_id: str, imei: str | None, output: str) -> None:
    """Show what has become of a command.

    The status is 0 when something is known of it, whatever that is, and 1 else.

    \b
    Example:
      tracker-admin status reset-7 --device 356307042441013
    """

    async def ask(reactor: Reactor, client: ControlClient) -> int:
        fate = await client.command_status(command_id, imei)
        show_record(FATE, {**fate, "device_id": imei}, output)
        return ExitCode.DONE

    run_with_control_port(ask)


def _from_stdin() -> str:
    content = sys.stdin.buffer.read()
    try:
        return content.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise click.UsageError("standard input: is not UTF-8") from None
