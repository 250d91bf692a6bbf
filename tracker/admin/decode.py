"""``tracker-admin decode``: bytes of a device as JSON, or where they are bad."""

from __future__ import annotations

import re
import sys

import click

from tracker.outcomes import Fatal
from tracker.vendors.teltonika.dictionary import load
from tracker.vendors.teltonika.document import document, render
from tracker.vendors.teltonika.frames import Kind, decode_frames

_NO_HEX = re.compile(r"[^0-9a-fA-F\s:]")


@click.command()
@click.argument("digits", metavar="[HEX | -]", nargs=-1)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["login", "frame", "datagram"]),
    help="What the bytes are.  [default: told from the bytes]",
)
@click.option(
    "--names", is_flag=True, help="Add names, units and scaled values from the AVL dictionary."
)
def decode(digits: tuple[str, ...], kind: Kind | None, names: bool) -> None:
    """Show what a Teltonika device has sent, or where it is bad.

    HEX may hold spaces, colons and line breaks; without it, or with -, it is read from
    standard input. The bytes are a datagram, or any number of pings, logins and frames
    one after another, which are then shown as an array.

    What is bad is told in one line: the offset in bytes from the beginning, the field,
    what is expected there, and what is found. The status is then 1.

    \b
    Examples:
      tracker-admin decode --names 00000000000000280801...0000F22A
      xxd -p captured.bin | tracker-admin decode
    """
    text = " ".join(digits)
    if text in ("", "-"):
        text = sys.stdin.buffer.read().decode("latin-1")
    data = _bytes(text)
    outcome = decode_frames(data, kind)
    if isinstance(outcome, Fatal):
        raise click.ClickException(
            f"offset {outcome.offset}: {outcome.field}: "
            f"expected {outcome.expected}, found {outcome.found}"
        )
    click.echo(render(document(outcome.value, load() if names else None)))


def _bytes(text: str) -> bytes:
    if stranger := _NO_HEX.search(text):
        place = stranger.start() + 1
        raise click.ClickException(f"character {place}: {stranger[0]!a} is no hex digit")
    digits = re.sub(r"[\s:]", "", text)
    if len(digits) % 2:
        raise click.ClickException(f"{len(digits)} hex digits: the last byte is cut in half")
    return bytes.fromhex(digits)
