"""The gateway of one vendor: who is connected, and where their records go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from tracker.ingestion.publisher import StreamPublisher
from tracker.ingestion.ratelimit import RateLimit
from tracker.interfaces import IGateway, ISession
from tracker.position import Entry

#: Lines a minute about peers that break the protocol. A scanner makes thousands.
REJECTION_LINES: Final = 10
#: Seconds that a stop waits for sockets to close.
STOP_TIMEOUT: Final = 5.0


@implementer(IGateway)
class Gateway(Service):
    """What the protocols of one vendor are given.

    As a service it closes all their connections when it stops.
    """

    _log = Logger()

    def __init__(self, clock: Any, vendor: str, publisher: StreamPublisher) -> None:
        self.vendor = vendor
        self._clock = clock
        self._publisher = publisher
        self._sessions: set[ISession] = set()
        self._rejections = RateLimit(clock, REJECTION_LINES, 60.0)
        self._all_closed: Deferred[None] | None = None

    @property
    def connections(self) -> int:
        """Open connections, logged in or not."""
        return len(self._sessions)

    def opened(self, session: ISession) -> None:
        """See IGateway."""
        self._sessions.add(session)
        if not self.running:
            session.close()  # accepted in the last moment before a stop

    def login(self, session: ISession, device_id: str) -> bool:
        """See IGateway. Every device is served."""
        self._log.debug("login of {device_id} from {peer}", device_id=device_id, peer=session.peer)
        return True

    def publish(self, entries: Sequence[Entry]) -> Deferred[None]:
        """See IGateway."""
        if not entries:
            return succeed(None)
        return self._publisher.publish(entries)

    def rejected(self, session: ISession, reason: str) -> None:
        """See IGateway."""
        suppressed = self._rejections.admit()
        if suppressed is None:
            return
        self._log.warn(
            "{vendor}: closing {peer} ({device}): {reason}{more}",
            vendor=self.vendor,
            peer=session.peer,
            device=session.device_id or "not logged in",
            reason=reason,
            more=f" (and {suppressed} more like it, not shown)" if suppressed else "",
        )

    def closed(self, session: ISession) -> None:
        """See IGateway."""
        self._sessions.discard(session)
        if self._all_closed is not None and not self._sessions and not self._all_closed.called:
            self._all_closed.callback(None)

    def stopService(self) -> Deferred[None]:
        """Close every connection; fires when they are closed."""
        super().stopService()
        if not self._sessions:
            return succeed(None)
        self._all_closed = Deferred()
        self._all_closed.addTimeout(STOP_TIMEOUT, self._clock).addErrback(
            lambda _: self._log.warn("{count} connections did not close", count=self.connections)
        )
        for session in list(self._sessions):
            session.close()
        return self._all_closed
