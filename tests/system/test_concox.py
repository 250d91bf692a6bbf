"""Concox devices on the whole path, while processes are killed.

A device of this protocol learns only from the answers to its heartbeats and logins. What they
cover is compared with what is stored.
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.servers import RedisServer, free_port
from tests.system.processes import Daemon
from tests.waiting import wait_for
from tracker.outcomes import Decoded
from tracker.position import iso_milliseconds
from tracker.vendors.concox.content import HEARTBEAT
from tracker.vendors.concox.frames import Frame, decode_frame, encode_frame
from tracker.vendors.concox.login import NUMBER as LOGIN
from tracker.vendors.concox.login import Login, login_frame
from tracker.vendors.concox.reports import (
    Report,
    State,
    alarm_frame,
    heartbeat_frame,
    position_frame,
)

IMEI = "356307042441013"
#: 2026-11-25 00:00:00 UTC.
START = 1_795_564_800


class Tracker:
    """A device that sends positions and heartbeats, and notes what each answer covers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._received = b""
        self._serial = 0
        self.sent: list[str] = []
        """Times of the sent positions."""
        self.promised: set[str] = set()
        """Times of the positions that were sent before an answered heartbeat."""
        self._unanswered: list[str] = []

    def log_in(self, timeout: float = 5) -> bool:
        """Connect; return True if the login is answered in time."""
        self.close()
        try:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout)
            self._send(login_frame(Login(IMEI, 0x7000, 480), self._next()))
            return self._answer() == LOGIN
        except OSError:
            return False

    def connect(self) -> None:
        """Connect until the login is answered."""
        wait_for(self.log_in, "an answer to the login", timeout=40)

    def report(self, count: int) -> None:
        """Send positions, each a second after the other."""
        for _ in range(count):
            moment = START + len(self.sent)
            report = Report(moment, 41.3275, 19.8187, speed=len(self.sent) % 100)
            self._send(position_frame(report, self._next()))
            text = iso_milliseconds(moment * 1000)
            self.sent.append(text)
            self._unanswered.append(text)

    def heartbeat(self) -> bool:
        """Send a heartbeat; return True if it is answered within 5 seconds."""
        try:
            self._send(heartbeat_frame(State(), self._next()))
            if self._answer() != HEARTBEAT:
                return False
        except OSError:
            return False
        self.promised.update(self._unanswered)
        self._unanswered.clear()
        return True

    def alarm(self) -> int:
        """Send an alarm; return the number of its answer."""
        moment = START + len(self.sent)
        self._send(alarm_frame(Report(moment, 41.3275, 19.8187), State(), 1, self._next()))
        self.sent.append(iso_milliseconds(moment * 1000))
        number = self._answer()
        self.promised.add(self.sent[-1])
        return number

    def close(self) -> None:
        """Close the connection; nothing more on it is promised."""
        self._unanswered.clear()
        self._received = b""
        if self._socket is not None:
            self._socket.close()

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    def _send(self, frame: Frame) -> None:
        assert self._socket is not None
        self._socket.sendall(encode_frame(frame))

    def _answer(self) -> int:
        assert self._socket is not None
        while True:
            outcome = decode_frame(self._received) if self._received else None
            if isinstance(outcome, Decoded):
                self._received = self._received[outcome.used :]
                return outcome.value.number
            data = self._socket.recv(4096)
            if not data:
                raise ConnectionResetError
            self._received += data


class Site:
    """A Redis server, an ingest process for Concox devices, and a processor."""

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self.redis = redis
        self.port = free_port()
        self.database = folder / "positions.sqlite"
        variables = {"REDIS_URL": redis.url}
        self.ingest = Daemon(
            *(folder, "ingest", "ingest"),
            *("--listen", f"concox=tcp:{self.port}:interface=127.0.0.1"),
            variables=variables,
        )
        self.process = Daemon(
            *(folder, "process", "process", "--sink", f"sqlite:{self.database}"),
            variables=variables,
        )

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Return rows of the database; none before it has its tables."""
        if not self.database.exists():
            return []
        connection = sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)
        with suppress(sqlite3.OperationalError):
            return connection.execute(text).fetchall()
        return []

    def stored(self) -> list[str]:
        """Return the times of all stored positions."""
        return [row[0] for row in self.query("SELECT ts FROM positions")]

    def check(self, device: Tracker) -> None:
        """Check that everything promised is stored, and everything stored was sent, once each."""
        wait_for(lambda: device.promised <= set(self.stored()), "all promised are stored")
        stored = self.stored()
        assert set(stored) <= set(device.sent)
        assert len(stored) == len(set(stored))


@pytest.fixture
def site(tmp_path: Path, redis: RedisServer) -> Iterator[Site]:
    one = Site(tmp_path, redis)
    try:
        one.ingest.start()
        one.process.start()
        yield one
    finally:
        one.ingest.kill()
        one.process.kill()


@pytest.fixture
def device(site: Site) -> Iterator[Tracker]:
    one = Tracker(site.port)
    try:
        yield one
    finally:
        one.close()


def test_positions_alarms_and_heartbeats_are_stored(site: Site, device: Tracker) -> None:
    device.connect()
    device.report(50)
    assert device.heartbeat()
    assert device.alarm() == 0x26
    site.check(device)
    assert len(site.stored()) == 51
    events = site.query("SELECT event, attributes FROM positions ORDER BY ts DESC LIMIT 1")
    assert events[0][0] == 1
    assert '"event_name":"sos"' in events[0][1].replace(" ", "")
    wait_for(
        lambda: site.query("SELECT type FROM messages") == [(0x13,)], "the heartbeat is stored"
    )


def test_killed_ingest_loses_nothing_that_a_heartbeat_covers(site: Site, device: Tracker) -> None:
    for _ in range(5):
        device.connect()
        for _ in range(3):
            device.report(40)
            assert device.heartbeat()
        device.report(40)
        site.ingest.kill()
        site.ingest.start()
    device.connect()
    device.report(40)
    assert device.heartbeat()
    assert len(device.promised) >= 640
    site.check(device)


def test_killed_processor_loses_and_doubles_nothing(site: Site, device: Tracker) -> None:
    device.connect()
    for _ in range(3):
        device.report(100)
        assert device.heartbeat()
        site.process.kill()
        site.process.start()
    site.check(device)
    assert len(site.stored()) == 300


def test_outage_of_redis_loses_nothing_and_withholds_the_answers(
    site: Site, device: Tracker
) -> None:
    device.connect()
    device.report(20)
    assert device.heartbeat()
    site.redis.kill()
    wait_for(lambda: site.ingest.readyz()[0] == 503, "ingest is not ready", timeout=30)
    device.report(20)
    assert not device.heartbeat()
    assert not device.log_in(timeout=3)
    site.redis.start()
    device.connect()
    assert device.heartbeat()
    device.promised.update(device.sent)  # ingest was not killed
    site.check(device)
    assert len(site.stored()) == 40
