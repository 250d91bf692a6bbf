"""Serve the clients of a control port.

A client must say Hello first, and soon. A client that does not read is not read either: its events
are dropped and counted, and in the end its connection is closed.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.control.access import Permissions, Unidentified, identify_peer
from tracker.control.handler import ClientHandler, IClient
from tracker.control.operations import Operations
from tracker.control.wire import BoxProtocol
from tracker.interfaces import IInstance
from tracker.net.endpoints import keep_alive, readable
from tracker.observe.ratelimit import LimitedLog

#: Connections at a time.
MAX_CONNECTIONS: Final = 64
#: Seconds to say Hello, the TLS handshake included.
HELLO_TIMEOUT: Final = 10.0
#: Seconds for which a client may leave sent bytes unread.
UNREAD_TIMEOUT: Final = 60.0
#: Commands of a connection that are answered at a time; further ones are not read meanwhile.
MAX_PENDING_COMMANDS: Final = 32
#: Seconds that a stop gives clients to read what they were sent.
CLOSE_GRACE: Final = 2.0


@implementer(IClient, IHandshakeListener, IPushProducer)
class ControlProtocol(BoxProtocol):
    """One connection of a client."""

    _log = Logger()

    def __init__(self, factory: ControlFactory) -> None:
        self.handler = ClientHandler(factory.clock, factory.instance, factory.operations, self)
        super().__init__(self.handler)
        self._factory = factory
        self._clock = factory.clock
        self._hello_due: IDelayedCall | None = None
        self._unread_timer: IDelayedCall | None = None
        self._pending = 0

    @property
    def unread(self) -> bool:
        """True while the client leaves sent bytes unread."""
        return self._unread_timer is not None

    @property
    def awaits_hello(self) -> bool:
        """True until the client has said Hello."""
        return self._hello_due is not None

    def connectionMade(self) -> None:
        """Wait for Hello, for a limited time."""
        keep_alive(self.transport)
        self.transport.registerProducer(self, True)
        self._hello_due = self._clock.callLater(HELLO_TIMEOUT, self.give_up, "no Hello in time")
        if not ISSLTransport.providedBy(self.transport):
            self._identify()

    def handshakeCompleted(self) -> None:
        """See IHandshakeListener."""
        self._identify()

    def _identify(self) -> None:
        try:
            peer = identify_peer(self.transport)
        except Unidentified as error:
            self.give_up(str(error))
            return
        if self._factory.permissions.of(peer) is None:
            self.give_up(f"{peer} has no permission")
            return
        self.handler.identified(peer, self._factory.permissions)

    def greeted(self) -> None:
        """See IClient."""
        if self._hello_due is not None and self._hello_due.active():
            self._hello_due.cancel()
        self._hello_due = None

    def began(self) -> None:
        """See IClient."""
        self._pending += 1
        self._update_paused()

    def ended(self) -> None:
        """See IClient."""
        self._pending -= 1
        self._update_paused()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the handler."""
        self.greeted()
        self._cancel_unread_timer()
        super().connectionLost(reason)
        self.handler.ended()
        self._factory.closed(self)

    # The transport calls these when the client does not read what is written, or reads again.

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        if self._unread_timer is None:
            self._unread_timer = self._clock.callLater(
                UNREAD_TIMEOUT, self.give_up, f"has read nothing for {UNREAD_TIMEOUT:g} s"
            )
        self._update_paused()

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        self._cancel_unread_timer()
        self._update_paused()

    def stopProducing(self) -> None:
        """See IPushProducer."""

    def _cancel_unread_timer(self) -> None:
        if self._unread_timer is not None:
            if self._unread_timer.active():
                self._unread_timer.cancel()
            self._unread_timer = None

    def _update_paused(self) -> None:
        if self.unread or self._pending >= MAX_PENDING_COMMANDS:
            self.hold()
        elif self.paused:
            self.go_on()

    def give_up(self, reason: str) -> None:
        """Close the connection at once, and log the reason."""
        if not self._ended:
            peer = self.handler.peer
            # The address of a Unix socket does not identify its peer.
            local = peer is not None and peer.kind == "unix"
            self._factory.refused(
                str(peer) if local else readable(self.transport.getPeer()), reason
            )
        super().give_up(reason)


class ControlFactory(Factory):
    """Builds a :class:`ControlProtocol` for each client, if there is room for one."""

    noisy = False
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        instance: IInstance,
        operations: Operations,
        permissions: Permissions,
    ) -> None:
        self.clock = clock
        self.instance = instance
        self.operations = operations
        self.permissions = permissions
        self._protocols: dict[ControlProtocol, None] = {}  # the oldest first
        self._refusals = LimitedLog(clock, self._log)
        self._all_closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol | None:
        """Return a protocol for a new client, or None if there is no room."""
        if len(self._protocols) >= MAX_CONNECTIONS and not self._make_room():
            self.refused(readable(addr), f"there are {MAX_CONNECTIONS} connections already")
            return None
        protocol = ControlProtocol(self)
        self._protocols[protocol] = None
        return protocol

    def _make_room(self) -> bool:
        """Close the oldest connection without a Hello.

        Otherwise a peer that can connect, and sends nothing, could keep all others out.
        """
        for protocol in self._protocols:
            if protocol.awaits_hello:
                del self._protocols[protocol]
                protocol.give_up("no Hello, and others wait")
                return True
        return False

    def closed(self, protocol: ControlProtocol) -> None:
        """Forget a closed connection."""
        self._protocols.pop(protocol, None)
        if self._all_closed is not None and not self._protocols:
            closed, self._all_closed = self._all_closed, None
            closed.callback(None)

    def refused(self, peer: str, reason: str) -> None:
        """Log a client that was disconnected."""
        self._refusals.warn("control: {peer} was cut off: {reason}", peer=peer, reason=reason)

    @property
    def watchers(self) -> int:
        """Number of clients that watch a device."""
        return sum(protocol.handler.watched > 0 for protocol in self._protocols)

    def close_all(self) -> Deferred[None]:
        """Close all connections; fires when they are closed."""
        if not self._protocols:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self._all_closed = closed
        for protocol in list(self._protocols):
            protocol.transport.loseConnection()
        overdue = self.clock.callLater(CLOSE_GRACE, self._abort_all)

        def done(_: None) -> None:
            if overdue.active():
                overdue.cancel()

        return closed.addCallback(done)

    def _abort_all(self) -> None:
        for protocol in list(self._protocols):
            protocol.transport.abortConnection()
