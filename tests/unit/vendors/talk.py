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


class Transport(StringTransportWithDisconnection):
    """A transport that is gone as soon as it is closed, and notes whether it was aborted."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Talk:
    """A connection, its transport and its gateway.

    :param lingers: whether the connection stays when the protocol has closed it, as one
        does whose peer has not yet taken what was sent.
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
        """Data arrives; then the reactor turns once."""
        self.protocol.dataReceived(data)
        self.clock.advance(0)

    def lose(self) -> None:
        """The connection breaks."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def answer(self) -> bytes:
        """What the device has received since the last time."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def confirm(self) -> None:
        """Redis confirms the packet that was published last."""
        self.gateway.published[-1][1].callback(None)

    @property
    def unread(self) -> int:
        """Bytes that were received and are not handled yet."""
        return len(self.protocol._exchange._buffer)

    @property
    def timers(self) -> int:
        """Timers that are still to fire."""
        return len(self.clock.getDelayedCalls())

    def told(self, kind: str) -> list[tuple[Any, ...]]:
        """What the gateway was told of one kind."""
        return [event for event in self.gateway.events if event[0] == kind]

    @property
    def closed(self) -> bool:
        return bool(not self.transport.connected or self.transport.disconnecting)

    @property
    def reason(self) -> str:
        """Why the peer was rejected."""
        reason: str = next(event[1] for event in self.gateway.events if event[0] == "rejected")
        return reason
