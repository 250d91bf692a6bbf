"""Simulated Queclink devices: vehicles with the ASCII encoding, and SACK enabled.

They send reports as soon as they are connected, because the protocol has no login. A report that
was not acknowledged on its connection is sent as ``+BUFF`` on the next one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.position import Entry
from tracker.vendors.queclink.encoding import (
    MAX_PLACES,
    Place,
    Sender,
    decode_sack,
    encode_answer,
    encode_fri,
    encode_heartbeat,
)
from tracker.vendors.queclink.framing import decode_frame
from tracker.vendors.queclink.reader import EntryReader
from tracker.vendors.queclink.text import ASCII, TextFrame
from tracker.vendors.simulation import (
    Acknowledged,
    Broken,
    CommandReceived,
    Event,
    HeartbeatAnswered,
    LoggedIn,
    Moment,
)

#: Maximum length of a frame of the server.
_MAX_BYTES: Final = 4096
#: Speed, as the first field of the status: ignition on, at rest or moving.
_AT_REST: Final = "210100"
_MOVING: Final = "220100"
_COMMAND: Final = re.compile(rb"(AT\+GT[A-Z0-9]{3}=)[^,$]*(,[^$]*\$)")
_START: Final = (b"+SACK:", b"AT+GT")


class QueclinkSimulation:
    """See :class:`tracker.vendors.simulation.Simulation`."""

    port = 5004
    codecs = (ASCII,)
    max_records = MAX_PLACES
    resolution = 1.0
    refuses = False
    logs_in = False
    acknowledges = True
    #: The documents of most models give no time; those of the GL601 give 40 s.
    response_timeout = 40.0
    heartbeat_interval = 60.0

    def device(self, device_id: str, codec: str, random: Random, started: float) -> QueclinkDevice:
        """See Simulation."""
        return QueclinkDevice(device_id, random, started)


class Record(NamedTuple):
    """A position, and the readings that a report has once."""

    place: Place
    odometer: int
    external_power: int
    battery: int


class _Report(NamedTuple):
    """A report that may be sent again: unchanged, except for its header."""

    records: Sequence[Record]
    sender: Sender


class QueclinkDevice:
    """One report at a time, the next after the SACK of the last.

    Commands may arrive at any time, with any password.
    """

    def __init__(self, device_id: str, random: Random, started: float) -> None:
        self._device_id = device_id
        self._random = random
        self._time = started
        self._count = 0
        self._received = b""
        self._answered = False
        self._report: _Report | None = None  # the last that was sent
        self._sent = False
        self._reader = EntryReader(Limits(), 0, lambda: None)

    def connected(self) -> bytes:
        """See DeviceSide."""
        self._received, self._answered, self._sent = b"", False, False
        return b""

    def feed(self, data: bytes) -> None:
        """See DeviceSide."""
        self._received += data

    def next_event(self) -> Event | None:
        """See DeviceSide."""
        while True:
            end = self._received.find(b"$") + 1
            if not end:
                begun = self._received[:5]
                begins = any(start.startswith(begun) or begun.startswith(start) for start in _START)
                return None if begins and len(self._received) < _MAX_BYTES else Broken()
            frame = self._received[:end]
            if frame.startswith(b"+SACK:") and not self._answered:
                self._answered = True
                return LoggedIn()  # the frame is read again
            self._received = self._received[end:]
            event = self._event(frame)
            if event is not None:
                return event

    def _event(self, frame: bytes) -> Event | None:
        command = _COMMAND.fullmatch(frame)
        if command is not None:
            text = (command[1] + b"***" + command[2]).decode("utf-8", errors="backslashreplace")
            return CommandReceived(text, ASCII, frame)
        sack = decode_sack(frame)
        if sack is None:
            return Broken()
        count, answers_heartbeat = sack
        if answers_heartbeat:
            return HeartbeatAnswered()
        if not self._sent or self._report is None or count != self._report.sender.count_number:
            return None  # that of an answer to a command, or of a report that was sent twice
        self._sent, self._report = False, None
        return Acknowledged(True)

    def record(self, moment: Moment) -> Record:
        """See DeviceSide."""
        fix = moment.fix
        self._time = moment.time
        place = Place(
            moment.time,
            fix.longitude,
            fix.latitude,
            speed=fix.speed,
            azimuth=fix.angle,
            altitude=fix.altitude,
        )
        return Record(
            place,
            moment.odometer,
            external_power=self._random.randint(13_600, 14_400),
            battery=self._random.randint(95, 100),
        )

    def packet(self, records: Sequence[Record], stored: bool) -> bytes:
        """See DeviceSide."""
        report = self._report
        if report is None or report.records != records:
            report = _Report(list(records), self._next_sender(records[-1].place.time))
        self._report, self._sent = report, True
        last = records[-1]
        return encode_fri(
            report.sender,
            [record.place for record in records],
            buffered=stored,
            external_power=last.external_power,
            mileage=last.odometer / 1000,
            battery=last.battery,
            status=_MOVING if last.place.speed else _AT_REST,
        )

    def heartbeat(self) -> bytes:
        """See DeviceSide."""
        return encode_heartbeat(self._next_sender(self._time))

    def entries(self, packet: bytes) -> Sequence[Entry]:
        """See DeviceSide."""
        outcome = decode_frame(packet, len(packet))
        if not isinstance(outcome, Decoded) or not isinstance(outcome.value, TextFrame):
            raise ValueError("not a packet of this device")
        return self._reader.read(outcome.value, self._device_id, 0.0).entries

    def execute(self, text: str, moment: Moment) -> str:
        """See DeviceSide; the answer only confirms the command."""
        self._time = moment.time
        return ""

    def answer(self, request: bytes, text: str) -> bytes:
        """See DeviceSide."""
        return encode_answer(request, self._next_sender(self._time)) or b""

    def refusal(self, request: bytes) -> bytes:
        """See DeviceSide."""
        return b""

    def _next_sender(self, time: float) -> Sender:
        self._count = (self._count + 1) & 0xFFFF
        return Sender(self._device_id, self._count, time)
