"""Probes: devices whose records are polled in the database, to measure the delay."""

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
from bench.frames import packet, record
from tracker.simulator.fleet import simulated_imei
from tracker.vendors.teltonika.envelope import encode_frame

#: Seconds between two queries while a record is not stored yet.
POLL_INTERVAL: Final = 0.003

_DEVICES: Final = 50
#: Number of the first record, above those of all other devices.
_FIRST_RECORD: Final = 100_000_000
_TIMEOUT: Final = 30.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_QUERY: Final = b"""
SELECT ts FROM unnest(%s::text[], %s::timestamptz[]) AS sent (device_id, ts)
JOIN positions USING (device_id, ts)
"""


class NotStored(Exception):
    """A sent record is not in the database."""


@frozen
class Visibility:
    """Measurements of the probes."""

    window: Window
    latencies: Sequence[float]
    """Seconds from the due time of a record until it was found, in ascending order."""
    lateness: Sequence[float]
    """Seconds by which records were sent too late, in ascending order."""
    query: float
    """Median duration of a query, in seconds."""
    sent: int
    """Number of records, including those of the warm-up."""


@frozen
class _Schedule:
    """Due times of records, by the monotonic clock."""

    due: Sequence[float]
    measured_from: float
    end: float


class Probes:
    """Devices that send single records, and a database connection that polls for them.

    Records are sent even if earlier ones are not stored yet, therefore a stall of the database
    affects all records that are due meanwhile. Due times are random, because even intervals could
    interfere with other intervals in the system. A record is found when the reply to the first
    query with it arrives; the polling interval (up to :data:`POLL_INTERVAL`) and the query itself
    are part of the latency.
    """

    def __init__(self, port: int, first: int, url: str) -> None:
        """Log the devices in and connect to the database.

        :param first: number of the first probe, above those of all other devices.
        :param url: URL of the database.
        """
        self._sockets = log_in(port, first, _DEVICES)
        self._names = [simulated_imei(first + number) for number in range(_DEVICES)]
        for connection in self._sockets:
            connection.setblocking(False)
        self._database = psycopg.connect(url, autocommit=True)
        self._unstored: dict[datetime, tuple[str, float]] = {}
        self._queries: list[float] = []

    def close(self) -> None:
        """Close all connections."""
        self._database.close()
        for connection in self._sockets:
            connection.close()

    def run(
        self, rate: float, warm_up: float, seconds: float, usage: Callable[[], Usage]
    ) -> Visibility:
        """Send records and poll for them.

        :param rate: records per second of all probes.
        :param usage: called at both ends of the measured time; returns the usage up to then.
        :raises NotStored: if a record is not found within 30 s.
        """
        chance = random.Random(1)  # noqa: S311 - the same in each run
        start = time.monotonic()
        length = warm_up + seconds
        moments = sorted(chance.uniform(0, length) for _ in range(int(rate * length)))
        schedule = _Schedule([start + one for one in moments], start + warm_up, start + length)
        gc.disable()
        try:
            return self._run(schedule, usage)
        finally:
            gc.enable()

    def _run(self, schedule: _Schedule, usage: Callable[[], Usage]) -> Visibility:
        latencies: list[float] = []
        lateness: list[float] = []
        before: Usage | None = None
        after: Usage | None = None
        sent = 0
        while sent < len(schedule.due) or self._unstored:
            now = time.monotonic()
            if before is None and now >= schedule.measured_from:
                before = usage()
            if after is None and now >= schedule.end:
                after = usage()
            while sent < len(schedule.due) and (due := schedule.due[sent]) <= now:
                self._send(sent, due)
                lateness.append(now - due)
                sent += 1
            latencies += [
                found - due for due, found in self._poll() if due >= schedule.measured_from
            ]
            self._wait(schedule.due[sent] if sent < len(schedule.due) else None)
        after = after or usage()
        return Visibility(
            Window.between(before or after, after),
            sorted(latencies),
            sorted(lateness),
            sorted(self._queries)[len(self._queries) // 2],
            sent,
        )

    def _send(self, number: int, due: float) -> None:
        index = number % _DEVICES
        connection = self._sockets[index]
        with suppress(BlockingIOError):
            connection.recv(4096)  # ACKs are discarded: only the database counts
        frame = encode_frame(packet(_FIRST_RECORD + number, 1))
        connection.sendall(frame)
        milliseconds = record(_FIRST_RECORD + number).timestamp
        ts = _EPOCH + timedelta(milliseconds=milliseconds)
        self._unstored[ts] = (self._names[index], due)

    def _poll(self) -> list[tuple[float, float]]:
        """Return the due time and the time of discovery of each newly stored record."""
        if not self._unstored:
            return []
        devices = [device for device, _ in self._unstored.values()]
        start = time.monotonic()
        # Not prepared: the plan for the empty table would be kept while the table grows.
        found = self._database.execute(_QUERY, (devices, list(self._unstored)), prepare=False)
        now = time.monotonic()
        self._queries.append(now - start)
        result = [(self._unstored.pop(ts)[1], now) for (ts,) in found]
        if self._unstored and now - min(due for _, due in self._unstored.values()) > _TIMEOUT:
            raise NotStored(f"{len(self._unstored)} records not stored within {_TIMEOUT:g} s")
        return result

    def _wait(self, next_due: float | None) -> None:
        now = time.monotonic()
        until = now + POLL_INTERVAL if self._unstored else now + _TIMEOUT
        if next_due is not None:
            until = min(until, next_due)
        elif not self._unstored:
            return
        time.sleep(max(0.0, until - now))
