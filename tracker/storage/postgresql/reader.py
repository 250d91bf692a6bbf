"""Reader of a PostgreSQL sink, or of its standby."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from attrs import evolve

from tracker.durations import format_duration
from tracker.reactor import Reactor
from tracker.storage.places import postgresql_place
from tracker.storage.postgresql.address import PostgreSQLAddress
from tracker.storage.postgresql.connection import Connection, connect, error_text
from tracker.storage.reader import (
    DOCUMENTS,
    IS_PLACE,
    LAST,
    OLD_TABLES,
    QUERY_TIMEOUT,
    TIMES,
    PositionReader,
    QueryFailed,
    Search,
    decoded,
)

ISO: Final = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
_LAST: Final = ", ".join(
    (*(ISO.format(name) if name in TIMES else name for name in LAST), postgresql_place())
)


class PostgreSQLReader(PositionReader):
    """Reader with one read-only connection, which is restored when it is lost."""

    def __init__(self, reactor: Reactor, url: str) -> None:
        """Parse the URL, without connecting.

        :raises ValueError: if the URL is malformed.
        """
        super().__init__(reactor, "console-postgresql")
        address = PostgreSQLAddress.from_url(url)
        options = (
            f"-c statement_timeout={QUERY_TIMEOUT * 1000:.0f} -c default_transaction_read_only=on"
        )
        self._address = evolve(
            address,
            parameters={
                **address.parameters,
                "application_name": "tracker-console",
                "target_session_attrs": "any",
                "options": f"{address.parameters.get('options') or ''} {options}".strip(),
            },
        )
        self._connection: Connection | None = None

    def _devices(self, search: Search) -> list[dict[str, Any]]:
        where, values = ["strpos(device_id, %s) > 0"], [search.text]
        order = "device_id"
        if search.by_contact:
            order = "last_contact DESC, device_id DESC"
        if search.after is not None and search.by_contact:
            where.append("(last_positions.last_contact, device_id) < (%s::timestamptz, %s)")
            values += search.after
        elif search.after is not None:
            where.append("device_id > %s")
            values.append(search.after[1])
        rows = self._select(
            f"SELECT {_LAST} FROM last_positions "  # noqa: S608 - names of ours
            f"WHERE {' AND '.join(where)} ORDER BY {order} LIMIT %s",
            (*values, search.limit),
        )
        return [dict(zip((*LAST, IS_PLACE), row, strict=True)) for row in rows]

    def _device(self, device_id: str) -> dict[str, Any] | None:
        names = (*LAST, IS_PLACE, *DOCUMENTS)
        # As text, because the driver's own parser raises an error for deep nesting.
        documents = ", ".join(f"{name}::text" for name in DOCUMENTS)
        rows = self._select(
            f"SELECT {_LAST}, {documents} "  # noqa: S608 - names of ours
            "FROM last_positions WHERE device_id = %s",
            (device_id,),
        )
        return decoded(dict(zip(names, rows[0], strict=True))) if rows else None

    def _track(self, device_id: str, span: tuple[str, str], limit: int) -> list[tuple[Any, ...]]:
        return self._select(
            f"SELECT {ISO.format('ts')}, latitude, longitude, speed, angle "  # noqa: S608
            "FROM positions WHERE device_id = %s "
            f"AND ts BETWEEN %s::timestamptz AND %s::timestamptz AND {postgresql_place()} "
            "ORDER BY positions.ts DESC LIMIT %s",
            (device_id, *span, limit),
        )

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _select(self, query: Any, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        fresh = self._connection is None
        try:
            return self._run(query, values)
        except psycopg.OperationalError as error:
            # If the connection was lost meanwhile, the query is repeated once on a new one.
            if fresh or not self._lost():
                raise self._query_failed(error) from None
        except psycopg.Error as error:
            raise self._query_failed(error) from None
        try:
            return self._run(query, values)
        except psycopg.Error as error:
            raise self._query_failed(error) from None

    def _run(self, query: Any, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = None
            self._connection = connect(self._address)
        return self._connection.execute(query, values).fetchall()

    def _lost(self) -> bool:
        return self._connection is None or bool(self._connection.closed)

    def _query_failed(self, error: psycopg.Error) -> QueryFailed:
        if self._lost():
            self._close()
        text = "the database cannot be queried; see the console's log"
        if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
            text = OLD_TABLES
        if isinstance(error, psycopg.errors.QueryCanceled):
            text = f"no reply from the database within {format_duration(QUERY_TIMEOUT)}"
        return QueryFailed(text, f"{self._address.url}: {error_text(error)}")
