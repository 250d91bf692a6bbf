"""The transport of a connection: what is written to it, and whether it is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.tcp import Server

from tracker.interfaces import Observer, Tally, Traffic


class Wire:
    """Writes with as few system calls as possible, and pauses and resumes the transport.

    Data goes to the socket directly while that accepts it, which saves three system calls. Data
    that it does not accept, and all later data, is written by the transport.

    :ivar observer: notified of what is received and sent, if set.
    """

    __slots__ = ("_at_once", "_tally", "_transport", "observer", "paused")

    def __init__(self, transport: ITCPTransport, tally: Tally) -> None:
        self.observer: Observer | None = None
        # Any: its methods for producers are in no interface of Twisted's transports.
        self._transport: Any = transport
        self._tally = tally
        self.paused = False
        """True while the transport is not read."""
        self._at_once: Callable[[bytes], int | Exception] | None = None
        if type(transport) is Server and not transport.TLS:
            self._at_once = transport.writeSomeData

    def write(self, data: bytes) -> None:
        """Write now, or as soon as the socket accepts it."""
        if self.observer is not None:
            self.observer(Traffic.SENT, data)
        self._tally.bytes_sent += len(data)
        if self._at_once is not None:
            written = self._at_once(data)
            if written == len(data):
                return
            self._at_once = None
            if isinstance(written, int):
                data = data[written:]
        self._transport.write(data)

    def pause(self, paused: bool) -> None:
        """Stop reading the transport, or read it again."""
        if paused is not self.paused:
            self.paused = paused
            if paused:
                self._transport.pauseProducing()
            else:
                self._transport.resumeProducing()
