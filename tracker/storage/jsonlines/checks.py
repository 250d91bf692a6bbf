"""Checks of JSON lines sinks."""

from __future__ import annotations

from tracker.observe.examination import Examination
from tracker.observe.findings import ok
from tracker.storage.files import space, writable
from tracker.storage.jsonlines.writer import STANDARD_OUTPUT


async def examine(examination: Examination, path: str) -> None:
    """Run all checks of a file or of standard output."""
    if path == STANDARD_OUTPUT:
        await examination.make("sink-reachable", ok, "standard output")
        return
    await examination.make("sink-reachable", writable, "jsonlines", path)
    await examination.make("sink-space", space, path)
