"""Publish messages that were unread in the buffers of connections when they ended.

A message is not acknowledged, so its device never sends it again. Records are skipped: the
device sends them again on its next connection.

A peer can open and end any number of connections. So only a few messages are read at once. The
others, up to a limit in bytes, are read out of the spare share of work, while few messages are
under way to Redis. All are charged to the device's budget of messages, which they may bring
into debt, but no deeper than its burst. Messages over one of these limits are lost, and counted.
So is the rest of a connection's messages as soon as one of them cannot be kept.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import frozen

from tracker.interfaces import IGateway, IPeer
from tracker.outcomes import Decoded, Rejected
from tracker.position import Entry
from tracker.vendors.budget import MessageBudget
from tracker.vendors.teltonika.frame import PREAMBLE, decode_frame, swallow_pings
from tracker.vendors.teltonika.messages import MESSAGE_CODECS
from tracker.vendors.teltonika.reader import Reading
from tracker.vendors.throttle import ALL_UNDER_WAY, Workload

#: Frames that are read when a connection ends: about as much work as its login.
AT_ONCE: Final = 4
#: Frames that are read in each turn after that: some 0.5 ms.
IN_A_TURN: Final = 32
#: Bytes of a port that wait to be read.
WAITING_BYTES: Final = 4 << 20

#: The start of a frame that is shorter than 64 KiB and holds a message.
_MESSAGE_START: Final = re.compile(
    re.escape(PREAMBLE) + rb"\x00\x00..[" + re.escape(bytes(MESSAGE_CODECS)) + rb"]", re.DOTALL
)


@frozen(eq=False)
class Rest:
    """The unread bytes of one connection."""

    peer: IPeer
    budget: MessageBudget
    """The device's."""
    read: Callable[[bytes, float], Reading | Rejected]
    """Reads a frame's data at some time."""
    unread: bytearray
    """The received bytes; they are consumed."""


class Leftovers:
    """Publishes the unread messages of the ended connections of a port."""

    def __init__(self, work: Workload, gateway: IGateway) -> None:
        self._work = work
        self._gateway = gateway
        self._waiting: deque[Rest] = deque()
        self._bytes = 0  # of those
        self._under_way = 0
        self._enqueued = False

    def publish(self, rest: Rest) -> None:
        """Publish all complete messages up to the first malformed frame, some of them later."""
        self._publish(rest, AT_ONCE)
        if self._bytes + len(rest.unread) > WAITING_BYTES:
            self._lose(rest)
        self._wait(rest)

    def turn(self) -> None:
        """Publish some more."""
        self._enqueued = False
        rest = self._waiting.popleft()
        self._bytes -= len(rest.unread)
        self._publish(rest, IN_A_TURN)
        self._wait(rest)

    def _wait(self, rest: Rest) -> None:
        if rest.unread:
            self._waiting.append(rest)
            self._bytes += len(rest.unread)
        self._enqueue()

    def _enqueue(self) -> None:
        crowded = self._under_way and self._work.messages_under_way >= ALL_UNDER_WAY
        if self._waiting and not self._enqueued and not crowded:
            self._enqueued = True
            self._work.enqueue(self, self._work.clock.seconds())

    def _publish(self, rest: Rest, count: int) -> None:
        began = self._work.clock.seconds()
        limits = self._work.limits
        unread = rest.unread
        for _ in range(count):
            swallow_pings(unread)
            frame = decode_frame(unread, limits.frame_bytes, limits.command_frame_bytes)
            if not isinstance(frame, Decoded):
                unread.clear()
                break
            if frame.value[0] in MESSAGE_CODECS:
                if rest.budget.is_exhausted(began):
                    self._lose(rest)
                    break
                rest.budget.take(len(frame.value))
                reading = rest.read(frame.value, began)
                if isinstance(reading, Rejected):
                    unread.clear()
                    break
                if not self._keep(reading.entries):
                    self._lose(rest)
                    break
            del unread[: frame.used]
        self._work.charge(max(0.0, self._work.clock.seconds() - began))

    def _keep(self, entries: list[Entry]) -> bool:
        kept = self._gateway.keep(entries)
        if kept is None:
            return False
        self._under_way += 1
        self._work.messages_under_way += 1
        kept.addCallback(self._kept)
        return True

    def _kept(self, _: None) -> None:
        self._under_way -= 1
        self._work.messages_under_way -= 1
        self._enqueue()

    def _lose(self, rest: Rest) -> None:
        # Not read, since that is what costs too much: so their number is an estimate.
        lost = len(_MESSAGE_START.findall(rest.unread))
        rest.unread.clear()
        if lost:
            self._gateway.lost(rest.peer, lost)
