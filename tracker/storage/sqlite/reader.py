"""Reader of a SQLite sink, which runs beside the processor that writes it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tracker.durations import format_duration
from tracker.reactor import Reactor
from tracker.storage.places import sqlite_place
from tracker.storage.reader import (
    DOCUMENTS,
    IS_PLACE,
    LAST,
    OLD_TABLES,
    QUERY_TIMEOUT,
    PositionReader,
    QueryFailed,
    Search,
    decoded,
)
from tracker.storage.sqlite.connection import UNDEFINED

#: Instructions of SQLite's virtual machine between two checks of the time.
_STEPS: Final = 10_000
_LAST: Final = f"{', '.join(LAST)}, {sqlite_place()}"


class SQLiteReader(PositionReader):
    """Reader that opens the file for each query, since it may be missing or replaced."""

    def __init__(self, reactor: Reactor, path: str) -> None:
        super().__init__(reactor, "console-sqlite")
        self._path = Path(path).absolute()

    def _devices(self, search: Search) -> list[dict[str, Any]]:
        where, values = ["instr(device_id, ?) > 0"], [search.text]
        order = "device_id"
        if search.by_contact:
            order = "last_contact DESC, device_id DESC"
        if search.after is not None and search.by_contact:
            where.append("(last_contact, device_id) < (?, ?)")
            values += search.after
        elif search.after is not None:
            where.append("device_id > ?")
            values.append(search.after[1])
        rows = self._select(
            f"SELECT {_LAST} FROM last_positions "  # noqa: S608 - names of ours
            f"WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?",
            (*values, search.limit),
        )
        return [dict(zip((*LAST, IS_PLACE), row, strict=True)) for row in rows]

    def _device(self, device_id: str) -> dict[str, Any] | None:
        names = (*LAST, IS_PLACE, *DOCUMENTS)
        rows = self._select(
            f"SELECT {_LAST}, {', '.join(DOCUMENTS)} "  # noqa: S608 - names of ours
            "FROM last_positions WHERE device_id = ?",
            (device_id,),
        )
        return decoded(dict(zip(names, rows[0], strict=True))) if rows else None

    def _track(self, device_id: str, span: tuple[str, str], limit: int) -> list[tuple[Any, ...]]:
        return self._select(
            "SELECT ts, latitude, longitude, speed, angle FROM positions "  # noqa: S608
            f"WHERE device_id = ? AND ts BETWEEN ? AND ? AND {sqlite_place()} "
            "ORDER BY ts DESC LIMIT ?",
            (device_id, *span, limit),
        )

    def _close(self) -> None:
        return

    def _select(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        deadline = time.monotonic() + QUERY_TIMEOUT
        try:
            database = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", QUERY_TIMEOUT, uri=True)
            try:
                database.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
                return database.execute(query, values).fetchall()
            finally:
                database.close()
        except sqlite3.Error as error:
            if not self._path.exists():
                detail = f"{self._path} does not exist yet"
                raise QueryFailed("the database does not exist yet", detail) from None
            text = "the database cannot be queried; see the console's log"
            if str(error).startswith(UNDEFINED):
                raise QueryFailed(OLD_TABLES, f"{self._path}: {error}") from None
            if _interrupted(error):
                text = f"no reply from the database within {format_duration(QUERY_TIMEOUT)}"
            raise QueryFailed(text, f"{self._path}: {error}") from None


def _interrupted(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
