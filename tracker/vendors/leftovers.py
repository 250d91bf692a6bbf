"""Publish the detached frames that were unread when their connections ended.

A device never sends them again. Other frames are skipped: the device repeats them on its next
connection.

A peer can open and end any number of connections. Therefore only a few frames are read when a
connection ends. The others wait, as far as the memory of the instance for kept entries allows. They
are read out of the spare share of work, and only while few frames are under way to the log.
Messages are charged to the device's budget, which they may bring into debt, at most to its burst.
Those over one of these limits are lost, and counted. When a frame of a connection cannot be
published, because the instance is stopping, all later ones of that connection are lost too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import define
from twisted.python.failure import Failure

from tracker.interfaces import Admission, IGateway, IPeer, NotAppended
from tracker.outcomes import Decoded, Fatal, Incomplete
from tracker.position import Entry
from tracker.vendors.budget import MessageBudget
from tracker.vendors.dialect import AppendDetached, Dialect, LogIn, ProtocolError
from tracker.vendors.throttle import MAX_PORT_MESSAGES_UNDER_WAY, Workload

#: Maximum number of frames that are read when a connection ends: about as much work as its login.
MAX_FRAMES_AT_END: Final = 4
#: Maximum number of frames that are read in each later time slice: about 0.5 ms.
MAX_FRAMES_PER_SLICE: Final = 32


@define(eq=False)
class Leftover:
    """The unread bytes of one connection."""

    peer: IPeer
    budget: MessageBudget
    """The budget of the device."""
    dialect: Dialect[Any]
    """The dialect of the connection."""
    data: bytearray
    """The unread bytes; reading removes them."""
    has_positions: bool
    """True if the connection has sent detached positions."""
    devices: Mapping[str, bool]
    """Device that has logged in on the connection → True if it was served."""


class Leftovers:
    """Publishes the unread detached frames of the ended connections of a port."""

    def __init__(self, work: Workload, gateway: IGateway) -> None:
        self._work = work
        self._gateway = gateway
        self._kept = gateway.kept
        self._waiting: deque[Leftover] = deque()
        self._under_way = 0
        self._enqueued = False

    def publish(self, leftover: Leftover) -> None:
        """Publish all complete frames up to the first malformed one, now or later."""
        if not self._kept.used_up:
            self._publish(leftover, MAX_FRAMES_AT_END)
        if not self._kept.has_room(len(leftover.data), positions=leftover.has_positions):
            self._lose(leftover)
        self._wait(leftover)

    def run_slice(self) -> None:
        """Publish the next frames of the first connection in the queue."""
        self._enqueued = False
        if not self._kept.used_up:
            leftover = self._waiting.popleft()
            self._kept.unread -= len(leftover.data)
            self._publish(leftover, MAX_FRAMES_PER_SLICE)
            self._wait(leftover)
        self._enqueue()

    def _wait(self, leftover: Leftover) -> None:
        if leftover.data:
            self._waiting.append(leftover)
            self._kept.unread += len(leftover.data)
        self._enqueue()

    def _enqueue(self) -> None:
        crowded = self._under_way and self._work.messages_under_way >= MAX_PORT_MESSAGES_UNDER_WAY
        if not self._waiting or self._enqueued or crowded:
            return
        if self._kept.used_up:
            self._kept.when_free(self._enqueue)
        else:
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
            if count == 0 or self._kept.used_up:
                break
            count -= 1
            if isinstance(outcome, Decoded):
                self._publish_frame(leftover, outcome, began)
            del unread[: outcome.used]
        self._work.charge(max(0.0, self._work.clock.seconds() - began))

    def _publish_frame(self, leftover: Leftover, frame: Decoded[Any], now: float) -> None:
        """Publish the entries of one frame; if that fails, leave nothing unread."""
        if not leftover.dialect.is_detached(frame.value):
            return
        messages = leftover.dialect.count_messages(frame.value)
        if messages and leftover.budget.is_exhausted(now):
            if leftover.has_positions:  # more of which may follow
                self._gateway.lost(leftover.peer, messages)
            else:
                self._lose(leftover)
            return
        if messages:
            leftover.budget.take(messages, frame.used)
        else:
            leftover.has_positions = True
        device_id = leftover.peer.device_id
        for step in leftover.dialect.handle(frame.value, now):
            if isinstance(step, LogIn):
                device_id = step.device_id
            elif isinstance(step, AppendDetached):
                if not self._is_served(leftover, device_id):
                    self._gateway.tally.not_served += 1
                elif not self._append(step.entries):
                    self._lose(leftover)
            elif isinstance(step, ProtocolError):
                self._gateway.rejected(leftover.peer, step.reason, step.kind)
                if step.closes:
                    leftover.data.clear()

    def _is_served(self, leftover: Leftover, device_id: str | None) -> bool:
        """Return True if a device was served on the connection, or would be if it logged in now."""
        is_served = leftover.devices.get(device_id or "")
        if is_served is None:
            return self._gateway.admission(device_id or "") is Admission.SERVED
        return is_served

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
