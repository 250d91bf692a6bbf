"""The command ``decode``, which converts the bytes of a device to JSON."""

from __future__ import annotations

import re
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from tracker.admin.vendors import VendorName, tools
from tracker.interfaces import UnknownModel
from tracker.outcomes import Fatal
from tracker.untrusted import listed, shown
from tracker.vendors.documents import render
from tracker.vendors.inspection import Decoder
from tracker.vendors.tools import decoder_of
from tracker.wording import counted

_NOT_HEX = re.compile(r"[^0-9a-fA-F\s:]")


class _Kind(click.ParamType):  # type: ignore[type-arg]
    """A kind of bytes that the decoder of a vendor knows."""

    name = "KIND"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """See ParamType."""
        if value not in (known := self._known()):
            self.fail(f"unknown kind '{shown(value)}'. Known: {listed(known)}.", param, ctx)
        return str(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """See ParamType."""
        return [CompletionItem(kind) for kind in self._known() if kind.startswith(incomplete)]

    def _known(self) -> list[str]:
        return [kind for decoder in tools(decoder_of).values() for kind in decoder.kinds]


@click.command()
@click.argument("digits", metavar="[HEX | -]", nargs=-1)
@click.option(
    "--vendor",
    type=VendorName(),
    help="Vendor of the device.  [default: detected from the first bytes]",
)
@click.option(
    "--as",
    "kind",
    type=_Kind(),
    help="Kind of the bytes of a Teltonika device: login, frame or datagram.  "
    "[default: detected from the first bytes]",
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
def decode(
    *, digits: tuple[str, ...], vendor: str | None, kind: str | None, names: bool, model: str | None
) -> None:
    r"""Decode the bytes of a device to JSON.

    HEX may contain spaces, colons and line breaks. Without HEX, or if it is -, it is read from
    standard input. The bytes are a datagram, or a sequence of frames, which is shown as an array.

    If the bytes are malformed, one line gives the offset in bytes, the field, the expected value
    and the value found. The exit code is then 1.

    \b
    Examples:
      tracker-admin decode --names 00000000000000280801...0000F22A
      xxd -p captured.bin | tracker-admin decode
    """
    if model is not None and not names:
        raise click.ClickException("--model requires --names.")
    text = " ".join(digits)
    if text in ("", "-"):
        text = sys.stdin.buffer.read().decode("latin-1")
    data = _bytes(text)
    if not data:
        raise click.ClickException("No bytes given.")
    name, decoder = _decoder_of(data, vendor, kind)
    outcome = decoder.decode(data, kind, _names(name, decoder, model) if names else None)
    if isinstance(outcome, Fatal):
        what = outcome.reason
        if outcome.expected:
            what = f"{outcome.field}: expected {outcome.expected}, found {outcome.found}"
        raise click.ClickException(f"offset {outcome.offset}: {what}")
    click.echo(render(outcome.value))


def _decoder_of(data: bytes, vendor: str | None, kind: str | None) -> tuple[str, Decoder]:
    """Return the vendor whose bytes these are, and its decoder."""
    known = tools(decoder_of, vendor)
    if kind is not None:
        known = {name: decoder for name, decoder in known.items() if kind in decoder.kinds}
        if not known:
            raise click.UsageError(f"--as {kind}: not a kind of {vendor}.")
    if len(known) > 1:
        known = {name: one for name, one in known.items() if one.recognises(data)} or known
    if len(known) > 1:
        raise click.ClickException(
            f"offset 0: the first bytes {data[:8].hex()} do not show the vendor. "
            f"Give --vendor: {listed(known)}."
        )
    return next(iter(known.items()))


def _names(vendor: str, decoder: Decoder, model: str | None) -> Any:
    try:
        names = decoder.names(model)
    except UnknownModel as error:
        raise click.ClickException(f"--model {error}.") from None
    if names is None:
        raise click.ClickException(f"--names: {vendor} has no list of names. Omit --names.")
    return names


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
