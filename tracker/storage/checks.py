"""Whether positions can be stored: what all sinks have in common, and those that are files."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from typing import Any, Final

from tracker.observe.examination import Examination, in_thread
from tracker.observe.findings import Finding, failure, ok, skipped
from tracker.observe.space import may_write, room
from tracker.storage.jsonlines.writer import STANDARD_OUTPUT
from tracker.storage.sinks import POSTGRESQL, sink_kind
from tracker.storage.sqlite.checks import sqlite_schema

NOT_GIVEN: Final = "neither --sink nor TRACKER_SINK says where positions are stored"


def check_url(url: str) -> None:
    """Return if the URL of a sink makes sense.

    :raises ValueError: if not; holds no password.
    """
    kind, _ = sink_kind(url)
    if kind in POSTGRESQL:
        # Without psycopg nobody can tell, and that is a finding of its own.
        with suppress(ImportError):
            from tracker.storage.postgresql.address import PostgreSQLAddress

            PostgreSQLAddress.from_url(url)


async def examine_sink(reactor: Any, examination: Examination, url: str | None) -> None:
    """Make all checks of the sink that a URL names, which makes sense; None: none is named."""
    if not url:
        hint = "tracker-admin doctor --sink URL"
        await examination.make("sink-reachable", skipped, NOT_GIVEN, hint)
        return
    kind, rest = sink_kind(url)
    if kind in POSTGRESQL:
        try:
            from tracker.storage.postgresql.checks import examine_postgresql
        except ImportError as error:
            await examination.make("sink-reachable", no_psycopg, str(error))
        else:
            await examine_postgresql(reactor, examination, url)
        return
    if (kind, rest) == ("jsonlines", STANDARD_OUTPUT):
        await examination.make("sink-reachable", ok, "standard output")
        return
    await examination.make("sink-reachable", file, kind, rest)
    if kind == "sqlite":
        await examination.make("sink-schema", in_thread, reactor, sqlite_schema, rest)
    await examination.make("sink-space", room, os.path.dirname(os.path.abspath(rest)))


def no_psycopg(why: str) -> Finding:
    """What PostgreSQL needs is not installed."""
    return failure(
        f"psycopg cannot be used: {why}", "/opt/tracker/bin/pip install 'tracker[postgresql]'"
    )


def file(kind: str, path: str) -> Finding:
    """The file, and what belongs beside it, can be written by this user."""
    folder = os.path.dirname(os.path.abspath(path))
    inside = shlex.quote(folder)
    if not os.path.isdir(folder):
        return failure(f"there is no folder {folder}", f"install -d -o tracker -g tracker {inside}")
    if not may_write(folder):
        return failure(f"this user may not write in {folder}", f"chown tracker:tracker {inside}")
    if os.path.isdir(path):
        name = shlex.quote(os.path.join(path, "positions"))
        return failure(f"{path} is a folder", f"TRACKER_SINK={kind}:{name}")
    if not os.path.exists(path):
        return ok(f"{path}: not there yet, a processor makes it")
    if not may_write(path):
        return failure(
            f"this user may not write to {path}", f"chown tracker:tracker {shlex.quote(path)}*"
        )
    return ok(f"{path} can be written")
