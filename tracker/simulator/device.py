"""A simulated Teltonika device.

It makes records, keeps them until they are acknowledged, retransmits them after a reconnect, and
executes commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from random import Random
from typing import Any, Final, NamedTuple

from attrs import define, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from tracker.outcomes import Fatal, Incomplete
from tracker.runtime.backoff import Backoff
from tracker.simulator.commands import (
    MAX_COMMAND_BYTES,
    CommandInterpreter,
    answer_frame,
    maybe_command,
)
from tracker.simulator.track import Track
from tracker.simulator.vehicle import Flash, Vehicle
from tracker.vendors.teltonika.avl import Codec, Record, encode_packet
from tracker.vendors.teltonika.envelope import PREAMBLE, decode_frame, encode_frame
from tracker.vendors.teltonika.login import ACCEPT, encode_login
from tracker.vendors.teltonika.messages import NACK, RESPONSE, Message

#: Seconds that a device waits for the ACK of a login or packet before it reconnects
#: (Teltonika's "response timeout").
RESPONSE_TIMEOUT: Final = 30.0
#: Seconds between attempts to connect: initial delay and maximum.
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 10.0

#: Seconds after which a slow device answers a command.
ANSWER_DELAY: Final = 3.0

#: Length of the ACK of a packet, in bytes.
_COUNT: Final = 4

#: Called with IMEI, codec and records when a device receives the ACK of a packet.
OnAcknowledged = Callable[[str, Codec, Sequence[Record]], None]
#: Called with IMEI, codec and text when a device has executed a command, before it answers.
OnCommand = Callable[[str, str, str], None]


class Answers(Enum):
    """The reaction of devices to a command."""

    PROMPT = "prompt"
    """Execute it and answer at once."""
    SLOW = "slow"
    """Execute it at once, and answer later, in the order of the commands."""
    MUTE = "mute"
    """Execute it, and answer nothing."""
    REFUSE = "refuse"
    """Do not execute it, and answer with a NACK."""


class ExecutedCommand(NamedTuple):
    """A command that a device has executed."""

    text: str
    codec: str


@frozen
class Behaviour:
    """The behaviour of the devices of a fleet."""

    codec: Codec
    interval: float = 1.0
    """Seconds between two records."""
    records: int = 1
    """Records per packet; a device waits until it has that many."""
    response_timeout: float = RESPONSE_TIMEOUT
    answers: Answers = Answers.PROMPT
    answer_delay: float = ANSWER_DELAY
    """Delay of the answers of slow devices, in seconds."""


@define
class Counters:
    """Counts of a fleet, in records unless noted, and its latest error."""

    connected: int = 0
    """Devices that are logged in now."""
    recorded: int = 0
    sent: int = 0
    """Transmissions, including retransmissions."""
    retransmitted: int = 0
    """Transmissions of records that had been sent before."""
    acknowledged: int = 0
    accepted_connections: int = 0
    """Connections that the server's port has accepted."""
    refused_logins: int = 0
    commands: int = 0
    """Commands that were executed."""
    failure: BaseException | None = None
    """The latest error of an attempt to connect."""


class SimulatedDevice(Service):
    """One device, from power-on (start) to power-off (stop).

    :param clock: IReactorTime; its seconds are the device's time (UNIX).
    """

    def __init__(
        self,
        clock: IReactorTime,
        random: Random,
        imei: str,
        track: Track,
        *,
        endpoint: IStreamClientEndpoint,
        behaviour: Behaviour,
        counters: Counters,
        on_acknowledged: OnAcknowledged | None = None,
        on_command: OnCommand | None = None,
    ) -> None:
        self.imei = imei
        self.clock = clock
        self.behaviour = behaviour
        self.counters = counters
        self.executed: list[ExecutedCommand] = []
        self._random = random
        self._vehicle = Vehicle(random, track, behaviour.codec, behaviour.interval)
        self._flash = Flash(behaviour.records)
        self._endpoint = endpoint
        self._on_acknowledged = on_acknowledged
        self._on_command = on_command
        self._interpreter = CommandInterpreter(imei, clock.seconds())
        self._recording = LoopingCall(self._record)
        self._recording.clock = clock
        self._first_record: IDelayedCall | None = None
        self._connection: _DeviceProtocol | None = None
        self._connecting: Deferred[Any] | None = None
        self._reconnect: IDelayedCall | None = None
        self._backoff = Backoff(self.clock, FIRST_RETRY, LAST_RETRY, random=self._random.random)
        self._gone: Deferred[None] | None = None

    @property
    def unacknowledged(self) -> int:
        """Number of records in the device's flash."""
        return len(self._flash)

    def startService(self) -> None:
        """Power on: connect, and start recording after a random part of the interval."""
        super().startService()
        self._flash.flushing = False
        self._gone = None
        self._connect()
        self._first_record = self.clock.callLater(
            self._random.uniform(0, self.behaviour.interval), self._start_recording
        )

    def stopService(self) -> Deferred[None]:
        """Power off; the Deferred fires when the connection has ended."""
        super().stopService()
        self._end_recording()
        if self._reconnect is not None:
            self._reconnect.cancel()
            self._reconnect = None
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is None:
            return succeed(None)
        self._gone = Deferred()
        self._connection.close()
        return self._gone

    def stop_recording(self) -> None:
        """Stop making records, and send the remaining ones even if they do not fill a packet."""
        self._end_recording()
        self._flash.flushing = True
        if self._connection is not None:
            self._connection.send()

    def _end_recording(self) -> None:
        if self._first_record is not None and self._first_record.active():
            self._first_record.cancel()
        if self._recording.running:
            self._recording.stop()

    def next_packet(self) -> list[Record]:
        """Return the oldest records, to be sent in one packet; empty if too few are saved."""
        packet, repeated = self._flash.next_packet()
        self.counters.sent += len(packet)
        self.counters.retransmitted += repeated
        return packet

    def acknowledged(self, packet: Sequence[Record]) -> None:
        """Remove acknowledged records."""
        self._flash.acknowledged(packet)
        self.counters.acknowledged += len(packet)
        if self._on_acknowledged is not None:
            self._on_acknowledged(self.imei, self.behaviour.codec, packet)

    def execute(self, codec: str, text: str) -> str | None:
        """Execute a command, and record it.

        :return: the answer; None if the device restarts instead.
        """
        answer = self._interpreter.execute(text, self._vehicle.moment(self.clock.seconds()))
        self.executed.append(ExecutedCommand(text, codec))
        self.counters.commands += 1
        if self._on_command is not None:
            self._on_command(self.imei, codec, text)
        return answer

    def connection_made(self, connection: _DeviceProtocol) -> None:
        """Note that the server's port accepted the connection."""
        self._connection = connection
        self.counters.accepted_connections += 1

    def logged_in(self) -> None:
        """Note that the server accepted the login."""
        self._backoff.succeeded()
        self.counters.connected += 1

    def connection_ended(self, was_logged_in: bool) -> None:
        """Note that the connection has ended; reconnect unless the device is off."""
        self._connection = None
        if was_logged_in:
            self.counters.connected -= 1
        if self._gone is not None:
            self._gone.callback(None)
        elif self.running:
            self._schedule_reconnect()

    def _connect(self) -> None:
        self._reconnect = None
        connecting: Deferred[Any] = self._endpoint.connect(_DeviceFactory(self))
        self._connecting = connecting.addErrback(self._not_connected)

    def _not_connected(self, failure: Failure) -> None:
        if self.running:
            self.counters.failure = failure.value
            self._schedule_reconnect()

    def _schedule_reconnect(self) -> None:
        self._reconnect = self.clock.callLater(self._backoff.failed(), self._connect)

    def _start_recording(self) -> None:
        self._vehicle.begin(self.clock.seconds())
        self._recording.start(self.behaviour.interval)

    def _record(self) -> None:
        self._flash.append(self._vehicle.record(self.clock.seconds()))
        self.counters.recorded += 1
        if self._connection is not None:
            self._connection.send()


class _DeviceProtocol(Protocol):
    """Connection of a device: login, then one packet at a time, the next after the ACK of the last.

    Commands may arrive at any time after the login, and are answered in that order.
    """

    transport: ITCPTransport

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device
        self._received = b""
        self._logged_in = False
        self._ending = False
        self._packet: list[Record] = []  # sent, and not acknowledged
        self._timeout: IDelayedCall | None = None
        self._unanswered: deque[tuple[float, bytes]] = deque()  # (time it is due, answer)
        self._answering: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._device.connection_made(self)
        self.transport.write(encode_login(self._device.imei))
        self._await_response()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if not self._logged_in:
            reply, self._received = self._received[:1], self._received[1:]
            if reply != ACCEPT:
                self._device.counters.refused_logins += 1
                self._abort()
                return
            self._cancel_timeout()
            self._logged_in = True
            self._device.logged_in()
            self.send()
        while not self._ending and self._read():
            pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cancel_timeout()
        self._end()
        self._device.connection_ended(self._logged_in)

    def send(self) -> None:
        """Send the next packet, unless the ACK of another is pending."""
        if not self._logged_in or self._packet or self._ending:
            return
        self._packet = self._device.next_packet()
        if self._packet:
            data = encode_packet(self._device.behaviour.codec, self._packet)
            self.transport.write(encode_frame(data))
            self._await_response()

    def close(self) -> None:
        """Close the connection, ignore further data, and leave pending commands unanswered."""
        self._end()
        self.transport.loseConnection()

    def _read(self) -> bool:
        """Process one ACK or command; return False if neither is complete."""
        head = self._received[:_COUNT]
        # A packet has at least one record, so zero is not an ACK: it is the preamble of a frame.
        if self._packet and head != PREAMBLE:
            if len(head) < _COUNT:
                return False
            self._received = self._received[_COUNT:]
            self._read_count(int.from_bytes(head, "big"))
            return True
        frame = decode_frame(self._received, MAX_COMMAND_BYTES)
        if isinstance(frame, Incomplete):
            return False
        if isinstance(frame, Fatal) or (command := maybe_command(frame.value)) is None:
            self._abort()
            return False
        self._received = self._received[frame.used :]
        self._execute(command)
        return True

    def _read_count(self, count: int) -> None:
        self._cancel_timeout()
        packet, self._packet = self._packet, []
        if count == len(packet):
            self._device.acknowledged(packet)
        self.send()

    def _execute(self, command: Message) -> None:
        device = self._device
        foreign = command.imei not in (None, device.imei)
        if foreign or device.behaviour.answers is Answers.REFUSE:
            self._answer(answer_frame(command, device.imei, NACK))
            return
        answer = device.execute(command.codec.name, _readable(command.content))
        if answer is None:
            self.close()
        else:
            self._answer(answer_frame(command, device.imei, RESPONSE, answer))

    def _answer(self, frame: bytes) -> None:
        behaviour = self._device.behaviour
        if behaviour.answers is Answers.MUTE:
            return
        if behaviour.answers is not Answers.SLOW:
            self.transport.write(frame)
            return
        due = self._device.clock.seconds() + behaviour.answer_delay
        self._unanswered.append((due, frame))
        if self._answering is None:
            self._answer_later()

    def _answer_later(self) -> None:
        # Only the oldest answer has a timer: several timers that are due at the same time would
        # fire in any order.
        due, _ = self._unanswered[0]
        delay = max(0.0, due - self._device.clock.seconds())
        self._answering = self._device.clock.callLater(delay, self._answer_oldest)

    def _answer_oldest(self) -> None:
        self._answering = None
        _, frame = self._unanswered.popleft()
        self.transport.write(frame)
        if self._unanswered:
            self._answer_later()

    def _await_response(self) -> None:
        self._timeout = self._device.clock.callLater(
            self._device.behaviour.response_timeout, self._abort
        )

    def _cancel_timeout(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()

    def _abort(self) -> None:
        self._end()
        self.transport.abortConnection()

    def _end(self) -> None:
        self._ending = True
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None


class _DeviceFactory(Factory):
    noisy = False

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device

    def buildProtocol(self, addr: IAddress | None) -> _DeviceProtocol:
        return _DeviceProtocol(self._device)


def _readable(content: bytes) -> str:
    """Return the text of a command; bytes that are not UTF-8 in hex, after 0x."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return f"0x{content.hex()}"
