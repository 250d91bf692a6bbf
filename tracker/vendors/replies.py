"""Write ACKs and replies to a device, none before the log has confirmed the records.

All vendors make this promise to their devices, and only this module implements it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tracker.interfaces import IConnection, IGateway, NotAppended
from tracker.position import Entry
from tracker.vendors.holds import Hold
from tracker.vendors.throttle import Throttle
from tracker.vendors.wire import Wire

#: Seconds of work for a reply that needs no call to the log; measured.
REPLY_WORK: Final = 0.00003


class Replies:
    """Appends the entries of a device, then writes the ACK or reply.

    At most one is due at a time; meanwhile the connection is held for ``Hold.REPLY``.

    :param holds: reason → the Deferred to cancel when the connection ends.
    :param go_on: called when a reason to hold the connection is removed.
    """

    __slots__ = (
        *("_clock", "_ended", "_gateway", "_go_on", "_holds", "_next_reply"),
        *("_connection", "_throttle", "_wire"),
    )

    def __init__(
        self,
        connection: IConnection,
        gateway: IGateway,
        wire: Wire,
        *,
        clock: IReactorTime,
        throttle: Throttle,
        holds: dict[Hold, Deferred[None] | None],
        go_on: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._gateway = gateway
        self._wire = wire
        self._clock = clock
        self._throttle = throttle
        self._holds = holds
        self._go_on = go_on
        self._next_reply: bytes | None = None  # after the one that is due
        self._ended = False

    def append(self, entries: Sequence[Entry], ack: bytes) -> None:
        """Append records, then write their ACK."""
        if not entries:
            self._throttle.worked(REPLY_WORK, self._clock.seconds())
        self._reply_when(self._gateway.publish(entries), ack)

    def append_detached(self, entries: Sequence[Entry], ack: bytes) -> None:
        """Append entries that outlive the connection, then write their ACK, if any.

        Later frames are handled meanwhile, unless too much is under way.
        """
        appended = self._gateway.publish_detached(entries)
        if appended is None:
            self._reply_when(self._gateway.publish(entries), ack, len(entries))
            return
        count = len(entries)
        self._throttle.begin_messages(count)
        if self._throttle.too_many_under_way:
            self._holds[Hold.DETACHED] = None
        appended.addCallbacks(
            self._detached_appended,
            self._given_up,
            callbackArgs=(count, ack),
            errbackArgs=(count,),
        )

    def reply_when_appended(self, reply: bytes) -> None:
        """Write a reply once everything that the device has sent before is appended."""
        if Hold.REPLY in self._holds:  # this frame holds the connection until it is appended
            self._next_reply = reply
        elif self._throttle.none_under_way:
            self.reply_soon(reply)
        else:
            self._reply_when(self._throttle.when_none_under_way(), reply)

    def reply_soon(self, reply: bytes, written: Callable[[], None] | None = None) -> None:
        """Write a reply that waits for no append, in the next reactor turn.

        :param written: called immediately before the reply is written.
        """
        self._throttle.worked(REPLY_WORK, self._clock.seconds())
        self._reply_when(deferLater(self._clock, 0, written), reply)

    def reply_when(self, ready: Deferred[None], reply: bytes, written: Callable[[], None]) -> None:
        """Write a reply as soon as ``ready`` fires, which the end of the connection cancels.

        :param written: called immediately before the reply is written.
        """
        self._reply_when(ready.addCallback(lambda _: written()), reply)

    def end(self) -> None:
        """Write nothing further, and give up the records that are not appended yet."""
        self._ended = True
        due = self._holds.get(Hold.REPLY)
        if due is not None:
            due.cancel()

    def _reply_when(self, appended: Deferred[None], reply: bytes, lost: int = 0) -> None:
        """Hold the connection, and reply once ``appended`` fires.

        :param lost: number of messages that are lost if it fails.
        """
        self._holds[Hold.REPLY] = appended
        appended.addCallbacks(
            self._appended, self._not_appended, callbackArgs=(reply,), errbackArgs=(lost,)
        )

    def _appended(self, _: None, reply: bytes) -> None:
        del self._holds[Hold.REPLY]
        if reply:
            self._wire.write(reply)
        if self._next_reply is not None:
            next_reply, self._next_reply = self._next_reply, None
            self.reply_when_appended(next_reply)
        self._go_on()

    def _not_appended(self, failure: Failure, lost: int) -> None:
        del self._holds[Hold.REPLY]
        self._connection.close()
        # Cancelled by the end of the connection, or refused because the process is stopping.
        failure.trap(CancelledError, NotAppended)
        if lost:
            self._gateway.lost(self._connection, lost)

    def _detached_appended(self, _: None, count: int, ack: bytes) -> None:
        if ack and not self._ended:
            self._wire.write(ack)
        self._end_messages(count)

    def _given_up(self, failure: Failure, count: int) -> None:
        failure.trap(NotAppended)
        # Closed first, so that no reply claims that everything is durable.
        self._connection.close()
        self._end_messages(count)

    def _end_messages(self, count: int) -> None:
        self._throttle.end_messages(count)
        if not self._throttle.too_many_under_way:
            self._holds.pop(Hold.DETACHED, None)
        self._go_on()
