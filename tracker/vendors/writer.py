"""Write to a transport with as few system calls as possible."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.tcp import Server


class Writer:
    """Writes to the socket directly while it accepts data, which saves three system calls.

    Data that the socket does not accept, and all later data, is written by the transport.
    """

    __slots__ = ("_at_once", "_transport")

    def __init__(self, transport: ITCPTransport) -> None:
        self._transport = transport
        self._at_once: Callable[[bytes], int | Exception] | None = None
        if type(transport) is Server and not transport.TLS:
            self._at_once = transport.writeSomeData

    def write(self, data: bytes) -> None:
        """Write now, or as soon as the socket accepts it."""
        if self._at_once is not None:
            written = self._at_once(data)
            if written == len(data):
                return
            self._at_once = None
            if isinstance(written, int):
                data = data[written:]
        self._transport.write(data)
