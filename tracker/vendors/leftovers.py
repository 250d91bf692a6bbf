"""Publish messages that were unread in the buffers of connections when they ended.

These are the detached frames: a device never sends them again. Records that it repeats are
skipped: it sends them again on its next connection.

A peer can open and end any number of connections. So only a few frames are read at once. The
others, up to a limit in bytes, are read out of the spare share of work, while few messages are
under way to the log. All are charged to the device's budget of messages, which they may bring
into debt, but no deeper than its burst. Messages over one of these limits are lost, and counted.
So is the rest of a connection's messages as soon as one of them cannot be kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen
from twisted.python.failure import Failure

from tracker.interfaces import IGateway, IPeer, NotAccepted
from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.position import Entry
from tracker.vendors.budget import MessageBudget
from tracker.vendors.dialect import AppendDetached, Dialect, ProtocolError
from tracker.vendors.throttle import ALL_UNDER_WAY, Workload

#: Frames that are read when a connection ends: about as much work as its login.
AT_ONCE: Final = 4
#: Frames that are read in each turn after that: some 0.5 ms.
IN_A_TURN: Final = 32
#: Bytes of a port that wait to be read.
WAITING_BYTES: Final = 4 << 20


@frozen(eq=False)
class Rest:
    """The unread bytes of one connection."""

    peer: IPeer
    budget: MessageBudget
    """The device's."""
    dialect: Dialect[Any]
    """The connection's."""
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
        unread = rest.unread
        while unread:
            outcome = rest.dialect.next_frame(unread)
            if isinstance(outcome, Incomplete | Fatal):
                unread.clear()
                break
            if count == 0:
                break
            count -= 1
            if isinstance(outcome, Decoded) and rest.dialect.is_detached(outcome.value):
                self._publish_frame(rest, outcome, began)
            del unread[: outcome.used]
        self._work.charge(max(0.0, self._work.clock.seconds() - began))

    def _publish_frame(self, rest: Rest, frame: Decoded[Any], now: float) -> None:
        """Publish what one frame holds; if that fails, leave nothing unread."""
        if rest.budget.is_exhausted(now):
            self._lose(rest)
            return
        rest.budget.take(frame.used)
        for step in rest.dialect.handle(frame.value, now):
            if isinstance(step, AppendDetached):
                if not self._keep(step.entries):
                    self._lose(rest)
            elif isinstance(step, ProtocolError) and step.closes:
                rest.unread.clear()

    def _keep(self, entries: Sequence[Entry]) -> bool:
        kept = self._gateway.keep(entries)
        if kept is None:
            return False
        self._under_way += 1
        self._work.messages_under_way += 1
        kept.addErrback(_given_up).addCallback(self._arrived)
        return True

    def _arrived(self, _: None) -> None:
        self._under_way -= 1
        self._work.messages_under_way -= 1
        self._enqueue()

    def _lose(self, rest: Rest) -> None:
        # Not decoded, since that is what costs too much. So their number is an estimate.
        lost = rest.dialect.count_detached(rest.unread)
        rest.unread.clear()
        if lost:
            self._gateway.lost(rest.peer, lost)


def _given_up(failure: Failure) -> None:
    failure.trap(NotAccepted)  # counted by the gateway
