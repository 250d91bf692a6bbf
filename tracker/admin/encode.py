"""The command ``encode``, which converts a JSON document to the bytes of a device."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import click

from tracker.vendors.teltonika.frames import encode_any_frame
from tracker.vendors.teltonika.parsing import parse, read_json


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
def encode(file: BinaryIO) -> None:
    r"""Encode JSON, as decode prints it, to bytes in hex.

    FILE contains the JSON. Without FILE, or if it is -, the JSON is read from standard input.

    Lengths and checksums are computed. Fields that only help the reader (times, degrees, names)
    are ignored. Therefore output of decode can be edited and encoded.

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
        raise ValueError("nested too deeply") from None
