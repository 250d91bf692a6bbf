"""The transport of a connection: writing to it, and pausing its reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.tcp import Server

from tracker.interfaces import Observer, Tally, Traffic


class Wire:
    """Writes with as few system calls as possible, and pauses and resumes the transport.

    Data is written to the socket directly while the socket accepts all of it, which saves three
    system calls. From the first data that the socket does not accept, the transport writes.

    :ivar observer: called with received and sent data, if set.
    """

    __slots__ = ("_tally", "_transport", "_write_directly", "observer", "paused")

    def __init__(self, transport: ITCPTransport, tally: Tally) -> None:
        self.observer: Observer | None = None
        # Any: its methods for producers are in no interface of Twisted's transports.
        self._transport: Any = transport
        self._tally = tally
        self.paused = False
        """True while the transport is not read."""
        self._write_directly: Callable[[bytes], int | Exception] | None = None
        if type(transport) is Server and not transport.TLS:
            self._write_directly = transport.writeSomeData

    def write(self, data: bytes, shown: bytes | None = None) -> None:
        """Write now, or as soon as the socket accepts it.

        :param shown: the bytes that the observer is called with instead; None: ``data``.
        """
        if self.observer is not None:
            self.observer(Traffic.SENT, data if shown is None else shown)
        self._tally.bytes_sent += len(data)
        if self._write_directly is not None:
            written = self._write_directly(data)
            if written == len(data):
                return
            self._write_directly = None
            if isinstance(written, int):
                data = data[written:]
        self._transport.write(data)

    def pause(self, paused: bool) -> None:
        """Stop or resume reading the transport."""
        if paused is not self.paused:
            self.paused = paused
            if paused:
                self._transport.pauseProducing()
            else:
                self._transport.resumeProducing()
