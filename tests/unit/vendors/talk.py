"""A conversation of a device with a connection, over a transport without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport, StringTransportWithDisconnection
from twisted.python.failure import Failure

from tests.unit.fakes import FakeGateway
from tracker.limits import Limits
from tracker.vendors.connection import Connection, ConnectionFactory

#: Builds the factory of a port.
BuildFactory = Callable[[FakeGateway, Limits, Clock], ConnectionFactory]


class SlowWork(Clock):
    """A clock that advances at each reading."""

    step = 0.0

    def seconds(self) -> float:
        self.rightNow += self.step
        return self.rightNow


class Transport(StringTransportWithDisconnection):
    """A transport that disconnects as soon as it is closed, and notes whether it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Talk:
    """A connection, its transport and its gateway.

    :param lingers: True to keep the connection open after the protocol has closed it, like a
        connection whose peer does not read.
    """

    def __init__(
        self,
        build: BuildFactory,
        limits: Limits | None = None,
        gateway: FakeGateway | None = None,
        lingers: bool = False,
    ) -> None:
        self.gateway = gateway or FakeGateway()
        self.clock = Clock()
        self.limits = limits or Limits()
        protocol = build(self.gateway, self.limits, self.clock).buildProtocol(None)
        assert protocol is not None
        self.protocol: Connection = protocol
        transport: Any = StringTransport() if lingers else Transport()
        transport.protocol = self.protocol
        self.transport = transport
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Receive data from the device, then run one reactor turn."""
        self.protocol.dataReceived(data)
        self.clock.advance(0)

    def lose(self) -> None:
        """Lose the connection."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def received(self) -> bytes:
        """Return the bytes that the device has received since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def confirm(self) -> None:
        """Confirm the entries that were published last."""
        self.gateway.published[-1][1].callback(None)

    @property
    def unread(self) -> int:
        """Number of received bytes that are not handled yet."""
        return len(self.protocol._exchange._buffer)

    @property
    def timers(self) -> int:
        """Number of pending timers."""
        return len(self.clock.getDelayedCalls())

    def events_of(self, kind: str) -> list[tuple[Any, ...]]:
        """Return the events of one kind that were reported to the gateway."""
        return [event for event in self.gateway.events if event[0] == kind]

    @property
    def closed(self) -> bool:
        return bool(not self.transport.connected or self.transport.disconnecting)

    @property
    def reason(self) -> str:
        """The first reason for which the peer was rejected."""
        reason: str = next(event[1] for event in self.gateway.events if event[0] == "rejected")
        return reason
