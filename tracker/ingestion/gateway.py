"""The gateway of one vendor: its connections, and the way of their records to the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tracker.command import Answer
from tracker.commands.delivery import CommandDelivery
from tracker.commands.registration import DeviceRegistration
from tracker.durations import format_duration
from tracker.ingestion.admission import BrokenLimit, ConnectionLimiter
from tracker.ingestion.confirmation import Confirmation
from tracker.ingestion.figures import GatewayFigures
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import (
    Admission,
    IConnection,
    IDeviceAuthority,
    IGateway,
    IPeer,
    NotAppended,
    Observer,
    Rejection,
    Traffic,
)
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.net.endpoints import readable
from tracker.observe.ratelimit import LimitedLog
from tracker.position import Entry
from tracker.untrusted import shown
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
        registration: DeviceRegistration,
        delivery: CommandDelivery,
        kept: KeptMemory | None = None,
    ) -> None:
        self.vendor = vendor
        self.kept = KeptMemory(Limits().kept_memory) if kept is None else kept
        self.figures = GatewayFigures()
        self.tally = self.figures.tally
        self._clock = clock
        self._publisher = publisher
        self._authority = authority
        self._limiter = limiter
        self._registration = registration
        self._delivery = delivery
        self._connections: set[IConnection] = set()
        self._by_device: dict[str, IConnection] = {}
        self._watchers: dict[str, Observer] = {}
        self._rejections = LimitedLog(clock, self._log)
        self._notices = LimitedLog(clock, self._log)
        self._losses = LimitedLog(clock, self._log)
        self._confirmation = Confirmation(
            clock, lambda: publisher.confirms and not self.kept.used_up
        )
        self._detached_given_up = 0  # entries
        self._refuses_logins = False
        self._all_closed: Deferred[None] | None = None

    @property
    def publisher(self) -> StreamPublisher:
        """The publisher that appends the records."""
        return self._publisher

    @property
    def devices(self) -> Mapping[str, IConnection]:
        """Device ID → connection, of the devices that are logged in."""
        return self._by_device

    def watch(self, device_id: str, observer: Observer | None) -> None:
        """Notify an observer of all traffic of a device; None removes the observer."""
        if observer is None:
            self._watchers.pop(device_id, None)
        else:
            self._watchers[device_id] = observer
        if device_id in self._by_device:
            self._by_device[device_id].observe(observer)

    @property
    def withheld_logins(self) -> int:
        """Number of logins whose answer waits for the log."""
        return self._confirmation.waiting

    @property
    def connections(self) -> int:
        """Number of open connections, logged in or not."""
        return len(self._connections)

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

        def give_up(reason: str) -> None:
            self.rejected(connection, reason, Rejection.NO_LOGIN)
            connection.close()

        self._limiter.opened(connection, give_up)

    def admission(self, device_id: str) -> Admission:
        """See IGateway."""
        if not self.running or self._refuses_logins:
            return Admission.LATER
        return self._authority.admission(device_id)

    def refuse_logins(self) -> None:
        """Refuse new logins while draining; devices reconnect and reach another instance."""
        self._refuses_logins = True

    def login(self, connection: IConnection, device_id: str) -> Admission:
        """See IGateway."""
        admission = self.admission(device_id)
        self.figures.logins[admission] += 1
        if admission is Admission.SERVED:
            self._limiter.logged_in(connection)
            older, self._by_device[device_id] = self._by_device.get(device_id), connection
            self._registration.register(device_id, self.vendor)
            self._delivery.connected(connection, device_id)
            if device_id in self._watchers:
                self._watchers[device_id](Traffic.CONNECTED, connection.peer.encode())
                connection.observe(self._watchers[device_id])
            if older is not None:
                # The device has usually lost that connection before it reconnected. It repeats
                # unacknowledged records on the new one.
                self.figures.replaced += 1
                older.close()
        elif admission is Admission.REFUSED:
            self.rejected(connection, "the device is not served here", Rejection.NOT_SERVED)
        return admission

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
        self._delivery.answered(connection, answer)

    def lost(self, peer: IPeer, count: int) -> None:
        """See IGateway."""
        self.figures.lost += count
        self._losses.warn(
            "{vendor}: {messages} from {device} lost: the device is over its rate, too many "
            "messages wait for Redis, or the instance is stopping",
            vendor=self.vendor,
            count=count,
            messages=counted(count, "message"),
            device=peer.device_id,
        )

    def noticed(self, peer: IPeer, notice: str) -> None:
        """See IGateway."""
        self._notices.info(
            "{vendor}: {device}: {notice}", vendor=self.vendor, device=peer.device_id, notice=notice
        )

    def rejected(self, peer: IPeer, reason: str, kind: Rejection = Rejection.CONTENT) -> None:
        """See IGateway."""
        self.figures.rejections[kind] += 1
        if peer.device_id in self._watchers:
            self._watchers[peer.device_id](Traffic.REJECTED, reason.encode())
        self._log_rejection(peer.peer, peer.device_id, reason)

    def _log_rejection(self, peer: str, device_id: str | None, reason: str) -> None:
        self._rejections.warn(
            "{vendor}: rejected {peer} ({device}): {reason}",
            vendor=self.vendor,
            peer=peer,
            device=device_id or "not logged in",
            reason=reason,
        )

    def moved(self, device_id: str, owner: str) -> None:
        """Close the connection of a device that is connected to another instance."""
        connection = self._by_device.get(device_id)
        if connection is not None:
            reason = f"the device is now connected to instance {shown(owner)}"
            self.rejected(connection, reason, Rejection.MOVED)
            connection.close()

    def review(self) -> None:
        """Close the connections of devices that were removed from the allow-list."""
        for device_id, connection in list(self._by_device.items()):
            if self._authority.withdrawn(device_id):
                reason = "the device was removed from the allow-list"
                self.rejected(connection, reason, Rejection.NOT_SERVED)
                connection.close()

    def closed(self, connection: IConnection) -> None:
        """See IGateway."""
        self._connections.remove(connection)
        self._limiter.closed(connection)
        device_id = connection.device_id
        if device_id is not None and self._by_device.get(device_id) is connection:
            del self._by_device[device_id]
            self._registration.unregister(device_id)
            self._delivery.disconnected(connection, device_id)
            if device_id in self._watchers:
                self._watchers[device_id](Traffic.DISCONNECTED, connection.peer.encode())
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
