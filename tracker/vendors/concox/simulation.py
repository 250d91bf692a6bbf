"""Simulated Concox devices.

They keep what they record while the server does not answer their login, and mark it as a re-upload
when they send it. What they have sent they do not keep; only the answer to a heartbeat shows that
the server has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Final

from tracker.outcomes import Decoded, Incomplete
from tracker.position import Entry
from tracker.vendors.concox.content import COMMAND, HEARTBEAT, read_content
from tracker.vendors.concox.frames import Frame, decode_frame, encode_frame
from tracker.vendors.concox.login import NUMBER as LOGIN
from tracker.vendors.concox.login import Login, login_frame
from tracker.vendors.concox.positions import CODEC, entry
from tracker.vendors.concox.reports import (
    Report,
    State,
    answer_frame,
    heartbeat_frame,
    position_frame,
)
from tracker.vendors.simulation import (
    Broken,
    CommandReceived,
    Event,
    HeartbeatAnswered,
    LoggedIn,
    Moment,
)

#: Answer to a command that the device does not know. The documents have no text for it.
UNKNOWN: Final = "Unknown command"

_MAX_SATELLITES: Final = 15
_MAX_SPEED: Final = 255
_FLAG: Final = slice(1, 5)


class ConcoxSimulation:
    """See :class:`tracker.vendors.simulation.Simulation`."""

    port = 5023
    codecs = (CODEC,)
    max_records = 1
    resolution = 1.0
    refuses = False
    logs_in = True
    acknowledges = False
    #: Source: Concox protocol 3.1, chapter on the course of a connection.
    response_timeout = 5.0
    #: Devices have three minutes; the counts of a fleet would be as late.
    heartbeat_interval = 10.0

    def device(self, device_id: str, codec: str, random: Random, started: float) -> ConcoxDevice:
        """See Simulation."""
        return ConcoxDevice(device_id)


class ConcoxDevice:
    """Login, then positions that are not answered, and heartbeats that are.

    Commands may arrive at any time after the login.
    """

    def __init__(self, imei: str) -> None:
        self._imei = imei
        self._serial = 0
        self._received = b""
        self._unconfirmed = 0  # records on this connection since the last answered heartbeat
        self._heartbeats: deque[tuple[int, int]] = deque()  # (serial, records before it)
        self._state = State(acc=True)

    def connected(self) -> bytes:
        """See DeviceSide."""
        self._received = b""
        self._unconfirmed = 0
        self._heartbeats.clear()
        return encode_frame(login_frame(Login(self._imei), self._next_serial()))

    def feed(self, data: bytes) -> None:
        """See DeviceSide."""
        self._received += data

    def next_event(self) -> Event | None:
        """See DeviceSide."""
        while self._received:
            outcome = decode_frame(self._received)
            if isinstance(outcome, Incomplete):
                return None
            if not isinstance(outcome, Decoded):
                return Broken()
            self._received = self._received[outcome.used :]
            event = self._event(outcome.value)
            if event is not None:
                return event
        return None

    def _event(self, frame: Frame) -> Event | None:
        if frame.number == LOGIN:
            return LoggedIn()
        if frame.number == COMMAND and frame.content:
            end = frame.content[0] + 1
            text = frame.content[_FLAG.stop : end].decode("ascii", errors="backslashreplace")
            return CommandReceived(text, CODEC, int.from_bytes(frame.content[_FLAG], "big"))
        if frame.number == HEARTBEAT:
            return self._heartbeat_answered(frame.serial)
        return None  # the answer to another frame

    def _heartbeat_answered(self, serial: int) -> HeartbeatAnswered | None:
        if serial not in (sent for sent, _ in self._heartbeats):
            return None
        records = 0
        while self._heartbeats:
            sent, records = self._heartbeats.popleft()
            if sent == serial:
                break
        self._unconfirmed -= records
        self._heartbeats = deque((sent, more - records) for sent, more in self._heartbeats)
        return HeartbeatAnswered(records)

    def record(self, moment: Moment) -> Report:
        """See DeviceSide."""
        fix = moment.fix
        return Report(
            moment.time,
            fix.latitude,
            fix.longitude,
            speed=min(fix.speed, _MAX_SPEED),
            course=fix.angle,
            satellites=min(moment.satellites, _MAX_SATELLITES),
        )

    def packet(self, records: Sequence[Report], stored: bool) -> bytes:
        """See DeviceSide."""
        (report,) = records
        self._unconfirmed += 1
        return encode_frame(position_frame(report, self._next_serial(), buffered=stored))

    def heartbeat(self) -> bytes:
        """See DeviceSide."""
        serial = self._next_serial()
        self._heartbeats.append((serial, self._unconfirmed))
        return encode_frame(heartbeat_frame(self._state, serial))

    def entries(self, packet: bytes) -> Sequence[Entry]:
        """See DeviceSide."""
        outcome = decode_frame(packet)
        if not isinstance(outcome, Decoded):
            raise ValueError("not a packet of this device")
        return (entry(self._imei, outcome.value, read_content(outcome.value), 0.0),)

    def execute(self, text: str, moment: Moment) -> str | None:
        """See DeviceSide; the texts are in the style of a GT06N."""
        name, *arguments = text.rstrip("#").upper().split(",")
        fix = moment.fix
        match name, arguments:
            case "STATUS", []:
                return "Battery:4.1V,NORMAL; GPRS:Link Up; GSM Signal Level:Strong; GPS:Successful"
            case "WHERE", []:
                return (
                    f"Current position! Lat:N{fix.latitude:.6f},Lon:E{fix.longitude:.6f},"
                    f"Course:{fix.angle},Speed:{fix.speed}Km/h"
                )
            case "VERSION", []:
                return "[VERSION]GT06N_20_60DM2_B25E_R20"
            case "RELAY", ["0" | "1" as state]:
                self._state = State(acc=True, oil_cut=state == "1")
                cut = "Cut off" if state == "1" else "Restore"
                return f"{cut} the fuel supply: Success!"
            case "RESET", []:
                return None
        return UNKNOWN

    def answer(self, request: int, text: str) -> bytes:
        """See DeviceSide."""
        return encode_frame(answer_frame(text, request, self._next_serial()))

    def refusal(self, request: int) -> bytes:
        """See DeviceSide."""
        return b""

    def _next_serial(self) -> int:
        self._serial = self._serial % 0xFFFF + 1
        return self._serial
