"""The static files of the page, held in memory."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from attrs import frozen

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@frozen
class File:
    """A static file."""

    body: bytes
    content_type: str
    tag: bytes
    """ETag of the content, with its quotes."""


def static_files() -> dict[str, File]:
    """Return name → file."""
    found = {}
    for entry in files("tracker.console").joinpath("static").iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'.encode()
            found[entry.name] = File(body, kind, tag)
    return found
