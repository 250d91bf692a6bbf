"""Simulated Teltonika devices."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.position import Entry
from tracker.vendors.simulation import (
    Acknowledged,
    Broken,
    CommandReceived,
    Event,
    LoggedIn,
    LoginRefused,
    Moment,
)
from tracker.vendors.teltonika.avl import CODECS, Codec, Record, decode_packet, encode_packet
from tracker.vendors.teltonika.devicecommands import (
    MAX_COMMAND_BYTES,
    CommandInterpreter,
    answer_frame,
    maybe_command,
)
from tracker.vendors.teltonika.envelope import PREAMBLE, decode_frame, encode_frame
from tracker.vendors.teltonika.login import ACCEPT, encode_login
from tracker.vendors.teltonika.messages import NACK, RESPONSE, Message
from tracker.vendors.teltonika.positions import entries

#: Length of the ACK of a packet, in bytes.
_COUNT: Final = 4
#: Generation type of a record that is made at a fixed interval.
_PERIODICAL: Final = 7
_CODECS: Final = {codec.name: codec for codec in CODECS.values()}
_USUAL: Final = "8E"


class TeltonikaSimulation:
    """See :class:`tracker.vendors.simulation.Simulation`."""

    port = 5027
    codecs = (_USUAL, *sorted(_CODECS.keys() - {_USUAL}))
    max_records = 50
    resolution = 0.001
    refuses = True
    logs_in = True
    acknowledges = True
    #: Teltonika's "response timeout".
    response_timeout = 30.0
    heartbeat_interval = 0.0

    def device(self, device_id: str, codec: str, random: Random, started: float) -> TeltonikaDevice:
        """See Simulation."""
        return TeltonikaDevice(device_id, _CODECS[codec], random, started)


class TeltonikaDevice:
    """Login, then one packet at a time, the next after the ACK of the last.

    Commands may arrive at any time after the login.
    """

    def __init__(self, imei: str, codec: Codec, random: Random, started: float) -> None:
        self._imei = imei
        self._codec = codec
        self._random = random
        self._interpreter = CommandInterpreter(imei, started)
        self._received = b""
        self._logged_in = False
        self._sent = 0  # number of records in the packet that is not acknowledged

    def connected(self) -> bytes:
        """See DeviceSide."""
        self._received, self._logged_in, self._sent = b"", False, 0
        return encode_login(self._imei)

    def feed(self, data: bytes) -> None:
        """See DeviceSide."""
        self._received += data

    def next_event(self) -> Event | None:
        """See DeviceSide."""
        if not self._received:
            return None
        if not self._logged_in:
            self._logged_in = self._take(1) == ACCEPT
            return LoggedIn() if self._logged_in else LoginRefused()
        head = self._received[:_COUNT]
        # A packet has at least one record, so zero is not an ACK: it is the preamble of a frame.
        if self._sent and head != PREAMBLE:
            return self._acknowledged() if len(head) == _COUNT else None
        frame = decode_frame(self._received, MAX_COMMAND_BYTES)
        if isinstance(frame, Incomplete):
            return None
        if isinstance(frame, Fatal) or (command := maybe_command(frame.value)) is None:
            return Broken()
        self._take(frame.used)
        foreign = command.imei not in (None, self._imei)
        return CommandReceived(_readable(command.content), command.codec.name, command, foreign)

    def _acknowledged(self) -> Acknowledged:
        sent, self._sent = self._sent, 0
        return Acknowledged(int.from_bytes(self._take(_COUNT), "big") == sent)

    def _take(self, size: int) -> bytes:
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def record(self, moment: Moment) -> Record:
        """See DeviceSide."""
        fix = moment.fix
        return Record(
            timestamp=moment.timestamp,
            priority=0,
            longitude=round(fix.longitude * 1e7),
            latitude=round(fix.latitude * 1e7),
            altitude=fix.altitude,
            angle=fix.angle,
            satellites=moment.satellites,
            speed=fix.speed,
            event=0,
            elements=(
                (239, 1, 1),  # ignition
                (240, 1, int(fix.speed > 0)),  # movement
                (21, 1, self._random.randint(2, 5)),  # GSM signal
                (200, 1, 0),  # sleep mode
                (69, 1, 1),  # GNSS on, with a fix
                (181, 2, self._random.randint(8, 25)),  # PDOP, tenths
                (182, 2, self._random.randint(5, 15)),  # HDOP, tenths
                (66, 2, self._random.randint(13_600, 14_400)),  # external voltage, mV
                (24, 2, fix.speed),
                (67, 2, self._random.randint(3_900, 4_150)),  # battery, mV
                (241, 4, 27_601),  # operator
                (16, 4, moment.odometer % 2**32),  # total odometer, m
            ),
            generation=_PERIODICAL if self._codec.generation else None,
        )

    def packet(self, records: Sequence[Record], stored: bool) -> bytes:
        """See DeviceSide."""
        self._sent = len(records)
        return encode_frame(encode_packet(self._codec, records))

    def heartbeat(self) -> bytes:
        """See DeviceSide."""
        return b""

    def entries(self, packet: bytes) -> Sequence[Entry]:
        """See DeviceSide."""
        frame = decode_frame(packet, len(packet))
        decoded = decode_packet(frame.value) if isinstance(frame, Decoded) else frame
        if not isinstance(decoded, Decoded):
            raise ValueError("not a packet of this device")
        return entries(self._imei, decoded.value, 0.0, lambda: None)

    def execute(self, text: str, moment: Moment) -> str | None:
        """See DeviceSide."""
        return self._interpreter.execute(text, moment)

    def answer(self, request: Message, text: str) -> bytes:
        """See DeviceSide."""
        return answer_frame(request, self._imei, RESPONSE, text)

    def refusal(self, request: Message) -> bytes:
        """See DeviceSide."""
        return answer_frame(request, self._imei, NACK)


def _readable(content: bytes) -> str:
    """Return the text of a command; bytes that are not UTF-8 in hex, after 0x."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return f"0x{content.hex()}"
