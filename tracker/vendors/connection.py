"""One connection of a device of any vendor over a stream transport.

An :class:`~tracker.vendors.exchange.Exchange` handles the frames, with the dialect of the vendor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.command import CommandFrame
from tracker.interfaces import ConnectionFigures, IConnection, IGateway, Observer
from tracker.limits import Limits
from tracker.net.endpoints import keep_alive, readable
from tracker.vendors.dialect import Dialect
from tracker.vendors.exchange import Exchange, Port
from tracker.vendors.holds import Hold
from tracker.vendors.leftovers import Leftovers
from tracker.vendors.state import Stage
from tracker.vendors.throttle import Workload
from tracker.vendors.wire import Wire


@implementer(IConnection, IPushProducer)
class Connection(Protocol):
    """One connection of a device."""

    # Twisted types the transport as optional. All three are set before any method below is called.
    transport: ITCPTransport
    _wire: Wire
    _exchange: Exchange

    def __init__(self, port: Port) -> None:
        self.device_id: str | None = None
        self.peer = ""
        self.host = ""
        self._port = port

    def connectionMade(self) -> None:
        """Notify the gateway, and let the kernel detect a peer that vanishes."""
        address = self.transport.getPeer()
        self.peer = readable(address)
        self.host = getattr(address, "host", "")
        self._wire = Wire(self.transport, self._port.gateway.tally)
        self._exchange = Exchange(self, self._port, self._wire)
        self._port.gateway.opened(self)
        keep_alive(self.transport)
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        """Handle bytes from the peer."""
        self._exchange.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up the records that are not appended yet; the device sends them again."""
        self._exchange.end()
        self._exchange.timer.stop()
        self._port.gateway.closed(self)

    def close(self) -> None:
        """See :class:`tracker.interfaces.IConnection`."""
        if self._exchange.state.stage is Stage.CLOSED:
            return
        self._exchange.end()
        self._exchange.timer.closing(self.transport.abortConnection)
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        self.transport.loseConnection()

    @property
    def device_ids(self) -> Collection[str]:
        """See IConnection."""
        return self._exchange.state.devices

    @property
    def may_stay(self) -> bool:
        """See IConnection."""
        return self._exchange.state.may_stay

    def is_alive(self) -> bool:
        """See IConnection."""
        exchange = self._exchange
        return exchange.state.stage is not Stage.CLOSED and exchange.timer.is_heard

    def serve(self, device_id: str) -> None:
        """See IConnection."""
        self._exchange.serve(device_id)

    def withdraw(self, device_id: str) -> bool:
        """See IConnection."""
        state = self._exchange.state
        stays = state.may_stay and state.stage is not Stage.CLOSED
        if stays:
            state.wait(device_id)
        else:
            self.close()
        return stays

    def log_out(self, device_id: str) -> None:
        """See IConnection."""
        state = self._exchange.state
        if len(state.devices) > 1:
            state.log_out(device_id)
        else:
            self.close()

    def retire(self) -> None:
        """See IConnection."""
        self._exchange.retire()

    def figures(self) -> ConnectionFigures:
        """See IConnection."""
        return self._exchange.state.figures(self._exchange.timer.last_heard)

    def observe(self, observer: Observer | None) -> None:
        """See IConnection."""
        self._wire.observer = observer

    def command_frame(self, device_id: str, content: bytes, codec: str) -> CommandFrame:
        """See IConnection."""
        return self._exchange.command_frame(device_id, content, codec)

    def when_free(self, silence_limit: float = 0) -> Deferred[None]:
        """See IConnection."""
        return self._exchange.when_free(silence_limit)

    def write_command(self, data: bytes, shown: bytes | None = None) -> None:
        """See IConnection."""
        self._exchange.write_command(data, shown)

    # The transport calls these methods when the peer does not read what is written to it.

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        self._exchange.hold(Hold.PEER)

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._exchange.release(Hold.PEER)

    def stopProducing(self) -> None:
        """See IPushProducer."""


class ConnectionFactory(Factory):
    """Builds a :class:`Connection` for each connection of a port.

    :param build_dialect: called for each connection; returns its dialect.
    """

    noisy = False

    def __init__(
        self,
        gateway: IGateway,
        limits: Limits,
        clock: IReactorTime,
        build_dialect: Callable[[], Dialect[Any]],
    ) -> None:
        work = Workload(clock, limits, gateway.tally)
        self._port = Port(gateway, work, Leftovers(work, gateway), build_dialect)

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:
        """Return the protocol of a new connection, or None to close it unread."""
        return Connection(self._port) if self._port.gateway.admits(addr) else None
