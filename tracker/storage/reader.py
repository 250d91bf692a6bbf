"""Read-only queries of a sink: the last positions of devices, and their tracks.

Each query has a limit of rows, and a timeout that the database enforces.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tracker.observe.ratelimit import LimitedLog
from tracker.position import MAX_PAYLOAD
from tracker.reactor import Reactor
from tracker.storage.thread import SinkThread
from tracker.untrusted import parse_json, shown

#: Maximum number of devices in a page.
MAX_DEVICES: Final = 100
#: Maximum number of a track's positions that are read, and of those that are shown, evenly spread.
MAX_ROWS: Final = 20_000
MAX_POINTS: Final = 1500
#: Seconds within which a database must reply.
QUERY_TIMEOUT: Final = 5.0
#: Maximum number of queries that are under way or waiting.
MAX_PENDING_QUERIES: Final = 16

#: Error of a query for tables or columns that the database lacks.
OLD_TABLES: Final = (
    "the database lacks tables or columns of this version; start a processor of this version, or "
    "run tracker-admin migrate"
)

T = TypeVar("T")

#: Columns of a row of ``last_positions``, in this order.
LAST: Final = (
    *("device_id", "last_contact", "ts", "vendor", "codec", "latitude", "longitude", "altitude"),
    *("angle", "speed", "satellites", "priority", "event", "received_at"),
    *("clock_error", "clock_error_ts", "clock_error_at"),
)
#: Those that are times.
TIMES: Final = ("last_contact", "ts", "received_at", "clock_error_ts", "clock_error_at")
#: Columns that say nothing if the row is not a place.
_OF_PLACE: Final = (
    *("ts", "latitude", "longitude", "altitude", "angle", "speed", "satellites", "received_at"),
)
#: Name of a further column: true if the row is a place.
IS_PLACE: Final = "is_place"
#: Columns of ``last_positions`` that hold JSON.
DOCUMENTS: Final = ("attributes", "named", "extra")


class QueryFailed(Exception):
    """A failed query; the text is for the client, and does not name the server.

    :param detail: the reason for the log, without a password.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


@frozen
class Search:
    """A search for devices."""

    text: str = ""
    """Part of the device ID."""
    by_contact: bool = False
    """True: sort by last contact, latest first; False: sort by device ID."""
    after: tuple[str, str] | None = None
    """Last contact and device ID of the preceding row."""
    limit: int = 50


@frozen
class Track:
    """The track of a device."""

    points: Sequence[tuple[int, float, float, int | None, int | None]]
    """Milliseconds since 1970, degrees of latitude and longitude, km/h and degrees from
    north; oldest first."""
    read: int
    """Number of positions from which the points were selected."""
    complete: bool
    """False if the oldest positions are missing, since there are too many."""


class PositionReader(Service, ABC):
    """Service that queries a database in its own thread, one query at a time."""

    _log = Logger()

    def __init__(self, reactor: Reactor, name: str) -> None:
        self._thread = SinkThread(reactor, name)
        self._waiting = 0
        self._failures = LimitedLog(reactor, self._log)

    def startService(self) -> None:
        """Start the thread."""
        super().startService()
        self._thread.start()

    def stopService(self) -> Deferred[None]:
        """Close the database."""
        super().stopService()
        return self._thread.stop(self._close)

    async def devices(self, search: Search) -> list[dict[str, Any]]:
        """Return rows of ``last_positions``, with times in ISO 8601 UTC.

        Without a place, the columns of the position have the value None.

        :raises QueryFailed: if the database cannot be queried.
        """
        return list(map(_presentable, await self._query(self._devices, search)))

    async def all_devices(self, page: int = MAX_DEVICES) -> AsyncIterator[dict[str, Any]]:
        """Yield the rows of :meth:`devices` of all devices, by device ID.

        :param page: number of rows that are read at a time.
        :raises QueryFailed: if the database cannot be queried.
        """
        search = Search(limit=page)
        while rows := await self._query(self._devices, search):
            # The ID as it is stored: what is shown of a strange one may sort elsewhere.
            search = evolve(search, after=("", rows[-1]["device_id"]))
            for row in rows:
                yield _presentable(row)

    async def device(self, device_id: str) -> dict[str, Any] | None:
        """Return a device's row of ``last_positions``, with :data:`DOCUMENTS`, or None.

        Without a place, the columns of the position have the value None.

        :raises QueryFailed: if the database cannot be queried.
        """
        row = await self._query(self._device, device_id)
        if row is None:
            return None
        parsed = {name: row.pop(name) for name in DOCUMENTS}
        return _presentable(row) | parsed

    async def track(self, device_id: str, since: str, until: str) -> Track:
        """Return the track of a device: its places between two times.

        :param since: ISO 8601 UTC with milliseconds, like ``until``.
        :raises QueryFailed: if the database cannot be queried.
        """
        rows = await self._query(self._track, device_id, (since, until), MAX_ROWS)
        points = [point for row in reversed(rows) if (point := _point(row)) is not None]
        return Track(_thin(points, MAX_POINTS), len(points), len(rows) < MAX_ROWS)

    async def _query(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._waiting >= MAX_PENDING_QUERIES:
            raise QueryFailed("too many queries are waiting for the database")
        self._waiting += 1
        try:
            return await self._thread.run(function, *arguments)
        except QueryFailed as error:
            if error.detail:
                self._failures.warn("cannot query the database: {reason}", reason=error.detail)
            raise
        finally:
            self._waiting -= 1

    # The following methods run in the thread.

    @abstractmethod
    def _devices(self, search: Search) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _device(self, device_id: str) -> dict[str, Any] | None: ...

    @abstractmethod
    def _track(self, device_id: str, span: tuple[str, str], limit: int) -> list[tuple[Any, ...]]:
        """Return time (ISO 8601), latitude, longitude, speed and angle of each place of a span.

        :return: rows, newest first.
        """

    @abstractmethod
    def _close(self) -> None: ...


def decoded(row: dict[str, Any]) -> dict[str, Any]:
    """Parse the JSON columns of a row, and return it; a malformed column becomes None."""
    for name in DOCUMENTS:
        try:
            row[name] = None if row[name] is None else parse_json(row[name], MAX_PAYLOAD)
        except (ValueError, TypeError):
            row[name] = None
    return row


def _presentable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with values that JSON can represent; SQLite's columns may hold any value."""
    if not row.pop(IS_PLACE):
        row = row | dict.fromkeys(_OF_PLACE)
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, str | bytes):
        return shown(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _point(row: Sequence[Any]) -> tuple[int, float, float, int | None, int | None] | None:
    """Return a point of a track; None if the row is malformed."""
    ts, latitude, longitude, speed, angle = row
    try:
        moment = int(datetime.fromisoformat(ts).timestamp() * 1000)
        coordinates = round(float(latitude), 6), round(float(longitude), 6)
        about = speed if speed is None else int(speed), angle if angle is None else int(angle)
    except (ValueError, TypeError, OverflowError):
        return None
    return (moment, *coordinates, *about) if all(map(math.isfinite, coordinates)) else None


def _thin(points: list[T], limit: int) -> list[T]:
    """Return at most ``limit`` points, evenly spread, with the first and the last one."""
    if len(points) <= limit:
        return points
    step = (len(points) - 1) / (limit - 1)
    return [points[round(number * step)] for number in range(limit)]
