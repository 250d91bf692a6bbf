"""Check the tables of a SQLite database."""

from __future__ import annotations

import os
import shlex
import sqlite3
from pathlib import Path

from tracker.observe.findings import Finding, failure
from tracker.storage.migrations import judge_schema, scripts


def sqlite_schema(path: str) -> Finding:
    """The tables of a file are those of this program; nothing is written."""
    if not os.path.exists(path):
        return judge_schema(0, len(scripts("sqlite")), path, f"sqlite:{path}")
    # Whoever opens a file with a write-ahead log makes two beside it, which the processor's
    # user might not be able to write. Where these are missing the log is in the file.
    live = all(os.path.exists(f"{path}-{suffix}") for suffix in ("wal", "shm"))
    query = "mode=ro" if live else "mode=ro&immutable=1"
    try:
        database = sqlite3.connect(f"{Path(path).absolute().as_uri()}?{query}", uri=True)
        try:
            (found,) = database.execute("PRAGMA user_version").fetchone()
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            database.close()
    except sqlite3.DatabaseError as error:
        # Also what is no database at all.
        name = shlex.quote(path)
        return failure(f"{path}: {error}", f"sqlite3 {name} 'PRAGMA integrity_check'")
    return judge_schema(found, len(scripts("sqlite")), path, f"sqlite:{path}")
