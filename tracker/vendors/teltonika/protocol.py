"""The conversation with a Teltonika device over a stream transport.

A connection is in one of three states, each a method that reads one thing:

======== ============================ ===============================================
state    what may come                what follows
======== ============================ ===============================================
login    pings, then the login        ``01`` → frames; ``00`` → closed
frames   pings and frames             a frame → published → acknowledged → frames
closed   whatever the peer still sent nothing
======== ============================ ===============================================

Anything else is answered by closing the connection: the device reconnects and sends
again what was not acknowledged.

While Redis has not confirmed a packet nothing more is decoded, and what the peer
sends meanwhile is buffered only up to a limit. So a connection holds one
unacknowledged packet at most, which is all that a stop-and-wait device ever sends.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.endpoints import readable
from tracker.interfaces import IGateway, ISession, NotAccepted
from tracker.vendors.outcomes import Fatal, Incomplete, Rejected
from tracker.vendors.teltonika.avl import Packet, decode_packet
from tracker.vendors.teltonika.frame import PING, decode_frame
from tracker.vendors.teltonika.limits import Limits
from tracker.vendors.teltonika.login import ACCEPT, REFUSE, decode_login
from tracker.vendors.teltonika.positions import entries


@implementer(ISession)
class TeltonikaProtocol(Protocol):
    """One connection of a device."""

    # Twisted types it as optional; it is set before any method below is called.
    transport: ITCPTransport

    def __init__(self, gateway: IGateway, limits: Limits) -> None:
        self.device_id: str | None = None
        self.peer = ""
        self._gateway = gateway
        self._limits = limits
        self._buffer = bytearray()
        self._read_next: Callable[[], bool] = self._read_login
        self._unconfirmed: Deferred[None] | None = None
        self._advancing = False
        self._paused = False

    def connectionMade(self) -> None:
        """Tell the gateway, and have the kernel notice a peer that vanishes."""
        self.peer = readable(self.transport.getPeer())
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._gateway.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Buffer what the peer sent and go as far as it allows."""
        self._buffer += data
        if self._unconfirmed is None:
            self._advance()
        elif len(self._buffer) > self._limits.buffer_bytes and not self._paused:
            # Not before: pausing at every packet costs two system calls, and a paused
            # transport does not see its peer leave.
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up what was not confirmed: the device will send it again."""
        self._read_next = self._read_nothing
        self._buffer.clear()
        if self._unconfirmed is not None:
            self._unconfirmed.cancel()
        self._gateway.closed(self)

    def close(self) -> None:
        """See :class:`tracker.interfaces.ISession`."""
        self._read_next = self._read_nothing
        self.transport.loseConnection()

    def _advance(self) -> None:
        if self._advancing:
            return  # a packet confirmed at once: the loop below goes on by itself
        self._advancing = True
        while self._unconfirmed is None and self._read_next():
            pass
        self._advancing = False

    # The states. Each returns whether it is worth looking at the buffer again.

    def _read_login(self) -> bool:
        self._swallow_pings()
        outcome = decode_login(self._buffer)
        if isinstance(outcome, Incomplete):
            return False
        if isinstance(outcome, Fatal):
            return self._reject(outcome.reason)
        if isinstance(outcome, Rejected):
            self.transport.write(REFUSE)
            return self._reject(outcome.reason)
        del self._buffer[: outcome.used]
        if not self._gateway.login(self, outcome.value):
            self.transport.write(REFUSE)
            self.close()
            return False
        self.device_id = outcome.value
        self._read_next = self._read_frame
        self.transport.write(ACCEPT)
        return True

    def _read_frame(self) -> bool:
        self._swallow_pings()
        frame = decode_frame(self._buffer, self._limits.frame_bytes)
        if isinstance(frame, Incomplete):
            return False
        if isinstance(frame, Fatal):
            return self._reject(frame.reason)
        packet = decode_packet(frame.value)
        if isinstance(packet, Rejected):
            return self._reject(packet.reason)
        del self._buffer[: frame.used]
        self._publish(packet.value)
        return True

    def _read_nothing(self) -> bool:
        self._buffer.clear()
        return False

    def _swallow_pings(self) -> None:
        buffer = self._buffer
        if buffer and buffer[0] == PING:
            del buffer[: len(buffer) - len(buffer.lstrip(bytes((PING,))))]

    def _reject(self, reason: str) -> bool:
        self._gateway.rejected(self, reason)
        self.close()
        return False

    def _publish(self, packet: Packet) -> None:
        assert self.device_id is not None  # noqa: S101 - the login comes first
        published = self._gateway.publish(entries(self.device_id, packet))
        self._unconfirmed = published
        published.addCallbacks(
            self._confirmed, self._not_confirmed, callbackArgs=(len(packet.records),)
        )

    def _confirmed(self, _: None, count: int) -> None:
        self._unconfirmed = None
        self.transport.write(count.to_bytes(4, "big"))
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()  # type: ignore[attr-defined]
        self._advance()

    def _not_confirmed(self, failure: Failure) -> None:
        self._unconfirmed = None
        self.close()
        # Cancelled by connectionLost, or refused because the process is stopping.
        failure.trap(CancelledError, NotAccepted)


class TeltonikaFactory(Factory):
    """Builds a :class:`TeltonikaProtocol` for each connection of a port."""

    noisy = False

    def __init__(self, gateway: IGateway, limits: Limits) -> None:
        self._gateway = gateway
        self._limits = limits

    def buildProtocol(self, addr: IAddress | None) -> TeltonikaProtocol:
        """One more connection."""
        return TeltonikaProtocol(self._gateway, self._limits)
