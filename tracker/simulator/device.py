"""A simulated device.

It makes records, sends them in the protocol of its vendor, keeps them until they are acknowledged
if the protocol has ACKs, and executes commands.
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

from tracker.position import Entry
from tracker.runtime.backoff import Backoff
from tracker.simulator.track import Track
from tracker.simulator.vehicle import Flash, Vehicle
from tracker.vendors.simulation import (
    Acknowledged,
    Broken,
    CommandReceived,
    HeartbeatAnswered,
    LoggedIn,
    LoginRefused,
    Simulation,
)

#: Seconds between attempts to connect: initial delay and maximum.
FIRST_RETRY: Final = 0.5
LAST_RETRY: Final = 10.0

#: Seconds after which a slow device answers a command.
ANSWER_DELAY: Final = 3.0

#: Called with the entries that ingestion makes of a packet, when a device receives its ACK.
OnAcknowledged = Callable[[Sequence[Entry]], None]
#: Called with device ID, codec and text when a device has executed a command, before it answers.
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
    """Do not execute it, and answer that it is refused."""


class ExecutedCommand(NamedTuple):
    """A command that a device has executed."""

    text: str
    codec: str


@frozen
class Behaviour:
    """The behaviour of the devices of a fleet."""

    simulation: Simulation
    """The protocol of their vendor."""
    codec: str
    interval: float = 1.0
    """Seconds between two records."""
    records: int = 1
    """Records per packet; a device waits until it has that many."""
    response_timeout: float | None = None
    """Seconds that a device waits for an answer before it reconnects; None: as its vendor's do."""
    heartbeat_interval: float | None = None
    """Seconds between two heartbeats; None: as its vendor's devices."""
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
    unconfirmed: int = 0
    """Sent and not kept, on connections that ended before the server confirmed them."""
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
        device_id: str,
        track: Track,
        *,
        endpoint: IStreamClientEndpoint,
        behaviour: Behaviour,
        counters: Counters,
        on_acknowledged: OnAcknowledged | None = None,
        on_command: OnCommand | None = None,
    ) -> None:
        self.device_id = device_id
        self.clock = clock
        self.behaviour = behaviour
        self.counters = counters
        self.executed: list[ExecutedCommand] = []
        self._random = random
        self.side = behaviour.simulation.device(device_id, behaviour.codec, random, clock.seconds())
        self._vehicle = Vehicle(random, track, behaviour.interval, behaviour.simulation.resolution)
        self._flash = Flash(behaviour.records)
        self._endpoint = endpoint
        self._on_acknowledged = on_acknowledged
        self._on_command = on_command
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
        """Number of records that the device keeps, or has sent without an answer yet."""
        sent = self._connection.unconfirmed if self._connection is not None else 0
        return len(self._flash) + sent

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
            self._connection.flush()

    @property
    def parked(self) -> bool:
        """True if the device no longer makes records, and has to send the rest."""
        return self._flash.flushing

    def _end_recording(self) -> None:
        if self._first_record is not None and self._first_record.active():
            self._first_record.cancel()
        if self._recording.running:
            self._recording.stop()

    def next_packet(self) -> tuple[list[Any], bytes]:
        """Return the oldest records, and their packet; none if too few are saved."""
        records, repeated, stored = self._flash.next_packet()
        if not records:
            return [], b""
        self.counters.sent += len(records)
        self.counters.retransmitted += repeated
        if not self.behaviour.simulation.acknowledges:
            self._flash.discard(records)
        return records, self.side.packet(records, stored)

    def acknowledged(self, records: Sequence[Any], packet: bytes) -> None:
        """Remove acknowledged records."""
        if self.behaviour.simulation.acknowledges:
            self._flash.discard(records)
        self.counters.acknowledged += len(records)
        if self._on_acknowledged is not None:
            self._on_acknowledged(self.side.entries(packet))

    def execute(self, codec: str, text: str) -> str | None:
        """Execute a command, and record it.

        :return: the answer; None if the device restarts instead.
        """
        answer = self.side.execute(text, self._vehicle.moment(self.clock.seconds()))
        self.executed.append(ExecutedCommand(text, codec))
        self.counters.commands += 1
        if self._on_command is not None:
            self._on_command(self.device_id, codec, text)
        return answer

    def connection_made(self, connection: _DeviceProtocol) -> None:
        """Note that the server's port accepted the connection."""
        self._connection = connection
        self.counters.accepted_connections += 1

    def logged_in(self) -> None:
        """Note that the server accepted the login."""
        self._backoff.succeeded()
        self.counters.connected += 1

    def begin_sending(self) -> None:
        """Note that records can be sent from now on."""
        self._flash.connected()

    def connection_ended(self, was_logged_in: bool, unconfirmed: int) -> None:
        """Note that the connection has ended; reconnect unless the device is off."""
        self._connection = None
        self.counters.unconfirmed += unconfirmed
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
        self._flash.append(self.side.record(self._vehicle.advance(self.clock.seconds())))
        self.counters.recorded += 1
        if self._connection is not None:
            self._connection.send()


class _DeviceProtocol(Protocol):
    """Connection of a device: its login, packets, heartbeats, and answers to commands.

    Commands may arrive at any time, and are answered in that order.
    """

    transport: ITCPTransport

    def __init__(self, device: SimulatedDevice) -> None:
        simulation = device.behaviour.simulation
        self._device = device
        self._side = device.side
        self._acknowledges = simulation.acknowledges
        self._logged_in = False
        self._may_send = not simulation.logs_in
        self._ending = False
        self._sent: deque[tuple[list[Any], bytes]] = deque()  # packets that are not acknowledged
        self._timeout = _Timeout(device, self._abort)
        self._heartbeat_timeout = _Timeout(device, self._abort)
        self._heartbeats = LoopingCall(self._beat)
        self._heartbeats.clock = device.clock
        self._unanswered: deque[tuple[float, bytes]] = deque()  # (time it is due, answer)
        self._answering: IDelayedCall | None = None

    @property
    def unconfirmed(self) -> int:
        """Number of records that were sent, are not kept, and may be lost."""
        return 0 if self._acknowledges else sum(len(records) for records, _ in self._sent)

    def connectionMade(self) -> None:
        self._device.connection_made(self)
        login = self._side.connected()
        if login:
            self.transport.write(login)
            self._timeout.start()
        if self._may_send:
            self._begin()

    def dataReceived(self, data: bytes) -> None:
        self._side.feed(data)
        while not self._ending and (event := self._side.next_event()) is not None:
            match event:
                case LoggedIn():
                    self._accepted()
                case LoginRefused():
                    self._device.counters.refused_logins += 1
                    self._abort()
                case Acknowledged(accepted):
                    self._acknowledged(accepted)
                case HeartbeatAnswered(records):
                    self._heartbeat_answered(records)
                case CommandReceived():
                    self._execute(event)
                case Broken():
                    self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end()
        self._device.connection_ended(self._logged_in, self.unconfirmed)

    def send(self) -> None:
        """Send what may be sent: the next packet, or all if the server acknowledges none."""
        while self._may_send and not self._ending and not (self._acknowledges and self._sent):
            records, packet = self._device.next_packet()
            if not records:
                break
            self._sent.append((records, packet))
            self.transport.write(packet)
            if self._acknowledges:
                self._timeout.start()

    def flush(self) -> None:
        """Send what may be sent; if it is the last, ask for its confirmation."""
        self.send()
        if self._device.parked and self.unconfirmed and self._logged_in and not self._ending:
            self._beat()

    def close(self) -> None:
        """Close the connection, ignore further data, and leave pending commands unanswered."""
        self._end()
        self.transport.loseConnection()

    def _accepted(self) -> None:
        self._logged_in = True
        self._device.logged_in()
        if not self._may_send:
            self._timeout.cancel()
            self._may_send = True
            self._begin()

    def _begin(self) -> None:
        """Send saved records and heartbeats from now on."""
        behaviour = self._device.behaviour
        interval = behaviour.heartbeat_interval or behaviour.simulation.heartbeat_interval
        if interval:
            self._heartbeats.start(interval, now=False)
        self._device.begin_sending()
        self.flush()

    def _acknowledged(self, accepted: bool) -> None:
        self._timeout.cancel()
        records, packet = self._sent.popleft()
        if accepted:
            self._device.acknowledged(records, packet)
        self.send()

    def _beat(self) -> None:
        if not self._heartbeat_timeout.running:
            self.transport.write(self._side.heartbeat())
            self._heartbeat_timeout.start()

    def _heartbeat_answered(self, records: int) -> None:
        self._heartbeat_timeout.cancel()
        while records > 0 and self._sent:
            sent, packet = self._sent.popleft()
            records -= len(sent)
            self._device.acknowledged(sent, packet)
        self.flush()

    def _execute(self, command: CommandReceived) -> None:
        device = self._device
        if command.foreign or device.behaviour.answers is Answers.REFUSE:
            self._answer(self._side.refusal(command.request))
            return
        answer = device.execute(command.codec, command.text)
        if answer is None:
            self.close()
        else:
            self._answer(self._side.answer(command.request, answer))

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

    def _abort(self) -> None:
        self._end()
        self.transport.abortConnection()

    def _end(self) -> None:
        self._ending = True
        self._timeout.cancel()
        self._heartbeat_timeout.cancel()
        if self._heartbeats.running:
            self._heartbeats.stop()
        if self._answering is not None:
            self._answering.cancel()
            self._answering = None


class _Timeout:
    """The time that a device waits for an answer."""

    def __init__(self, device: SimulatedDevice, expired: Callable[[], None]) -> None:
        self._device = device
        self._expired = expired
        self._call: IDelayedCall | None = None

    @property
    def running(self) -> bool:
        """True while an answer is awaited."""
        return self._call is not None and self._call.active()

    def start(self) -> None:
        """Wait for an answer from now on."""
        self.cancel()
        behaviour = self._device.behaviour
        seconds = behaviour.response_timeout or behaviour.simulation.response_timeout
        self._call = self._device.clock.callLater(seconds, self._expired)

    def cancel(self) -> None:
        """Stop waiting."""
        if self._call is not None and self._call.active():
            self._call.cancel()


class _DeviceFactory(Factory):
    noisy = False

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device

    def buildProtocol(self, addr: IAddress | None) -> _DeviceProtocol:
        return _DeviceProtocol(self._device)
