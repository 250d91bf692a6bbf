"""The commands ``send`` and ``status``, for commands to devices."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import click
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from tracker.admin.control import any_instance, run_with_control_port
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import CommandCodec, DeviceId, Duration, HexBytes, output_option
from tracker.admin.output import Column, Kind, show_record
from tracker.command import MAX_TIMEOUT, Reason, Status, parse_time
from tracker.control.client import ControlClient
from tracker.control.commands import (
    FINAL_STATUS_GRACE,
    MAX_EXPIRY,
    WAITING,
    NoSuchCommand,
    RedisUnavailable,
)
from tracker.control.connection import NotConnected
from tracker.durations import format_duration
from tracker.errors import RunFailed
from tracker.position import iso_milliseconds
from tracker.reactor import Reactor

SENT: Final = (
    Column("command_id"),
    Column("device_id"),
    Column("instance_id"),
    Column("status"),
    Column("reason"),
    Column("response"),
    Column("truncated"),
    Column("at", Kind.TIME),
    Column("expires_at", Kind.TIME),
)
STATUS: Final = (*SENT, Column("text"), Column("sender"), Column("sent_at", Kind.TIME))
_FAILURES: Final = (Status.REJECTED, Status.FAILED, Status.EXPIRED)
_FINAL: Final = (Status.RESPONDED, *_FAILURES)
#: Seconds that one request waits for the final status.
_REQUEST_SECONDS: Final = 30.0
#: Seconds between two requests, if the instance does not wait.
_PAUSE: Final = 0.5


#: The warning for an answer of a device that does not know the command.
UNKNOWN_COMMAND: Final = (
    "Warning: the device has answered that it does not know this command. Check its spelling and "
    "whether the model supports it; commands are case-sensitive."
)
_UNKNOWN: Final = (
    "Unknown command ID. It was never sent, ended long ago, or is still queued elsewhere; add "
    "--device DEVICE to look there."
)
_UNKNOWN_ON_DEVICE: Final = (
    "Unknown command ID. It was never sent to this device, or ended long ago."
)


@click.command()
@click.argument("device_id", metavar="DEVICE", type=DeviceId())
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
    type=CommandCodec(),
    help="Codec of the command.  [default: the vendor's]",
)
@click.option(
    "--expires",
    type=Duration(high=MAX_EXPIRY),
    default="5m",
    show_default=True,
    help="Give up if the command has not been sent within this time, at most 366d.",
)
@click.option(
    "--timeout",
    type=Duration(high=MAX_TIMEOUT),
    default="30s",
    show_default=True,
    help="Time to wait for the answer after the command was sent, at most 1d.",
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
    device_id: str,
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
        began = reactor.seconds()
        question = f"tracker-admin status {name} --device {device_id}"
        try:
            sent = await client.send_command(
                device_id,
                command,
                command_id=name,
                codec=codec,
                expires_in=expires,
                timeout=timeout,
                offline=offline,
            )
            if sent["status"] == WAITING:
                until = sent.get("expires_at") or iso_milliseconds(int((began + expires) * 1000))
                click.echo(waiting_notice(device_id, parse_time(until), began, wait=wait), err=True)
            elif wait and sys.stderr.isatty() and sent["status"] not in _FINAL:
                click.echo(
                    f"Waiting for {name} (Ctrl-C stops waiting; the command stays queued)", err=True
                )
            if wait:
                deadline = began + expires + timeout + FINAL_STATUS_GRACE
                sent = await _final_status(
                    reactor, client, {**sent, "device_id": device_id}, deadline
                )
        except (NotConnected, RedisUnavailable) as error:
            if not client.greeting:
                raise
            raise RunFailed(
                f"The status of the command is unknown: {error}. Check it with: {question}",
                ExitCode.UNREACHABLE,
            ) from None
        except CancelledError:  # by Ctrl-C
            click.echo(f"\nCheck the command with: {question}", err=True)
            raise
        show_record(SENT, {**sent, "device_id": device_id}, output)
        _warn_if_unknown(sent)
        answered = sent["status"] == Status.RESPONDED
        if answered or (not wait and sent["status"] not in _FAILURES):
            return ExitCode.DONE
        return ExitCode.FAILED

    run_with_control_port(request, choose=any_instance)


@click.command()
@click.argument("command_id")
@click.option(
    "--device",
    "device_id",
    type=DeviceId(),
    help="Also search the commands queued for this device.",
)
@output_option
def status(command_id: str, device_id: str | None, output: str) -> None:
    r"""Show the status of a command.

    The exit code is 0 if the command is found, whatever its status, and 1 if it is not.

    \b
    Example:
      tracker-admin status reset-7 --device 356307042441013
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        try:
            found = await client.command_status(command_id, device_id)
        except NoSuchCommand:
            raise RunFailed(_UNKNOWN_ON_DEVICE if device_id else _UNKNOWN) from None
        show_record(STATUS, {**found, "device_id": device_id}, output)
        _warn_if_unknown(found)
        return ExitCode.DONE

    run_with_control_port(request, choose=any_instance)


def waiting_notice(device_id: str, expires_at: int, now: float, *, wait: bool) -> str:
    """Return the note that a command waits for its device.

    :param expires_at: its expiry, in milliseconds since 1970.
    :param now: seconds since 1970.
    :param wait: True if the client waits, too.
    """
    until = datetime.fromtimestamp(expires_at / 1000)  # in the time zone of the reader
    today = until.date() == datetime.fromtimestamp(now).date()
    left = format_duration(max(0, round(expires_at / 1000 - now)))
    notice = (
        f"{device_id} is not connected to any instance; the command waits until "
        f"{until:{'%H:%M:%S' if today else '%Y-%m-%d %H:%M:%S'}} ({left})."
    )
    return f"{notice} Ctrl-C stops waiting; the command stays queued." if wait else notice


async def _final_status(
    reactor: Reactor, client: ControlClient, status: dict[str, Any], deadline: float
) -> dict[str, Any]:
    """Return the final status of a command, or the last one known at the deadline.

    :param status: the present one, with ``device_id``.
    """
    command_id, device_id = status["command_id"], status["device_id"]
    while status["status"] not in _FINAL and (left := deadline - reactor.seconds()) > 0:
        began = reactor.seconds()
        with suppress(NoSuchCommand, RedisUnavailable):  # it moves, or Redis restarts
            status = await client.command_status(command_id, device_id, min(left, _REQUEST_SECONDS))
        if reactor.seconds() - began < _PAUSE and status["status"] not in _FINAL:
            await deferLater(reactor, _PAUSE)
    return status


def _warn_if_unknown(status: dict[str, Any]) -> None:
    if status.get("reason") == Reason.UNKNOWN_COMMAND:
        click.echo(UNKNOWN_COMMAND, err=True)


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
