"""Decide when a connection is over its budget of work or over its rate of messages.

Its decoding then pauses. Received bytes are buffered up to a limit; above it the transport is not
read, so that TCP slows the peer down and nothing is lost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tracker.interfaces import Tally
from tracker.limits import Limits
from tracker.vendors.budget import FIRST_CREDIT, OWN_BURST, SPARE_BURST, Bucket, MessageBudget
from tracker.vendors.holds import Hold

#: Maximum number of messages of a connection that are under way to the log while it is read on.
MAX_MESSAGES_UNDER_WAY: Final = 32
#: The same for all connections of a port; it bounds the delay of records that follow the messages.
#: Above it, each connection may have one message under way.
MAX_PORT_MESSAGES_UNDER_WAY: Final = 256

#: Maximum number of disconnected devices whose budget of messages is remembered.
MAX_REMEMBERED_BUDGETS: Final = 10_000


class TimeSliced(Protocol):
    """Work that is done out of the spare share, in time slices."""

    def run_slice(self) -> None:
        """Do a small part of the work."""


class Workload:
    """The spare share of a port's connections, and the queue of connections that wait for it.

    The queue is served first in, first out while any of the spare share is left. After that the
    reactor serves all other events first.

    :ivar messages_under_way: messages of the port that are under way to the log.
    """

    def __init__(self, clock: IReactorTime, limits: Limits, tally: Tally) -> None:
        self.messages_under_way = 0
        self.clock = clock
        self.limits = limits
        self.tally = tally
        self._spare = Bucket(limits.spare_work, SPARE_BURST, clock.seconds())
        # A dict for its order and for removal anywhere in it at no cost.
        self._waiting: dict[TimeSliced, None] = {}
        self._next: IDelayedCall | None = None
        self._messages: OrderedDict[str, MessageBudget] = OrderedDict()

    def may_use_spare(self, now: float) -> bool:
        """Return True if a connection over its own share may work now; queued ones come first."""
        return not self._waiting and self._spare.level(now) > 0

    def charge(self, work: float) -> None:
        """Charge for work of a connection over its own share."""
        self._spare.take(work)

    def enqueue(self, one: TimeSliced, now: float) -> None:
        """Queue a connection for a time slice."""
        self._waiting[one] = None
        if self._next is None:
            self._next = self.clock.callLater(self._spare.wait(now), self._serve)

    def dequeue(self, one: TimeSliced) -> None:
        """Remove a connection from the queue, if it is there."""
        self._waiting.pop(one, None)
        if not self._waiting and self._next is not None:
            self._next.cancel()
            self._next = None

    def _serve(self) -> None:
        self._next = None
        waiting = len(self._waiting)
        while self._waiting and waiting and self._spare.level(self.clock.seconds()) > 0:
            waiting -= 1  # those that are queued again have had their time slice
            one = next(iter(self._waiting))
            del self._waiting[one]
            one.run_slice()
        if self._waiting and self._next is None:
            self._next = self.clock.callLater(self._spare.wait(self.clock.seconds()), self._serve)

    def message_budget(self, device_id: str) -> MessageBudget:
        """Return a device's budget of messages, which outlives its connections."""
        found = self._messages.pop(device_id, None)
        return found or MessageBudget(self.limits, self.clock.seconds())

    def remember(self, device_id: str, messages: MessageBudget) -> None:
        """Remember the budget of a device whose connection ends, unless it is unused."""
        if not messages.is_full(self.clock.seconds()):
            self._messages[device_id] = messages
            if len(self._messages) > MAX_REMEMBERED_BUDGETS:
                self._messages.popitem(last=False)


class Throttle:
    """Decides whether the next frame of one connection is decoded; counts its messages under way.

    :param release: called with a reason to hold the connection when that reason ends.
    """

    __slots__ = (
        *("_waiter", "_at", "_has_slice", "_messages", "_release", "_timer", "_under_way"),
        *("_device_id", "_work", "credit"),
    )

    def __init__(self, work: Workload, release: Callable[[Hold], None]) -> None:
        self._work = work
        self._release = release
        self.credit = FIRST_CREDIT
        """Seconds of work left of the connection's own share."""
        self._at = work.clock.seconds()  # when the credit was updated
        self._has_slice = False
        self._timer: IDelayedCall | None = None
        self._messages: MessageBudget | None = None
        self._device_id = ""  # of the budget; that of the first device on a shared connection
        self._under_way = 0
        self._waiter: Deferred[None] | None = None

    def may_work(self) -> bool:
        """Return True if the next frame may be decoded now; else hold for :attr:`Hold.WORK`.

        The call may be omitted while :attr:`credit` is positive.
        """
        work = self._work
        now = work.clock.seconds()
        # Refilled only when it has run out, which is rare for a well-behaved device.
        refill = max(0.0, now - self._at) * work.limits.peer_work
        self.credit = min(OWN_BURST, self.credit + refill)
        self._at = now  # also after the clock was set back
        if self.credit > 0 or self._has_slice or work.may_use_spare(now):
            return True
        work.tally.paused_for_work += 1
        work.enqueue(self, now)
        return False

    def run_slice(self) -> None:
        """Decode at least one frame, out of the spare share."""
        self._has_slice = True
        try:
            self._release(Hold.WORK)
        finally:
            self._has_slice = False

    def worked(self, seconds: float, now: float) -> None:
        """Charge for a frame that was decoded."""
        before = self.credit
        if seconds < 0:
            return  # the clock was set back meanwhile
        if before <= 0:
            self._work.charge(seconds)
            self._has_slice = False
            return
        self.credit = before - seconds
        if self.credit <= 0:
            self.credit = max(-OWN_BURST, self.credit)
            self._at = now

    def may_take_messages(self, device_id: str, count: int, size: int) -> bool:
        """Charge for the unsolicited messages of a frame; return False to hold for Hold.RATE.

        :param size: bytes of the frame.
        """
        now = self._work.clock.seconds()
        messages = self._messages or self.messages(device_id)
        wait = messages.wait(now)
        if wait:
            self._work.tally.paused_for_messages += 1
            self._timer = self._work.clock.callLater(wait, self._rate_allows)
            return False
        messages.take(count, size)
        return True

    def messages(self, device_id: str) -> MessageBudget:
        """Return the budget of messages of the connection's device."""
        if self._messages is None:
            self._messages = self._work.message_budget(device_id)
            self._device_id = device_id
        return self._messages

    def begin_messages(self, count: int) -> None:
        """Count messages that are under way to the log."""
        self._under_way += count
        self._work.messages_under_way += count

    def end_messages(self, count: int) -> None:
        """Count messages that were appended to the log, or given up."""
        self._under_way -= count
        self._work.messages_under_way -= count
        if self._under_way == 0 and self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.callback(None)

    @property
    def none_under_way(self) -> bool:
        """True if no message of the connection is under way."""
        return self._under_way == 0

    def when_none_under_way(self) -> Deferred[None]:
        """Wait until no message of the connection is under way; one caller at a time."""
        self._waiter = Deferred(self._forget_waiter)
        return self._waiter

    def _forget_waiter(self, _: Deferred[None]) -> None:
        self._waiter = None

    @property
    def too_many_under_way(self) -> bool:
        """True if the connection must be held (Hold.DETACHED) until a message was appended."""
        if self._under_way == 0:
            return False
        crowded = self._work.messages_under_way >= MAX_PORT_MESSAGES_UNDER_WAY
        return crowded or self._under_way >= MAX_MESSAGES_UNDER_WAY

    def _rate_allows(self) -> None:
        self._timer = None
        self._release(Hold.RATE)

    def end(self) -> None:
        """Stop waiting, because the connection ends, and remember its device's budget."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._work.dequeue(self)
        if self._messages is not None:
            self._work.remember(self._device_id, self._messages)
            self._messages = None
