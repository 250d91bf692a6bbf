"""The server side of a control port.

A client must send Hello first, within a time limit. While a client does not read, its commands
are not read either, its events are dropped and counted, and after a time its connection is closed.
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
from tracker.durations import format_duration
from tracker.interfaces import IInstance
from tracker.net.endpoints import keep_alive, readable
from tracker.observe.ratelimit import LimitedLog

#: Concurrent connections.
MAX_CONNECTIONS: Final = 64
#: Seconds until Hello must arrive, the TLS handshake included.
HELLO_TIMEOUT: Final = 10.0
#: Seconds for which a client may leave sent bytes unread.
UNREAD_TIMEOUT: Final = 60.0
#: Commands of a connection that are processed concurrently; further ones are not read meanwhile.
MAX_PENDING_COMMANDS: Final = 32
#: Seconds that a stop gives clients to read the bytes that were sent.
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
        """True until the client has sent Hello."""
        return self._hello_due is not None

    def connectionMade(self) -> None:
        """Start to wait for Hello."""
        keep_alive(self.transport)
        self.transport.registerProducer(self, True)
        self._hello_due = self._clock.callLater(
            HELLO_TIMEOUT, self.abort, f"no Hello within {format_duration(HELLO_TIMEOUT)}"
        )
        if not ISSLTransport.providedBy(self.transport):
            self._identify()

    def handshakeCompleted(self) -> None:
        """See IHandshakeListener."""
        self._identify()

    def _identify(self) -> None:
        try:
            peer = identify_peer(self.transport)
        except Unidentified as error:
            self.abort(str(error))
            return
        if self._factory.permissions.of(peer) is None:
            self.abort(f"{peer} has no permission")
            return
        self.handler.identified(peer, self._factory.permissions)

    def greeted(self) -> None:
        """See IClient."""
        if self._hello_due is not None and self._hello_due.active():
            self._hello_due.cancel()
        self._hello_due = None

    def command_started(self) -> None:
        """See IClient."""
        self._pending += 1
        self._update_paused()

    def command_finished(self) -> None:
        """See IClient."""
        self._pending -= 1
        self._update_paused()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the timers and the handler."""
        self.greeted()
        self._cancel_unread_timer()
        super().connectionLost(reason)
        self.handler.connection_lost()
        self._factory.closed(self)

    # The transport calls these when the client stops reading and when it reads again.

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        if self._unread_timer is None:
            self._unread_timer = self._clock.callLater(
                UNREAD_TIMEOUT,
                self.abort,
                f"the client has not read for {format_duration(UNREAD_TIMEOUT)}",
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
            self.pause()
        elif self.paused:
            self.resume()

    def abort(self, reason: str) -> None:
        """Close the connection at once, and log the reason."""
        if not self._end_reason:
            peer = self.handler.peer
            # The address of a Unix socket does not identify the client.
            local = peer is not None and peer.kind == "unix"
            self._factory.refused(
                str(peer) if local else readable(self.transport.getPeer()), reason
            )
        super().abort(reason)


class ControlFactory(Factory):
    """Builds a :class:`ControlProtocol` for each client, up to a limit."""

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
        self._protocols: dict[ControlProtocol, None] = {}  # oldest first
        self._refusals = LimitedLog(clock, self._log)
        self._all_closed: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol | None:
        """Return a protocol for a new client; None if too many clients are connected."""
        if len(self._protocols) >= MAX_CONNECTIONS and not self._make_room():
            self.refused(readable(addr), f"limit of {MAX_CONNECTIONS} connections reached")
            return None
        protocol = ControlProtocol(self)
        self._protocols[protocol] = None
        return protocol

    def _make_room(self) -> bool:
        """Close the oldest connection without a Hello; return False if none was found.

        Otherwise a peer that connects and sends nothing could lock out all other clients.
        """
        for protocol in self._protocols:
            if protocol.awaits_hello:
                del self._protocols[protocol]
                protocol.abort("no Hello yet, and another client needs the connection")
                return True
        return False

    def closed(self, protocol: ControlProtocol) -> None:
        """Remove a closed connection."""
        self._protocols.pop(protocol, None)
        if self._all_closed is not None and not self._protocols:
            closed, self._all_closed = self._all_closed, None
            closed.callback(None)

    def refused(self, peer: str, reason: str) -> None:
        """Log a client whose connection was closed by this side."""
        self._refusals.warn(
            "control connection of {peer} closed: {reason}", peer=peer, reason=reason
        )

    @property
    def watchers(self) -> int:
        """Number of clients that watch a device."""
        return sum(protocol.handler.watched > 0 for protocol in self._protocols)

    def close_all(self) -> Deferred[None]:
        """Close all connections; return a Deferred that fires when they are closed."""
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
