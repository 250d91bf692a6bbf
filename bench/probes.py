"""Devices whose records are looked for in the database: how long from the one to the other."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import psycopg
from attrs import frozen

from bench.common import Usage, Window
from bench.devices import log_in
from bench.frames import imei, packet, record
from tracker.vendors.teltonika.frame import encode_frame

#: Seconds from one look into the database to the next, while a record is on its way.
POLL: Final = 0.003

_DEVICES: Final = 50
#: Number of the first one's first record: no other device has records as late.
_FIRST_RECORD: Final = 100_000_000
_PATIENCE: Final = 30.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_LOOK: Final = b"""
SELECT ts FROM unnest(%s::text[], %s::timestamptz[]) AS sent (device_id, ts)
JOIN positions USING (device_id, ts)
"""


class NotStored(Exception):
    """A record that was sent is not in the database."""


@frozen
class Seen:
    """What the probes have found out."""

    window: Window
    latencies: Sequence[float]
    """Seconds from when a record was due to be sent until it was seen, in ascending order."""
    lateness: Sequence[float]
    """Seconds that they were sent too late, in ascending order."""
    look: float
    """Seconds that a look takes, the median."""
    sent: int
    """Records, those of the warm-up too."""


@frozen
class _Course:
    """The moments at which records are due, by the monotonic clock."""

    due: Sequence[float]
    measured_from: float
    end: float


class Probes:
    """Some devices that send one record at a time, and a connection that looks for it.

    Records are sent whether those before have been seen or not: so a database that stands
    still is not spared them. Moments are at random, since even ones could beat with the
    intervals at which others wait. A record is *seen* when the answer is here to the first
    query that finds it; so the interval of the queries (up to :data:`POLL`) and the query
    itself count as latency.
    """

    def __init__(self, port: int, first: int, url: str) -> None:
        """Log them in.

        :param first: the number of the first one, behind all other devices'.
        :param url: of the database.
        """
        self._sockets = log_in(port, first, _DEVICES)
        self._names = [imei(first + number) for number in range(_DEVICES)]
        for connection in self._sockets:
            connection.setblocking(False)
        self._database = psycopg.connect(url, autocommit=True)
        self._under_way: dict[datetime, tuple[str, float]] = {}
        self._looks: list[float] = []

    def close(self) -> None:
        """Close all connections."""
        self._database.close()
        for connection in self._sockets:
            connection.close()

    def run(self, rate: float, warm_up: float, seconds: float, usage: Callable[[], Usage]) -> Seen:
        """Send and look.

        :param rate: records a second, of all of them together.
        :param usage: what is used up to now; asked at both ends of the measured time.
        :raises NotStored: when a record is not seen within half a minute.
        """
        chance = random.Random(1)  # noqa: S311 - the same in each run
        start = time.monotonic()
        length = warm_up + seconds
        moments = sorted(chance.uniform(0, length) for _ in range(int(rate * length)))
        course = _Course([start + one for one in moments], start + warm_up, start + length)
        gc.disable()
        try:
            return self._run(course, usage)
        finally:
            gc.enable()

    def _run(self, course: _Course, usage: Callable[[], Usage]) -> Seen:
        latencies: list[float] = []
        lateness: list[float] = []
        before: Usage | None = None
        after: Usage | None = None
        sent = 0
        while sent < len(course.due) or self._under_way:
            now = time.monotonic()
            if before is None and now >= course.measured_from:
                before = usage()
            if after is None and now >= course.end:
                after = usage()
            while sent < len(course.due) and (due := course.due[sent]) <= now:
                self._send(sent, due)
                lateness.append(now - due)
                sent += 1
            latencies += [seen - due for due, seen in self._look() if due >= course.measured_from]
            self._wait(course.due[sent] if sent < len(course.due) else None)
        after = after or usage()
        return Seen(
            Window.between(before or after, after),
            sorted(latencies),
            sorted(lateness),
            sorted(self._looks)[len(self._looks) // 2],
            sent,
        )

    def _send(self, number: int, due: float) -> None:
        index = number % _DEVICES
        connection = self._sockets[index]
        with suppress(BlockingIOError):
            connection.recv(4096)  # acknowledgements; the database tells more
        frame = encode_frame(packet(_FIRST_RECORD + number, 1))
        connection.sendall(frame)
        milliseconds = record(_FIRST_RECORD + number).timestamp
        ts = _EPOCH + timedelta(milliseconds=milliseconds)
        self._under_way[ts] = (self._names[index], due)

    def _look(self) -> list[tuple[float, float]]:
        """When those were due that are in the database now, and when they were seen."""
        if not self._under_way:
            return []
        devices = [device for device, _ in self._under_way.values()]
        asked = time.monotonic()
        # Not prepared: the plan for an empty table would stay while the table grows.
        found = self._database.execute(_LOOK, (devices, list(self._under_way)), prepare=False)
        seen = time.monotonic()
        self._looks.append(seen - asked)
        result = [(self._under_way.pop(ts)[1], seen) for (ts,) in found]
        if self._under_way and seen - min(due for _, due in self._under_way.values()) > _PATIENCE:
            raise NotStored(f"{len(self._under_way)} records are not there after {_PATIENCE:g} s")
        return result

    def _wait(self, next_due: float | None) -> None:
        now = time.monotonic()
        until = now + POLL if self._under_way else now + _PATIENCE
        if next_due is not None:
            until = min(until, next_due)
        elif not self._under_way:
            return
        time.sleep(max(0.0, until - now))
