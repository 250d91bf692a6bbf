"""A device that records to its memory, while the log does not confirm appends."""

from __future__ import annotations

import json

import pytest
from attrs import define, field

from tests.unit.vendors.concox.frames import TIME
from tests.unit.vendors.concox.golden import IMEI
from tests.unit.vendors.plane import Outage, Plane, Socket
from tracker.limits import Limits
from tracker.position import iso_milliseconds
from tracker.vendors.concox.commands import Flags
from tracker.vendors.concox.dialect import ConcoxDialect
from tracker.vendors.concox.frames import Frame, encode_frame
from tracker.vendors.concox.login import Login, login_frame
from tracker.vendors.concox.reports import Report, State, heartbeat_frame, position_frame
from tracker.vendors.concox.settings import ConcoxSettings

#: Seconds for which a device waits for an answer (Concox protocol 3.1), and between two logins.
ANSWER_TIMEOUT = 5
RETRY_DELAY = 10
#: Seconds between two positions, and between two heartbeats.
INTERVAL = 10
HEARTBEAT_INTERVAL = 180


def build_dialect() -> ConcoxDialect:
    return ConcoxDialect(Limits(), ConcoxSettings(), Flags(0), lambda: None)


@define
class Device:
    """A device that never sends a position again that it has sent."""

    plane: Plane
    socket: Socket | None = None
    is_online: bool = False
    memory: list[int] = field(factory=list)
    """Times of the positions that are not sent."""
    waits: int = 0
    """Seconds left to wait for an answer, or before it connects again; 0: it waits for nothing."""
    logins: int = 0

    def live(self, second: int) -> None:
        """Live through one second."""
        if second % INTERVAL == 0:
            self.memory.append(second)
        if self.socket is not None and self.socket.received():
            self.is_online, self.waits = True, 0
        if self.waits:
            self.waits -= 1
            if not self.waits and self.socket is not None:
                self._disconnect()
        elif self.socket is None:
            self._connect()
        if self.is_online:
            self._report(second)

    def _connect(self) -> None:
        self.socket = self.plane.connect()
        assert self.socket is not None
        self.logins += 1
        self._send(login_frame(Login(IMEI), self.logins))
        self.waits = ANSWER_TIMEOUT

    def _report(self, second: int) -> None:
        for moment in self.memory:
            report = Report(TIME + moment, 41.3275, 19.8187)
            self._send(position_frame(report, 1, buffered=moment < second))
        self.memory.clear()
        if second % HEARTBEAT_INTERVAL == 0 and not self.waits:
            self._send(heartbeat_frame(State(), 1))
            self.waits = ANSWER_TIMEOUT

    def _send(self, frame: Frame) -> None:
        assert self.socket is not None
        self.socket.send(encode_frame(frame))

    def _disconnect(self) -> None:
        assert self.socket is not None
        self.socket.close()
        self.socket, self.is_online, self.waits = None, False, RETRY_DELAY


@pytest.mark.parametrize("outage", Outage)
def test_outage_of_four_minutes_loses_no_position(outage: Outage) -> None:
    plane = Plane(build_dialect=build_dialect)
    device = Device(plane)
    for second in range(900):
        if second == 175:  # shortly before a heartbeat, whose answer is withheld
            plane.begin(outage)
        if second == 175 + 240:
            assert len(device.memory) > 15
            assert not device.is_online
            plane.end()
        device.live(second)
        plane.run(1)
    expected = [iso_milliseconds((TIME + second) * 1000) for second in range(0, 900, INTERVAL)]
    stored = [json.loads(payload) for payload in plane.stored]
    positions = [one for one in stored if one["latitude"] is not None]
    assert sorted(one["timestamp"] for one in positions) == expected
    assert device.logins > 5
    assert plane.gateway.connections == 1
    assert plane.gateway.figures.lost == 0
