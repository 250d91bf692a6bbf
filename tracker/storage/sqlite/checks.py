"""Checks of SQLite sinks."""

from __future__ import annotations

import os
import shlex
import sqlite3
from pathlib import Path

from tracker.observe.examination import Examination, in_thread
from tracker.observe.findings import Finding, failure
from tracker.reactor import Reactor
from tracker.storage.files import space, writable
from tracker.storage.migrations import Schema, judge_schema, migrations
from tracker.storage.sqlite.schema import applied


async def examine(reactor: Reactor, examination: Examination, path: str) -> None:
    """Run all checks of the database at ``path``."""
    await examination.make("sink-reachable", writable, "sqlite", path)
    await examination.make("sink-schema", in_thread, reactor, schema, path)
    await examination.make("sink-space", space, path)


def schema(path: str) -> Finding:
    """Check that this program can use the tables, without writing to the file."""
    if not os.path.exists(path):
        return judge_schema(Schema(), migrations("sqlite"), path, f"sqlite:{path}")
    # Opening a database with a write-ahead log creates two files, which the processor's user might
    # then be unable to write. If both are missing, the database is complete without them, and can
    # be opened as immutable.
    live = all(os.path.exists(f"{path}-{suffix}") for suffix in ("wal", "shm"))
    query = "mode=ro" if live else "mode=ro&immutable=1"
    try:
        database = sqlite3.connect(f"{Path(path).absolute().as_uri()}?{query}", uri=True)
        try:
            found = applied(database)
        finally:
            database.close()
    except sqlite3.DatabaseError as error:
        # This includes files that are not a database.
        name = shlex.quote(path)
        return failure(f"{path}: {error}", f"sqlite3 {name} 'PRAGMA integrity_check'")
    return judge_schema(found, migrations("sqlite"), path, f"sqlite:{path}")
