"""The reading side of a sink: where devices are, and where they have been. It writes nothing.

Each query is bounded in rows, and by each kind of database in time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tracker.observe.ratelimit import LimitedLog
from tracker.position import MAX_PAYLOAD
from tracker.reactor import Reactor
from tracker.storage.thread import SinkThread
from tracker.untrusted import parse_json, shown

#: Devices of a page.
MOST_DEVICES: Final = 100
#: Points of a track that are read, and those of them that are shown, evenly spread.
MOST_READ: Final = 20_000
MOST_POINTS: Final = 1500
#: Seconds within which a database must answer.
TIMEOUT: Final = 5.0
#: Queries that may wait for the one before.
MOST_WAITING: Final = 16

T = TypeVar("T")

#: Columns of a row of ``last_positions``, in this order.
LAST: Final = (
    *("device_id", "last_contact", "ts", "vendor", "codec", "latitude", "longitude", "altitude"),
    *("angle", "speed", "satellites", "priority", "event"),
)


class NoAnswer(Exception):
    """The database has not answered; the text is for the client, and names no server.

    :param detail: the reason, for the log; holds no password.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


@frozen
class Search:
    """A search for devices."""

    text: str = ""
    """Part of the device's id."""
    by_contact: bool = False
    """True: sorted by last contact, the latest first; False: by id."""
    after: tuple[str, str] | None = None
    """Last contact and id of the row before."""
    limit: int = 50


@frozen
class Track:
    """The track of a device."""

    points: Sequence[tuple[int, float, float, int | None, int | None]]
    """Milliseconds since 1970, degrees of latitude and longitude, km/h and degrees from
    north; oldest first."""
    read: int
    """Number of positions that the points were taken from."""
    complete: bool
    """False if there are more positions: the oldest are missing."""


class PositionReader(Service, ABC):
    """Queries a database from a thread of its own, one query after the other."""

    _log = Logger()

    def __init__(self, reactor: Reactor, name: str) -> None:
        self._thread = SinkThread(reactor, name)
        self._waiting = 0
        self._troubles = LimitedLog(reactor, self._log)

    def startService(self) -> None:
        """Start the thread."""
        super().startService()
        self._thread.start()

    def stopService(self) -> Deferred[None]:
        """Close the database."""
        super().stopService()
        return self._thread.stop(self._close)

    async def devices(self, search: Search) -> list[dict[str, Any]]:
        """Return rows of ``last_positions``, times in ISO 8601 UTC.

        :raises NoAnswer: if the database cannot be queried.
        """
        return list(map(_presentable, await self._ask(self._devices, search)))

    async def device(self, device_id: str) -> dict[str, Any] | None:
        """Return one row, with ``attributes`` and ``named`` added; None if there is none.

        :raises NoAnswer: as above.
        """
        row = await self._ask(self._device, device_id)
        if row is None:
            return None
        parsed = {name: row.pop(name) for name in ("attributes", "named")}
        return _presentable(row) | parsed

    async def track(self, device_id: str, since: str) -> Track:
        """Return the track of a device since a time (ISO 8601 UTC with milliseconds).

        :raises NoAnswer: as above.
        """
        rows = await self._ask(self._track, device_id, since, MOST_READ)
        points = [point for row in reversed(rows) if (point := _point(row)) is not None]
        return Track(_thin(points, MOST_POINTS), len(points), len(rows) < MOST_READ)

    async def _ask(self, function: Callable[..., T], *arguments: Any) -> T:
        if self._waiting >= MOST_WAITING:
            raise NoAnswer("too many questions wait for the database")
        self._waiting += 1
        try:
            return await self._thread.run(function, *arguments)
        except NoAnswer as error:
            if error.detail:
                self._troubles.warn("the database cannot be asked: {why}", why=error.detail)
            raise
        finally:
            self._waiting -= 1

    # What follows runs in the thread.

    @abstractmethod
    def _devices(self, search: Search) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _device(self, device_id: str) -> dict[str, Any] | None: ...

    @abstractmethod
    def _track(self, device_id: str, since: str, limit: int) -> list[tuple[Any, ...]]:
        """Time (ISO 8601), latitude, longitude, speed and angle; newest first."""

    @abstractmethod
    def _close(self) -> None: ...


def decoded(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its JSON columns parsed; None for a malformed one."""
    for name in ("attributes", "named"):
        try:
            row[name] = None if row[name] is None else parse_json(row[name], MAX_PAYLOAD)
        except (ValueError, TypeError):
            row[name] = None
    return row


def _presentable(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with values that JSON can hold: a column of SQLite may hold any value."""
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
        place = round(float(latitude), 6), round(float(longitude), 6)
        about = speed if speed is None else int(speed), angle if angle is None else int(angle)
    except (ValueError, TypeError, OverflowError):
        return None
    return (moment, *place, *about) if all(map(math.isfinite, place)) else None


def _thin(points: list[T], most: int) -> list[T]:
    """Return at most ``most`` points, evenly spread, with the first and the last one."""
    if len(points) <= most:
        return points
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]
