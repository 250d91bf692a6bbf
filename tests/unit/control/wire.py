"""A control port and its clients, connected without sockets."""

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
#: Command → valid arguments.
VALID: dict[type[ControlCommand], dict[str, Any]] = {
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

#: Bytes that a transport buffers before it pauses its producer, as in Twisted.
TRANSPORT_BUFFER_BYTES: Final = 65_536


class ServerTransport(FakeTransport):
    """The server's transport, which pauses and can be paused like a socket.

    :ivar client_reads: True: the client reads the bytes that it is sent.
    """

    def __init__(self, protocol: ControlProtocol) -> None:
        super().__init__(protocol, True, peerAddress=IPv4Address("TCP", "127.0.0.1", 40_000))
        self.client_reads = True
        self.aborted = False
        self.reading = True
        self.arrived = b""  # received while reading is paused
        self._producer_paused = False

    def getHandle(self) -> object:
        return None

    def write(self, data: bytes) -> None:
        super().write(data)
        if (
            self.waiting > TRANSPORT_BUFFER_BYTES
            and not self._producer_paused
            and self.producer is not None
        ):
            self._producer_paused = True
            self.producer.pauseProducing()

    @property
    def waiting(self) -> int:
        """Number of bytes that the client has not read."""
        return sum(map(len, self.stream))

    def getOutBuffer(self) -> bytes | None:
        if not self.client_reads:
            return None
        data: bytes | None = super().getOutBuffer()
        if self._producer_paused and self.producer is not None:
            self._producer_paused = False
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


class EventRecorder(Locator):
    """Records the events that arrive."""

    def __init__(self) -> None:
        super().__init__({Event: self._event})
        self.events: list[dict[str, Any]] = []

    def _event(self, **facts: Any) -> dict[str, Any]:
        self.events.append(facts)
        return {}


class Client:
    """A client that can send commands and arbitrary bytes."""

    def __init__(self, port: Port) -> None:
        self.recorder = EventRecorder()
        self.protocol = BoxProtocol(self.recorder)
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
        """Deliver all bytes that were sent."""
        self._pump.flush()

    def begin(self, command: type[amp.Command], **arguments: Any) -> PendingReply:
        """Send a command."""
        return PendingReply(self.protocol.dispatcher.callRemote(command, **arguments))

    def ask(self, command: type[amp.Command], **arguments: Any) -> dict[str, Any]:
        """Send a command; return the reply, or raise the error."""
        asked = self.begin(command, **arguments)
        self.pump()
        return asked.result()

    def refusal(self, command: type[amp.Command], **arguments: Any) -> BaseException:
        """Send a command; return the error."""
        asked = self.begin(command, **arguments)
        self.pump()
        return asked.error()

    def hello(self) -> Client:
        """Send Hello."""
        assert self.ask(Hello, version=VERSION, client="test")["version"] == VERSION
        return self

    def send(self, data: bytes) -> None:
        """Send arbitrary bytes."""
        self.near.write(data)
        self.pump()

    def raw(self, data: bytes) -> dict[bytes, bytes]:
        """Send a serialized box; return the box of the reply."""
        received: list[bytes] = []
        self.near.protocol = ByteRecorder(received)
        self.send(data)
        self.near.protocol = self.protocol
        (box,) = amp.parseString(b"".join(received))
        found: dict[bytes, bytes] = box
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.recorder.events

    @property
    def aborted(self) -> bool:
        """True if the server has aborted the connection."""
        return self.far.aborted and bool(self.far.disconnected or self.near.disconnected)

    @property
    def is_open(self) -> bool:
        return not (self.far.disconnecting or self.near.disconnecting)

    def leave(self) -> None:
        self.near.loseConnection()
        self.pump()


@define
class ByteRecorder:
    """Records received bytes in place of the client's protocol."""

    received: list[bytes]

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)


class PendingReply:
    """The reply to a command that was sent."""

    def __init__(self, deferred: Deferred[dict[str, Any]]) -> None:
        self._results: list[Any] = []
        deferred.addBoth(self._results.append)

    @property
    def has_reply(self) -> bool:
        return bool(self._results)

    def result(self) -> dict[str, Any]:
        (result,) = self._results
        if isinstance(result, Failure):
            result.raiseException()
        found: dict[str, Any] = result
        return found

    def reply_or_error(self) -> object:
        """Return the reply or the error; None before it has arrived."""
        result = self._results[0] if self._results else None
        return result.value if isinstance(result, Failure) else result

    def error(self) -> BaseException:
        (result,) = self._results
        assert isinstance(result, Failure), result
        assert result.value is not None
        return result.value


class Port:
    """A control port.

    :param permission: permission of local clients.
    :param redis: a RedisConnection, or a fake of one.
    """

    def __init__(
        self,
        permission: Permission = Permission.OPERATE,
        redis: Any = None,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.instance = FakeInstance()
        self.redis: Any = FakeRedis(replies={}) if redis is None else redis
        self.levels = LogLevels()
        asked: Any = self.redis
        self.operations = Operations(self.clock, self.instance, asked, self.levels)
        self.factory = ControlFactory(
            self.clock, self.instance, self.operations, Permissions(None, permission)
        )
        self.operations.watchers = lambda: self.factory.watchers

    def build(self) -> ControlProtocol:
        """Return the protocol for a new connection."""
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40_000))
        assert protocol is not None
        return protocol

    def connect(self) -> Client:
        """Return a client that has not sent Hello."""
        return Client(self)

    def client(self) -> Client:
        """Return a client that has sent Hello."""
        return Client(self).hello()

    @property
    def timers(self) -> int:
        """Number of active timers."""
        return len(self.clock.getDelayedCalls())


def log_lines(logged: Sequence[LogEvent], level: LogLevel = LogLevel.info) -> list[str]:
    """Return the lines that Tracker has logged at a level."""
    ours = [event for event in logged if event["log_namespace"].startswith("tracker.")]
    return [formatEvent(event) for event in ours if event["log_level"] is level]


def no_traceback(logged: Sequence[LogEvent]) -> bool:
    """Return True if no traceback was logged, by Tracker or Twisted."""
    return not [event for event in logged if "log_failure" in event or "failure" in event]


def command_box(command: type[amp.Command], **arguments: bytes) -> bytes:
    """Return a serialized command with the tag 1."""
    box: bytes = amp.AmpBox(_ask=b"1", _command=command.commandName, **arguments).serialize()
    return box


def delay_get_device(port: Port) -> list[Deferred[Any]]:
    """Delay the replies of Redis to each GetDevice until the test fires the Deferreds."""
    waiting: list[Deferred[Any]] = []

    def ask(*_: object) -> Deferred[Any]:
        waiting.append(Deferred())
        return waiting[-1]

    port.redis.replies["HMGET"] = ask
    port.redis.replies["XLEN"] = 1
    return waiting
