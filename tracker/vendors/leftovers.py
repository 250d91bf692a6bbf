"""Publish the messages that were unread in the buffers of connections when they ended.

Only detached frames are published, because a device never sends them again. Records are skipped:
the device sends them again on its next connection.

A peer can open and end any number of connections. Therefore only a few frames are read when a
connection ends. The others, up to a limit in bytes, are read out of the spare share of work, and
only while few messages are under way to the log. All are charged to the device's budget of
messages, which they may bring into debt, at most to its burst. Messages over one of these limits
are lost, and counted. When one message of a connection cannot be published detached, all later
ones of that connection are lost too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen
from twisted.python.failure import Failure

from tracker.interfaces import IGateway, IPeer, NotAppended
from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.position import Entry
from tracker.vendors.budget import MessageBudget
from tracker.vendors.dialect import AppendDetached, Dialect, ProtocolError
from tracker.vendors.throttle import MAX_PORT_MESSAGES_UNDER_WAY, Workload

#: Maximum number of frames that are read when a connection ends: about as much work as its login.
MAX_FRAMES_AT_END: Final = 4
#: Maximum number of frames that are read in each later time slice: about 0.5 ms.
MAX_FRAMES_PER_SLICE: Final = 32
#: Maximum number of bytes of a port that wait to be read.
MAX_WAITING_BYTES: Final = 4 << 20


@frozen(eq=False)
class Leftover:
    """The unread bytes of one connection."""

    peer: IPeer
    budget: MessageBudget
    """The budget of the device."""
    dialect: Dialect[Any]
    """The dialect of the connection."""
    data: bytearray
    """The unread bytes; reading removes them."""


class Leftovers:
    """Publishes the unread messages of the ended connections of a port."""

    def __init__(self, work: Workload, gateway: IGateway) -> None:
        self._work = work
        self._gateway = gateway
        self._waiting: deque[Leftover] = deque()
        self._bytes = 0  # of the waiting leftovers
        self._under_way = 0
        self._enqueued = False

    def publish(self, leftover: Leftover) -> None:
        """Publish all complete messages up to the first malformed frame, now or later."""
        self._publish(leftover, MAX_FRAMES_AT_END)
        if self._bytes + len(leftover.data) > MAX_WAITING_BYTES:
            self._lose(leftover)
        self._wait(leftover)

    def run_slice(self) -> None:
        """Publish the next messages of the first connection in the queue."""
        self._enqueued = False
        leftover = self._waiting.popleft()
        self._bytes -= len(leftover.data)
        self._publish(leftover, MAX_FRAMES_PER_SLICE)
        self._wait(leftover)

    def _wait(self, leftover: Leftover) -> None:
        if leftover.data:
            self._waiting.append(leftover)
            self._bytes += len(leftover.data)
        self._enqueue()

    def _enqueue(self) -> None:
        crowded = self._under_way and self._work.messages_under_way >= MAX_PORT_MESSAGES_UNDER_WAY
        if self._waiting and not self._enqueued and not crowded:
            self._enqueued = True
            self._work.enqueue(self, self._work.clock.seconds())

    def _publish(self, leftover: Leftover, count: int) -> None:
        began = self._work.clock.seconds()
        unread = leftover.data
        while unread:
            outcome = leftover.dialect.next_frame(unread)
            if isinstance(outcome, Incomplete | Fatal):
                unread.clear()
                break
            if count == 0:
                break
            count -= 1
            if isinstance(outcome, Decoded):
                self._publish_frame(leftover, outcome, began)
            del unread[: outcome.used]
        self._work.charge(max(0.0, self._work.clock.seconds() - began))

    def _publish_frame(self, leftover: Leftover, frame: Decoded[Any], now: float) -> None:
        """Publish the messages of one frame; if that fails, leave nothing unread."""
        messages = leftover.dialect.count_messages(frame.value)
        if not messages:
            return
        if leftover.budget.is_exhausted(now):
            self._lose(leftover)
            return
        leftover.budget.take(messages, frame.used)
        for step in leftover.dialect.handle(frame.value, now):
            if isinstance(step, AppendDetached):
                if not self._append(step.entries):
                    self._lose(leftover)
            elif isinstance(step, ProtocolError):
                self._gateway.rejected(leftover.peer, step.reason, step.kind)
                if step.closes:
                    leftover.data.clear()

    def _append(self, entries: Sequence[Entry]) -> bool:
        appended = self._gateway.publish_detached(entries)
        if appended is None:
            return False
        count = len(entries)
        self._under_way += count
        self._work.messages_under_way += count
        appended.addErrback(_given_up).addCallback(self._messages_ended, count)
        return True

    def _messages_ended(self, _: None, count: int) -> None:
        self._under_way -= count
        self._work.messages_under_way -= count
        self._enqueue()

    def _lose(self, leftover: Leftover) -> None:
        # Decoding would cost too much, so the number is an estimate.
        lost = leftover.dialect.count_detached(leftover.data)
        leftover.data.clear()
        if lost:
            self._gateway.lost(leftover.peer, lost)


def _given_up(failure: Failure) -> None:
    failure.trap(NotAppended)  # counted by the gateway
