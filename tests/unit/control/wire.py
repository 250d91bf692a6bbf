"""A control port and its clients, with wires between them instead of sockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import define
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump

from tests.unit.fakes import FakeInstance, FakeRedis
from tracker.control.access import Permission, Permissions
from tracker.control.commands import (
    VERSION,
    CommandStatus,
    ControlCommand,
    Drain,
    DropConnection,
    Event,
    GetDevice,
    Hello,
    Info,
    Lag,
    ListConnections,
    ListDeviceRegistry,
    SendCommand,
    SetLogLevel,
    Unwatch,
    Watch,
)
from tracker.control.operations import Operations
from tracker.control.server import ControlFactory, ControlProtocol
from tracker.control.wire import BoxProtocol, Locator
from tracker.observe.levels import LogLevels

DEVICE: Final = "356307042441013"
OTHER: Final = "356307042441021"
#: A command of each kind that is well formed.
GOOD: dict[type[ControlCommand], dict[str, Any]] = {
    Hello: {"version": VERSION},
    Info: {},
    ListConnections: {},
    ListDeviceRegistry: {},
    GetDevice: {"device_id": DEVICE},
    SendCommand: {"device_id": DEVICE, "text": "getinfo"},
    CommandStatus: {"command_id": "c1"},
    DropConnection: {"device_id": DEVICE},
    Watch: {"device_id": DEVICE},
    Unwatch: {"device_id": DEVICE},
    Lag: {},
    SetLogLevel: {"level": "debug"},
    Drain: {"seconds": 1.0},
}

#: Bytes that a transport holds before it asks to be spared: as Twisted's.
FULL: Final = 65_536


class ServerTransport(FakeTransport):
    """The server's end, which pauses and is paused as a socket is.

    ``taken`` says whether the client reads what it is sent.
    """

    def __init__(self, protocol: ControlProtocol) -> None:
        super().__init__(protocol, True, peerAddress=IPv4Address("TCP", "127.0.0.1", 40_000))
        self.taken = True
        self.aborted = False
        self.reading = True
        self.arrived = b""  # and was not read
        self._spared = False

    def getHandle(self) -> object:
        return None

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.waiting > FULL and not self._spared and self.producer is not None:
            self._spared = True
            self.producer.pauseProducing()

    @property
    def waiting(self) -> int:
        """Bytes that the client has not taken."""
        return sum(map(len, self.stream))

    def getOutBuffer(self) -> bytes | None:
        if not self.taken:
            return None
        data: bytes | None = super().getOutBuffer()
        if self._spared and self.producer is not None:
            self._spared = False
            self.producer.resumeProducing()
        return data

    def bufferReceived(self, buf: bytes) -> None:
        if self.reading:
            super().bufferReceived(buf)
        else:
            self.arrived += buf

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True
        arrived, self.arrived = self.arrived, b""
        if arrived:
            super().bufferReceived(arrived)

    def abortConnection(self) -> None:
        self.aborted = True
        self.stream = []
        self.disconnectReason = ConnectionAborted()  # type: ignore[assignment]
        self.loseConnection()


class Hearing(Locator):
    """Keeps the events that come."""

    def __init__(self) -> None:
        super().__init__({Event: self._event})
        self.events: list[dict[str, Any]] = []

    def _event(self, **facts: Any) -> dict[str, Any]:
        self.events.append(facts)
        return {}


class Client:
    """One that may send what it likes."""

    def __init__(self, port: Port) -> None:
        self.hearing = Hearing()
        self.protocol = BoxProtocol(self.hearing)
        self.server = port.build()
        self.near = FakeTransport(self.protocol, False)
        self.far = ServerTransport(self.server)
        self.server.makeConnection(self.far)
        self.protocol.makeConnection(self.near)
        self._pump = IOPump(
            self.protocol, self.server, self.near, self.far, False, clock=port.clock
        )
        self.pump()

    def pump(self) -> None:
        """Let all arrive that was sent."""
        self._pump.flush()

    def begin(self, command: type[amp.Command], **arguments: Any) -> Asked:
        """Ask for something."""
        return Asked(self.protocol.dispatcher.callRemote(command, **arguments))

    def ask(self, command: type[amp.Command], **arguments: Any) -> dict[str, Any]:
        """Ask for something; the answer, or the error that it is."""
        asked = self.begin(command, **arguments)
        self.pump()
        return asked.result()

    def refusal(self, command: type[amp.Command], **arguments: Any) -> BaseException:
        """The error that a command is answered with."""
        asked = self.begin(command, **arguments)
        self.pump()
        return asked.error()

    def hello(self) -> Client:
        """Be greeted."""
        assert self.ask(Hello, version=VERSION, client="test")["version"] == VERSION
        return self

    def send(self, data: bytes) -> None:
        """Send what may be no box."""
        self.near.write(data)
        self.pump()

    def raw(self, data: bytes) -> dict[bytes, bytes]:
        """Send a box as it is; the box that answers it."""
        taken: list[bytes] = []
        self.near.protocol = Taking(taken)
        self.send(data)
        self.near.protocol = self.protocol
        (box,) = amp.parseString(b"".join(taken))
        found: dict[bytes, bytes] = box
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.hearing.events

    @property
    def cut_off(self) -> bool:
        """Whether the server has ended the connection at once."""
        return self.far.aborted and bool(self.far.disconnected or self.near.disconnected)

    @property
    def lives(self) -> bool:
        return not (self.far.disconnecting or self.near.disconnecting)

    def leave(self) -> None:
        self.near.loseConnection()
        self.pump()


@define
class Taking:
    """Stands where a client's protocol does, and keeps what comes."""

    taken: list[bytes]

    def dataReceived(self, data: bytes) -> None:
        self.taken.append(data)


class Asked:
    """Something that was asked for."""

    def __init__(self, deferred: Deferred[dict[str, Any]]) -> None:
        self._results: list[Any] = []
        deferred.addBoth(self._results.append)

    @property
    def answered(self) -> bool:
        return bool(self._results)

    def result(self) -> dict[str, Any]:
        (result,) = self._results
        if isinstance(result, Failure):
            result.raiseException()
        found: dict[str, Any] = result
        return found

    def outcome(self) -> object:
        """The answer or the error; None if there is neither."""
        result = self._results[0] if self._results else None
        return result.value if isinstance(result, Failure) else result

    def error(self) -> BaseException:
        (result,) = self._results
        assert isinstance(result, Failure), result
        assert result.value is not None
        return result.value


class Port:
    """A control port.

    :param permission: of whoever connects.
    :param redis: what stands for a RedisConnection, or is one.
    """

    def __init__(
        self,
        permission: Permission = Permission.OPERATE,
        redis: Any = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.instance = FakeInstance()
        self.redis: Any = FakeRedis(answers={}) if redis is None else redis
        self.levels = LogLevels()
        asked: Any = self.redis
        self.operations = Operations(self.clock, self.instance, asked, self.levels)
        self.factory = ControlFactory(
            self.clock, self.instance, self.operations, Permissions(None, permission)
        )
        self.operations.watchers = lambda: self.factory.watchers

    def build(self) -> ControlProtocol:
        """A server's end."""
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000))
        assert protocol is not None
        return protocol

    def connect(self) -> Client:
        """A client that has not said Hello."""
        return Client(self)

    def client(self) -> Client:
        """One that has."""
        return Client(self).hello()

    @property
    def timers(self) -> int:
        """Timers that are still to fire."""
        return len(self.clock.getDelayedCalls())


def told(logged: Sequence[LogEvent], level: LogLevel = LogLevel.info) -> list[str]:
    """What our own code has logged at a level."""
    ours = [event for event in logged if event["log_namespace"].startswith("tracker.")]
    return [formatEvent(event) for event in ours if event["log_level"] is level]


def quiet(logged: Sequence[LogEvent]) -> bool:
    """Whether there is no traceback, of whoever."""
    return not [event for event in logged if "log_failure" in event or "failure" in event]


def box_of(command: type[amp.Command], **arguments: bytes) -> bytes:
    """A question as it is sent, by the number 1."""
    box: bytes = amp.AmpBox(_ask=b"1", _command=command.commandName, **arguments).serialize()
    return box


def slow(port: Port) -> list[Deferred[Any]]:
    """Have each GetDevice wait until the test answers it."""
    waiting: list[Deferred[Any]] = []

    def ask(*_: object) -> Deferred[Any]:
        waiting.append(Deferred())
        return waiting[-1]

    port.redis.answers["HMGET"] = ask
    port.redis.answers["XLEN"] = 1
    return waiting
