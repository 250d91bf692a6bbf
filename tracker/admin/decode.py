"""The command ``decode``, which converts the bytes of a device to JSON."""

from __future__ import annotations

import re
import sys

import click

from tracker.outcomes import Fatal
from tracker.vendors.teltonika.document import document, render
from tracker.vendors.teltonika.frames import Kind, decode_frames
from tracker.vendors.teltonika.naming import Names, Naming, NoList
from tracker.wording import counted

_NOT_HEX = re.compile(r"[^0-9a-fA-F\s:]")


@click.command()
@click.argument("digits", metavar="[HEX | -]", nargs=-1)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["login", "frame", "datagram"]),
    help="Kind of the bytes.  [default: detected from the first bytes]",
)
@click.option(
    "--names",
    is_flag=True,
    help="Add names, units, scaled values, states and errors of AVL elements.",
)
@click.option(
    "--model",
    help="Model of the device, such as FMB920, for --names.  "
    "[default: only names on which all models agree]",
)
def decode(digits: tuple[str, ...], kind: Kind | None, names: bool, model: str | None) -> None:
    r"""Decode the bytes of a Teltonika device to JSON.

    HEX may contain spaces, colons and line breaks. Without HEX, or if it is -, it is read from
    standard input. The bytes are a datagram, or a sequence of pings, logins and frames, which is
    shown as an array.

    If the bytes are malformed, one line gives the offset in bytes, the field, the expected value
    and the value found. The exit code is then 1.

    \b
    Examples:
      tracker-admin decode --names 00000000000000280801...0000F22A
      xxd -p captured.bin | tracker-admin decode
    """
    naming = _names(names, model)
    text = " ".join(digits)
    if text in ("", "-"):
        text = sys.stdin.buffer.read().decode("latin-1")
    data = _bytes(text)
    if not data:
        raise click.ClickException("No bytes given.")
    outcome = decode_frames(data, kind)
    if isinstance(outcome, Fatal):
        raise click.ClickException(
            f"offset {outcome.offset}: {outcome.field}: "
            f"expected {outcome.expected}, found {outcome.found}"
        )
    click.echo(render(document(outcome.value, naming)))


def _names(wanted: bool, model: str | None) -> Names | None:
    if not wanted:
        if model is not None:
            raise click.ClickException("--model requires --names.")
        return None
    try:
        return Naming({}, model).names(None)
    except NoList as error:
        raise click.ClickException(f"--model {error}.") from None


def _bytes(text: str) -> bytes:
    if found := _NOT_HEX.search(text):
        raise click.ClickException(
            f"character {found.start() + 1}: {found[0]!a} is not a hex digit"
        )
    digits = re.sub(r"[\s:]", "", text)
    if len(digits) % 2:
        raise click.ClickException(
            f"{counted(len(digits), 'hex digit')}: the second digit of the last byte is missing"
        )
    return bytes.fromhex(digits)
