"""Publish messages that were unread in the buffer of a connection when it ended.

A message is not acknowledged, so its device never sends it again. Records are skipped: the
device sends them again on its next connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tracker.interfaces import IGateway, IPeer
from tracker.limits import Limits
from tracker.outcomes import Decoded
from tracker.position import Entry
from tracker.vendors.teltonika.frame import decode_frame, swallow_pings
from tracker.vendors.teltonika.messages import MESSAGE_CODECS

#: Frames that are read in one turn of the reactor, which takes some 0.5 ms.
AT_ONCE: Final = 32

#: Returns the entries of the message in a frame's data; none if it is malformed.
ReadMessage = Callable[[bytes], list[Entry]]


class Leftovers:
    """Publishes the messages of one connection, a few in each turn of the reactor.

    :param read: see :data:`ReadMessage`.
    """

    def __init__(
        self, clock: Any, gateway: IGateway, peer: IPeer, limits: Limits, read: ReadMessage
    ) -> None:
        self._clock = clock
        self._gateway = gateway
        self._peer = peer
        self._limits = limits
        self._read = read

    def publish(self, unread: bytearray) -> None:
        """Publish all complete messages up to the first malformed frame.

        :param unread: the received bytes; they are consumed.
        """
        limits = self._limits
        lost = 0
        for _ in range(AT_ONCE):
            swallow_pings(unread)
            frame = decode_frame(unread, limits.frame_bytes, limits.command_frame_bytes)
            if not isinstance(frame, Decoded):
                unread.clear()
                break
            del unread[: frame.used]
            if frame.value[0] in MESSAGE_CODECS:
                if not (entries := self._read(frame.value)):
                    unread.clear()
                    break
                lost += self._gateway.keep(entries) is None
        if lost:
            self._gateway.lost(self._peer, lost)
        if unread:
            self._clock.callLater(0, self.publish, unread)
