"""The command ``watch``, which shows the traffic of a device."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import click
from rich.text import Text
from twisted.internet.defer import DeferredQueue

from tracker.admin.control import instance_of, run_with_control_port, whereabouts
from tracker.admin.exitcodes import ExitCode
from tracker.admin.options import DeviceId, Duration, output_option
from tracker.admin.output import iso, on_terminal, printable, terminal
from tracker.admin.traffic import Summaries
from tracker.admin.vendors import tools
from tracker.control.client import ControlClient
from tracker.control.commands import MAX_RAW_BYTES, ControlError
from tracker.control.watching import DeviceEvent
from tracker.reactor import Reactor
from tracker.untrusted import parse_json
from tracker.vendors.tools import decoder_of
from tracker.wording import counted

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
@click.argument("device_id", metavar="DEVICE", type=DeviceId())
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="Stop after N events.")
@click.option(
    "--seconds",
    type=Duration(0.001, 10_000_000, bare=True),
    help="Stop after this time, such as 30s.",
)
@click.option("--raw", is_flag=True, help="Also show the bytes in hex.")
@output_option
def watch(
    *, device_id: str, count: int | None, seconds: float | None, raw: bool, output: str
) -> None:
    r"""Show the traffic of a device as it happens.

    Only traffic on this instance is shown. Each event is a line with the time, an arrow (→ from
    the device, ← to it), the kind of message, a summary and the size; with -o json it is an
    object. If the connection to the instance is lost, a line reports it, and the command
    continues after it has reconnected.

    \b
    Examples:
      tracker-admin watch 356307042441013
      tracker-admin watch 356307042441013 --count 1 --raw
      tracker-admin -o json watch 356307042441013 --seconds 60s | jq -c 'select(.message == "ack")'
    """

    async def request(reactor: Reactor, client: ControlClient) -> int:
        log = JsonLines(device_id, raw) if output == "json" else Lines(raw)
        return await _watch(reactor, client, device_id, count=count, seconds=seconds, log=log)

    run_with_control_port(request, reconnect=True, choose=instance_of(device_id))


async def _watch(
    reactor: Reactor,
    client: ControlClient,
    device_id: str,
    *,
    count: int | None,
    seconds: float | None,
    log: Lines,
) -> int:
    events: DeferredQueue[Any] = DeferredQueue()
    client.on_change(events.put)
    here = await client.watch(device_id, events.put)
    if seconds is not None:
        reactor.callLater(seconds, events.put, _END)
    click.echo(await _heading(client, device_id, here), err=True)
    lost, shown = False, 0
    while count is None or shown < count:
        match await events.get():
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


async def _heading(client: ControlClient, device_id: str, here: bool) -> str:
    watching = f"Watching {device_id} on {client.greeting.get('instance_id', '')}"
    if here:
        return watching
    return f"{watching} (the device is {await whereabouts(client, device_id)})"


class Lines:
    """Output of each event as a line."""

    def __init__(self, raw: bool) -> None:
        self.raw = raw
        self.summaries = Summaries(list(tools(decoder_of).values()))

    def event(self, event: DeviceEvent) -> None:
        """Print an event of the device's connection."""
        what, text = self.summaries.summary(event.kind, _decoded(event))
        if event.dropped:
            self._line(
                event.at, "!", "dropped", f"{counted(event.dropped, 'event')} before this one"
            )
        digits = event.raw.hex() if self.raw else ""
        self._line(event.at, _ARROWS.get(event.kind, "·"), what, text, _size(event), digits)

    def control(self, kind: str, why: str) -> None:
        """Print that the connection to the instance was lost, or is back."""
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
        terminal().print(line, soft_wrap=True)


class JsonLines(Lines):
    """Output of each event as a JSON object on a line."""

    def __init__(self, device_id: str, raw: bool) -> None:
        super().__init__(raw)
        self._device_id = device_id

    def event(self, event: DeviceEvent) -> None:
        """See Lines."""
        decoded = _decoded(event)
        what, text = self.summaries.summary(event.kind, decoded)
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
    # The instance sends only the first bytes of a longer frame.
    return f"{size:,}+ bytes" if size >= MAX_RAW_BYTES else counted(size, "byte")


def _decoded(event: DeviceEvent) -> Any:
    try:
        return parse_json(event.decoded)
    except ValueError:
        return None
