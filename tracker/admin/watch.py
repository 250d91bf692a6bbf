"""``tracker-admin watch``: what a device says and is told, as it happens."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import click
from rich.text import Text
from twisted.internet.defer import DeferredQueue

from tracker.admin.control import run_with_control_port
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import Imei, Seconds, output_option
from tracker.admin.output import console, iso, on_terminal, printable
from tracker.admin.traffic import summary
from tracker.control.client import ControlClient
from tracker.control.commands import MAX_RAW_BYTES, ControlError, NoSuchDevice
from tracker.control.watching import DeviceEvent
from tracker.reactor import Reactor
from tracker.runtime.run import RunFailed
from tracker.untrusted import parse_json

#: → from the device, ← to it.
_ARROWS: Final = {"received": "→", "rejected": "→", "sent": "←"}
_STYLES: Final = {
    "→": "cyan",
    "←": "green",
    "!": "bold red",
    "rejected": "red",
    "unreadable": "red",
}
_END: Final = "end"


@click.command()
@click.argument("imei", type=Imei())
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="End after so many events.")
@click.option(
    "--seconds",
    metavar="N",
    type=Seconds(0, 10_000_000, min_open=True),
    help="End after this time.",
)
@click.option("--raw", is_flag=True, help="Show the bytes in hex, too.")
@output_option
def watch(*, imei: str, count: int | None, seconds: float | None, raw: bool, output: str) -> None:
    """Show what a device says and is told, as it happens.

    That is on this instance. A line has the time, an arrow (→ from the device, ← to it), what
    it is, what it says, and how many bytes it has. With -o json it is an object. When the
    connection to the instance is lost, that is told, and it goes on as soon as it is back.

    \b
    Examples:
      tracker-admin watch 356307042441013
      tracker-admin watch 356307042441013 --count 1 --raw
      tracker-admin -o json watch 356307042441013 --seconds 60 | jq -c 'select(.message == "ack")'
    """

    async def ask(reactor: Reactor, client: ControlClient) -> int:
        log = JsonLines(imei, raw) if output == "json" else Lines(raw)
        return await _watch(reactor, client, imei, count=count, seconds=seconds, log=log)

    run_with_control_port(ask, stay=True)


async def _watch(
    reactor: Reactor,
    client: ControlClient,
    imei: str,
    *,
    count: int | None,
    seconds: float | None,
    log: Lines,
) -> int:
    happened: DeferredQueue[Any] = DeferredQueue()
    client.on_change(happened.put)
    here = await client.watch(imei, happened.put)
    if seconds is not None:
        reactor.callLater(seconds, happened.put, _END)
    click.echo(await _where(client, imei, here), err=True)
    lost, shown = False, 0
    while count is None or shown < count:
        match await happened.get():
            case DeviceEvent() as event:
                log.event(event)
                shown += 1
            case ControlError() as error:
                lost = True
                log.control("lost", str(error))
            case None if lost:
                lost = False
                log.control("back", "")
            case end if end is _END:
                break
    return ExitCode.UNREACHABLE if lost else ExitCode.DONE


async def _where(client: ControlClient, imei: str, here: bool) -> str:
    name = client.greeting.get("instance_id", "")
    if here:
        return f"watching {imei} on {name}"
    try:
        elsewhere = (await client.device(imei))["instance_id"]
    except NoSuchDevice:
        elsewhere = None
    except ControlError as error:
        raise RunFailed(f"control port: {error}", ExitCode.UNREACHABLE) from None
    is_at = f"is connected to {elsewhere}" if elsewhere else "is connected nowhere"
    return f"watching {imei} on {name}: it {is_at} now"


class Lines:
    """One line an event."""

    def __init__(self, raw: bool) -> None:
        self.raw = raw

    def event(self, event: DeviceEvent) -> None:
        """Something has happened on the device's connection."""
        what, text = summary(event.kind, _decoded(event))
        if event.dropped:
            self._line(event.at, "!", "dropped", f"{event.dropped} events before this one")
        digits = event.raw.hex() if self.raw else ""
        self._line(event.at, _ARROWS.get(event.kind, "·"), what, text, _size(event), digits)

    def control(self, kind: str, why: str) -> None:
        """The connection to the instance was lost, or is back."""
        self._line(time.time(), "!", f"control port {kind}", why)

    def _line(self, at: float, arrow: str, what: str, *facts: str) -> None:
        what = printable(what)
        text = "  ".join(fact for fact in map(printable, facts) if fact)
        if not on_terminal():
            click.echo(f"{iso(at)} {arrow} {what:10} {text}".rstrip())
            return
        line = Text.assemble(
            (f"{iso(at)} ", "dim"),
            (arrow, _STYLES.get(arrow, "")),
            " ",
            (f"{what:10}", _STYLES.get(what, "bold")),
            f" {text}",
        )
        console().print(line, soft_wrap=True)


class JsonLines(Lines):
    """One object a line."""

    def __init__(self, device_id: str, raw: bool) -> None:
        super().__init__(raw)
        self._device_id = device_id

    def event(self, event: DeviceEvent) -> None:
        """See Lines."""
        decoded = _decoded(event)
        what, text = summary(event.kind, decoded)
        arrow = _ARROWS.get(event.kind)
        self._object(
            event.at,
            event.kind,
            direction=None if arrow is None else "from" if arrow == "→" else "to",
            message=what,
            summary=text or None,
            bytes=len(event.raw),
            raw=event.raw.hex() if self.raw else None,
            decoded=decoded,
            truncated=event.truncated,
            dropped=event.dropped,
        )

    def control(self, kind: str, why: str) -> None:
        """See Lines."""
        self._object(time.time(), f"control-{kind}", summary=why or None)

    def _object(self, at: float, kind: str, **facts: Any) -> None:
        names = ("direction", "message", "summary", "bytes", "raw", "decoded", "truncated")
        empty = {**dict.fromkeys(names), "dropped": 0}
        about = {"at": iso(at), "device_id": self._device_id, "kind": kind}
        click.echo(json.dumps({**about, **empty, **facts}))


def _size(event: DeviceEvent) -> str:
    size = len(event.raw)
    if not size:
        return ""
    # Of a frame that is too long, only so much has come.
    return f"{size}{'+' if size >= MAX_RAW_BYTES else ''} byte{'' if size == 1 else 's'}"


def _decoded(event: DeviceEvent) -> Any:
    try:
        return parse_json(event.decoded)
    except ValueError:
        return None
