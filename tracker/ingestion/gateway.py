"""The gateway of one vendor: its connections, and the way of their records to the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.command import Answer
from tracker.durations import format_duration
from tracker.ingestion.admission import BrokenLimit, ConnectionLimiter
from tracker.ingestion.confirmation import Confirmation
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.figures import GatewayFigures
from tracker.ingestion.logins import Logins
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import (
    Admission,
    IConnection,
    IDeviceAuthority,
    IGateway,
    IPeer,
    NotAppended,
    Rejection,
    Traffic,
)
from tracker.kept import KeptMemory
from tracker.net.endpoints import readable
from tracker.observe.ratelimit import LimitedLog
from tracker.position import Entry
from tracker.wording import counted

#: Seconds that a stop waits for sockets to close; longer than the close timeout of a connection.
STOP_TIMEOUT: Final = 7.0

#: Approximate memory of an entry besides its payload and extra facts.
_ENTRY_BYTES: Final = 1024


@implementer(IGateway)
class Gateway(Service):
    """The part of ingestion that all connections of one vendor share.

    As a service it closes all connections when it stops.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        vendor: str,
        publisher: StreamPublisher,
        *,
        authority: IDeviceAuthority,
        limiter: ConnectionLimiter,
        connected: ConnectedDevices,
        kept: KeptMemory,
    ) -> None:
        self.vendor = vendor
        self.kept = kept
        self.figures = GatewayFigures()
        self.tally = self.figures.tally
        self._clock = clock
        self._publisher = publisher
        self._limiter = limiter
        self._connected = connected
        self._connections: set[IConnection] = set()
        self._sessions: set[IConnection] = set()  # those of the connections that have no slot
        self._rejections = LimitedLog(clock, self._log)
        self._notices = LimitedLog(clock, self._log)
        self._losses = LimitedLog(clock, self._log)
        self._confirmation = Confirmation(
            clock, lambda: publisher.confirms and not self.kept.used_up
        )
        self._detached_given_up = 0  # entries
        self._refuses_logins = False
        self.logins = Logins(
            vendor=vendor,
            figures=self.figures,
            authority=authority,
            limiter=limiter,
            connected=connected,
            are_open=lambda: bool(self.running) and not self._refuses_logins,
            reject=self.rejected,
        )
        """The decisions on the vendor's devices."""
        self._all_closed: Deferred[None] | None = None

    @property
    def publisher(self) -> StreamPublisher:
        """The publisher that appends the records."""
        return self._publisher

    @property
    def withheld_logins(self) -> int:
        """Number of logins whose answer waits for the log."""
        return self._confirmation.waiting

    @property
    def connections(self) -> int:
        """Number of open connections, logged in or not."""
        return len(self._connections)

    @property
    def serving(self) -> int:
        """Number of connections with at least one served device."""
        return self._connected.serving[self.vendor]

    @property
    def waiting(self) -> int:
        """Number of connections on which devices only wait."""
        return len(self._connections & self._connected.waiting)

    def admits(self, address: IAddress | None) -> bool:
        """See IGateway."""
        if not self.running:
            return False  # the port is about to stop
        return self._is_admitted(self._limiter.admit(getattr(address, "host", "")), address)

    def _is_admitted(self, refusal: BrokenLimit | None, address: IAddress | None) -> bool:
        if refusal is not None:
            self.figures.rejections[refusal.kind] += 1
            self._log_rejection(readable(address), None, refusal.reason)
        return refusal is None

    # A proxied port calls the next three methods before it knows the client of a connection.

    def reserve(self, address: IAddress) -> bool:
        """See :class:`tracker.net.proxied.IProxiedPort`."""
        if not self.running:
            return False
        return self._is_admitted(self._limiter.reserve(), address)

    def release(self) -> None:
        """See IProxiedPort."""
        self._limiter.release()

    def checked(self) -> None:
        """See IProxiedPort."""
        self.figures.health_checks += 1

    def opened(self, connection: IConnection) -> None:
        """See IGateway."""
        self._connections.add(connection)
        self.figures.opened += 1
        self.logins.opened(connection)

    def session_opened(self, connection: IConnection) -> None:
        """See IGateway."""
        self._connections.add(connection)
        self._sessions.add(connection)

    def admission(self, device_id: str) -> Admission:
        """See IGateway."""
        return self.logins.admission(device_id)

    def login(self, connection: IConnection, device_id: str) -> Admission:
        """See IGateway."""
        return self.logins.login(connection, device_id)

    def refuse_logins(self) -> None:
        """Refuse new logins while draining; devices reconnect and reach another instance.

        Connections on which devices only wait are closed.
        """
        self._refuses_logins = True
        for connection in self._connections & self._connected.waiting:
            connection.retire()

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        """See IGateway."""
        if not entries:
            # Nothing is appended. Firing in a later reactor turn prevents a peer that sends only
            # empty frames from starving the others.
            self.figures.empty += 1
            return deferLater(self._clock, 0)
        return self._publisher.publish(entries)

    def publish_detached(self, entries: Sequence[Entry]) -> Deferred[None] | None:
        """See IGateway."""
        size = sum(len(entry.payload) + len(entry.extra) + _ENTRY_BYTES for entry in entries)
        if not self.running:
            return None
        self.kept.begin(size)

        def ended(result: Failure | None) -> Failure | None:
            self.kept.end(size)
            if isinstance(result, Failure):
                result.trap(NotAppended)
                self._detached_given_up += len(entries)
                self.figures.lost += len(entries)
            return result

        return self._publisher.publish(entries).addBoth(ended)

    def when_log_confirms(self) -> Deferred[None] | None:
        """See IGateway."""
        return self._confirmation.wait()

    def command_answered(self, connection: IConnection, answer: Answer) -> None:
        """See IGateway."""
        self._connected.answered(connection, answer)

    def lost(self, peer: IPeer, count: int) -> None:
        """See IGateway."""
        self.figures.lost += count
        self._losses.warn(
            "{vendor}: {messages} from {device} lost: the device is over its rate, too many "
            "messages wait for Redis, or the instance is stopping",
            vendor=self.vendor,
            count=count,
            messages=counted(count, "message"),
            device=peer.device_id or "an unknown device",
        )

    def noticed(self, peer: IPeer, notice: str) -> None:
        """See IGateway."""
        self._notices.info(
            "{vendor}: {device}: {notice}", vendor=self.vendor, device=peer.device_id, notice=notice
        )

    def rejected(self, peer: IPeer, reason: str, kind: Rejection = Rejection.CONTENT) -> None:
        """See IGateway."""
        self.figures.rejections[kind] += 1
        self._connected.notify(peer.device_id, self.vendor, Traffic.REJECTED, reason.encode())
        self._log_rejection(peer.peer, peer.device_id, reason)

    def _log_rejection(self, peer: str, device_id: str | None, reason: str) -> None:
        self._rejections.warn(
            "{vendor}: rejected {peer} ({device}): {reason}",
            vendor=self.vendor,
            peer=peer,
            device=device_id or "not logged in",
            reason=reason,
        )

    def closed(self, connection: IConnection) -> None:
        """See IGateway."""
        self._connections.remove(connection)
        if connection in self._sessions:
            self._sessions.remove(connection)
            self.logins.leave(connection)
        else:
            self.logins.closed(connection)
        if self._all_closed is not None and not self._connections and not self._all_closed.called:
            self._all_closed.callback(None)

    def stopService(self) -> Deferred[None]:
        """Close every connection; fires when all are closed."""
        super().stopService()
        if self._detached_given_up:
            self._log.warn(
                "{vendor}: {messages} lost: not appended before the stop",
                vendor=self.vendor,
                count=self._detached_given_up,
                messages=counted(self._detached_given_up, "message"),
            )
        if not self._connections:
            return succeed(None)
        self._all_closed = Deferred()
        self._all_closed.addTimeout(STOP_TIMEOUT, self._clock).addErrback(
            lambda _: self._log.warn(
                "{vendor}: {connections} not closed within {time}",
                vendor=self.vendor,
                connections=counted(self.connections, "connection"),
                time=format_duration(STOP_TIMEOUT),
            )
        )
        for connection in list(self._connections):
            connection.close()
        return self._all_closed
