"""Checks of SQLite sinks."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

from tracker.observe.examination import Examination, in_thread
from tracker.observe.findings import Finding, failure, skipped
from tracker.reactor import Reactor
from tracker.storage.files import space, writable
from tracker.storage.migrations import Schema, judge_schema, migrations
from tracker.storage.rowchecks import (
    CLOCKS,
    LATE,
    MAX_WRONG,
    OLD_SCHEMA,
    ROWS_TIMEOUT,
    judge_clocks,
    judge_wrong,
)
from tracker.storage.sqlite.connection import UNDEFINED
from tracker.storage.sqlite.repair import count_wrong
from tracker.storage.sqlite.schema import applied

#: Instructions of SQLite's virtual machine between two checks of the time.
_STEPS: Final = 10_000


async def examine(reactor: Reactor, examination: Examination, path: str) -> None:
    """Run all checks of the database at ``path``."""
    await examination.make("sink-reachable", writable, "sqlite", path)
    await examination.make("sink-schema", in_thread, reactor, schema, path)
    since = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 day')"
    for name, query, judge in (
        ("sink-clocks", CLOCKS.format(since=since), judge_clocks),
        ("sink-rows", count_wrong(MAX_WRONG), partial(judge_wrong, url=f"sqlite:{path}")),
    ):
        await examination.make(name, in_thread, reactor, rows, path, query, judge)
    await examination.make("sink-space", space, path)


def schema(path: str) -> Finding:
    """Check that this program can use the tables, without writing to the file."""
    if not os.path.exists(path):
        return judge_schema(Schema(), migrations("sqlite"), path, f"sqlite:{path}")
    try:
        with closing(_opened(path)) as database:
            found = applied(database)
    except sqlite3.DatabaseError as error:
        # This includes files that are not a database.
        name = shlex.quote(path)
        return failure(f"{path}: {error}", f"sqlite3 {name} 'PRAGMA integrity_check'")
    return judge_schema(found, migrations("sqlite"), path, f"sqlite:{path}")


def rows(path: str, query: str, judge: Callable[[Any], Finding]) -> Finding:
    """Return the finding on the rows of a query, without writing to the file."""
    if not os.path.exists(path):
        return OLD_SCHEMA
    deadline = time.monotonic() + ROWS_TIMEOUT
    try:
        with closing(_opened(path)) as database:
            database.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            return judge(database.execute(query).fetchall())
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return LATE
        if str(error).startswith(UNDEFINED):
            return OLD_SCHEMA
        return skipped(f"{path}: {error}")


def _opened(path: str) -> sqlite3.Connection:
    # Opening a database with a write-ahead log creates two files, which the processor's user might
    # then be unable to write. If both are missing, the database is complete without them, and can
    # be opened as immutable.
    live = all(os.path.exists(f"{path}-{suffix}") for suffix in ("wal", "shm"))
    query = "mode=ro" if live else "mode=ro&immutable=1"
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?{query}", uri=True)
