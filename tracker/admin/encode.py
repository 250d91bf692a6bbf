"""The command ``encode``, which converts a JSON document to the bytes of a device."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import click

from tracker.admin.vendors import VendorName, tools
from tracker.untrusted import listed
from tracker.vendors.documents import first_object, read_json
from tracker.vendors.inspection import Encoder
from tracker.vendors.tools import encoder_of


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--vendor",
    type=VendorName(),
    help="Vendor of the document.  [default: detected from its fields]",
)
def encode(file: BinaryIO, vendor: str | None) -> None:
    r"""Encode JSON, as decode prints it, to bytes in hex.

    FILE contains the JSON. Without FILE, or if it is -, the JSON is read from standard input.

    Lengths and checksums are computed. Fields that only help the reader (times, degrees, names)
    are ignored. Therefore output of decode can be edited and encoded.

    \b
    Example:
      tracker-admin decode 000F333536333037303432343431303133 | tracker-admin encode
    """
    try:
        document = _json(file.read())
        encoded = _encoder_of(document, vendor).encode(document)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(encoded.hex().upper())


def _encoder_of(document: Any, vendor: str | None) -> Encoder:
    """Return the encoder of the vendor whose document this is.

    :raises ValueError: if the document does not show the vendor. The message is one line.
    """
    known = tools(encoder_of, vendor)
    fields = first_object(document)
    if len(known) > 1:
        known = {name: one for name, one in known.items() if one.key in fields} or known
    if len(known) > 1:
        raise ValueError(f"the fields do not show the vendor. Give --vendor: {listed(known)}.")
    return next(iter(known.values()))


def _json(content: bytes) -> Any:
    try:
        return read_json(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1}: not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
