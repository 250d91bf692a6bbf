"""The commands ``send`` and ``status``, for commands to devices."""

from __future__ import annotations

import sys
from typing import Final
from uuid import uuid4

import click

from tracker.admin.control import any_instance, run_with_control_port
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import Duration, HexBytes, Imei, output_option
from tracker.admin.output import Column, Kind, show_record
from tracker.command import Status
from tracker.control.client import ControlClient
from tracker.control.commands import NoSuchCommand, RedisUnavailable
from tracker.control.connection import NotConnected
from tracker.errors import RunFailed
from tracker.reactor import Reactor

STATUS: Final = (
    Column("command_id"),
    Column("device_id"),
    Column("instance_id"),
    Column("status"),
    Column("reason"),
    Column("response"),
    Column("truncated"),
    Column("at", Kind.TIME),
)
_FAILURES: Final = (Status.REJECTED, Status.FAILED, Status.EXPIRED)


_UNKNOWN: Final = (
    "Unknown command ID. It was never sent, ended long ago, or is still queued elsewhere; add "
    "--device IMEI to look there."
)
_UNKNOWN_ON_DEVICE: Final = (
    "Unknown command ID. It was never sent to this device, or ended long ago."
)


@click.command()
@click.argument("imei", type=Imei())
@click.argument("text", required=False)
@click.option(
    "--hex",
    "content",
    type=HexBytes(),
    metavar="HEX",
    help="Send these bytes instead of a text, such as 0A0BFF or 0A:0B:FF.",
)
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Wait for the final status of the command.",
)
@click.option(
    "--codec",
    type=click.Choice(["12", "14"]),
    help="Codec of the command.  [default: the vendor's]",
)
@click.option(
    "--expires",
    type=Duration(),
    default="5m",
    show_default=True,
    help="Give up if the command has not been sent within this time.",
)
@click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="Time to wait for the answer after the command was sent.",
)
@click.option(
    "--offline",
    type=click.Choice(["wait", "fail"]),
    default="wait",
    show_default=True,
    help="What to do if the device is offline: wait, or fail at once.",
)
@click.option(
    "--id",
    "command_id",
    metavar="ID",
    help="Command ID. The same ID is never sent twice.  [default: generated]",
)
@output_option
def send(
    *,
    imei: str,
    text: str | None,
    content: bytes | None,
    wait: bool,
    codec: str | None,
    expires: float,
    timeout: float,
    offline: str,
    command_id: str | None,
    output: str,
) -> None:
    r"""Send a command to a device connected to any instance.

    TEXT is the command. If TEXT is -, the command is read from standard input; a final line break
    is removed. With --hex the device receives exactly the given bytes.

    The exit code is 0 if the device answered, and 1 if the command was rejected, failed or
    expired. With --no-wait it is 0 as soon as the command is queued. Ctrl-C stops waiting; the
    command stays queued.

    \b
    Examples:
      tracker-admin send 356307042441013 getinfo
      tracker-admin -o json send 356307042441013 getver | jq -r .response
      tracker-admin send 356307042441013 --hex 0A0BFF
      tracker-admin send 356307042441013 cpureset --no-wait --expires 24h --id reset-7
    """
    name = command_id or str(uuid4())
    command = _command(text, content)

    async def request(reactor: Reactor, client: ControlClient) -> int:
        if wait and sys.stderr.isatty():
            click.echo(
                f"Waiting for {name} (Ctrl-C stops waiting; the command stays queued)", err=True
            )
        try:
            sent = await client.send_command(
                imei,
                command,
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
            raise RunFailed(
                f"The status of the command is unknown: {error}. "
                f"Check it with: tracker-admin status {name} --device {imei}",
                ExitCode.UNREACHABLE,
            ) from None
        show_record(STATUS, {**sent, "device_id": imei}, output)
        answered = sent["status"] == Status.RESPONDED
        if answered or (not wait and sent["status"] not in _FAILURES):
            return ExitCode.DONE
        return ExitCode.FAILED

    run_with_control_port(request, choose=any_instance)


@click.command()
@click.argument("command_id")
@click.option(
    "--device", "imei", type=Imei(), help="Also search the commands queued for this device."
)
@output_option
def status(command_id: str, imei: str | None, output: str) -> None:
    r"""Show the status of a command.

    The exit code is 0 if the command is found, whatever its status, and 1 if it is not.

    \b
    Example:
      tracker-admin status reset-7 --device 356307042441013
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        try:
            found = await client.command_status(command_id, imei)
        except NoSuchCommand:
            raise RunFailed(_UNKNOWN_ON_DEVICE if imei else _UNKNOWN) from None
        show_record(STATUS, {**found, "device_id": imei}, output)
        return ExitCode.DONE

    run_with_control_port(request, choose=any_instance)


def _command(text: str | None, content: bytes | None) -> str | bytes:
    if text is not None and content is not None:
        raise click.UsageError("TEXT and --hex exclude each other.")
    if content is not None:
        return content
    if text is None:
        raise click.UsageError("Missing argument 'TEXT'; for bytes, give --hex instead.")
    return _from_stdin() if text == "-" else text


def _from_stdin() -> str:
    content = sys.stdin.buffer.read()
    try:
        return content.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise click.UsageError("Standard input is not UTF-8; send bytes with --hex.") from None
