"""Connections to HTTP sites without sockets; they pause, resume and close like real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure

from tracker.net.refusals import Refusal

#: Bytes that a transport buffers before it pauses its producer, as in Twisted.
FULL: Final = 65_536


@define
class FakeReports:
    """Records the reports of a site."""

    refusals: list[Refusal] = field(factory=list)
    failures: list[Failure] = field(factory=list)

    def refused(self, refusal: Refusal, peer: str, text: str) -> None:
        self.refusals.append(refusal)

    def failed(self, failure: Failure) -> None:
        self.failures.append(failure)


class Wire(StringTransport):
    """The server's end of a connection whose peer reads only on :meth:`read`."""

    def __init__(self, site: Any, host: str = "192.0.2.1") -> None:
        address = IPv6Address if ":" in host else IPv4Address
        peer = address("TCP", host, 40_000)
        super().__init__(IPv4Address("TCP", "192.0.2.99", 9120), peer)
        self.channel: Any = site.buildProtocol(peer)
        self.closed = False
        self._unread = 0
        self._full = False
        if self.refused:
            self.closed = True
        else:
            self.channel.makeConnection(self)

    @property
    def refused(self) -> bool:
        """True if the connection was closed before it began."""
        return self.channel is None

    def write(self, data: bytes) -> None:
        super().write(data)
        self._unread += len(data)
        if self._unread > FULL and self.producer is not None and not self._full:
            self._full = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def send(self, data: bytes) -> Wire:
        """Send bytes as the peer."""
        if not self.closed:
            self.channel.dataReceived(data)
        self.turn()
        return self

    def read(self) -> None:
        """Read everything as the peer."""
        self._unread = 0
        if self._full and self.producer is not None:
            self._full = False
            self.producer.resumeProducing()
        self.turn()

    def turn(self) -> None:
        """Run one reactor turn, in which a closed connection is lost."""
        if self.closed:
            return
        if self.disconnected:  # aborted
            self.lose(Failure(ConnectionAborted()))
        elif self.disconnecting and self._unread <= FULL:
            self.lose(Failure(ConnectionDone()))

    def lose(self, reason: Failure | None = None) -> None:
        """End the connection."""
        self.closed = True
        self.channel.connectionLost(reason or Failure(ConnectionDone()))

    @property
    def text(self) -> bytes:
        """All bytes sent to the peer."""
        sent: bytes = self.value()
        return sent

    @property
    def statuses(self) -> list[int]:
        """Status codes of all responses; no body here contains a status line."""
        parts = self.text.split(b"HTTP/1.1 ")[1:]
        return [int(part[:3]) for part in parts]

    @property
    def json(self) -> Any:
        """Decoded JSON body of the last response."""
        return json.loads(self.text.rpartition(b"\r\n\r\n")[2])


def errors(logged: Sequence[LogEvent]) -> list[LogEvent]:
    """Return the events with a failure, or of level error or critical."""
    return [
        event
        for event in logged
        if "log_failure" in event
        or "failure" in event
        or event.get("log_level") in (LogLevel.error, LogLevel.critical)
    ]
