"""``tracker-admin encode``: the bytes that a JSON document describes."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import click

from tracker.vendors.teltonika.frames import encode_any_frame
from tracker.vendors.teltonika.parsing import parse, read_json


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
def encode(file: BinaryIO) -> None:
    """Print the bytes, in hex, of what FILE describes: the inverse of decode.

    FILE holds JSON as decode prints it; without it, or with -, it is read from standard
    input. Lengths and checksums are worked out anew, and what is there for the reader
    only (times, degrees, names) is ignored: so what decode has printed can be edited.

    \b
    Example:
      tracker-admin decode 000F333536333037303432343431303133 | tracker-admin encode
    """
    try:
        frames = parse(_json(file.read()))
        encoded = b"".join(map(encode_any_frame, frames))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(encoded.hex().upper())


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
        raise ValueError("nested too deeply to be such a document") from None
