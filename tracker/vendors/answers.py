"""Answer a device: an answer leaves only when the log has confirmed.

This is the promise of all vendors, and this module alone keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tracker.interfaces import IConnection, IGateway, NotAccepted
from tracker.position import Entry
from tracker.vendors.holds import Hold
from tracker.vendors.throttle import Throttle
from tracker.vendors.wire import Wire

#: Seconds of work for an answer that needs no call to the log, in a turn of its own; measured.
ANSWER_WORK: Final = 0.00003


class Answers:
    """Appends what a device sends, and answers it.

    One answer is due at a time, and while it is, the connection is held for ``Hold.ANSWER``.

    :param holds: reason → what is cancelled when the connection ends.
    :param go_on: called when a reason to hold the connection is gone.
    """

    __slots__ = (
        *("_behind", "_clock", "_ended", "_gateway", "_go_on", "_holds"),
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
        self._behind: bytes | None = None  # an answer behind the one that is due
        self._ended = False

    def append(self, entries: Sequence[Entry], ack: bytes) -> None:
        """Append records, then write their ACK."""
        if not entries:
            self._throttle.worked(ANSWER_WORK, self._clock.seconds())
        self._answer_when(self._gateway.publish(entries), ack)

    def append_detached(self, entries: Sequence[Entry], ack: bytes) -> None:
        """Append what outlives the connection, then write its ACK, if any.

        Nothing waits for that, unless too much is under way.
        """
        kept = self._gateway.keep(entries)
        if kept is None:
            self._answer_when(self._gateway.publish(entries), ack, len(entries))
            return
        self._throttle.message_left()
        if self._throttle.too_many_under_way:
            self._holds[Hold.CROWD] = None
        kept.addCallbacks(self._kept, self._given_up, callbackArgs=(ack,))

    def answer_all(self, answer: bytes) -> None:
        """Write an answer when all that the device has sent before is durable."""
        if Hold.ANSWER in self._holds:  # this frame could not be kept: its append is awaited
            self._behind = answer
        elif self._throttle.all_arrived:
            self.answer_soon(answer)
        else:
            self._answer_when(self._throttle.when_all_arrived(), answer)

    def answer_soon(self, answer: bytes, written: Callable[[], None] | None = None) -> None:
        """Write an answer that waits for nothing, in the next turn of the reactor.

        :param written: called just before.
        """
        self._throttle.worked(ANSWER_WORK, self._clock.seconds())
        self._answer_when(deferLater(self._clock, 0, written), answer)

    def end(self) -> None:
        """Answer nothing more; give up the records that are not confirmed."""
        self._ended = True
        due = self._holds.get(Hold.ANSWER)
        if due is not None:
            due.cancel()

    def _answer_when(self, durable: Deferred[None], answer: bytes, lost: int = 0) -> None:
        """Answer as soon as that is allowed.

        :param lost: messages that are lost if it never is.
        """
        self._holds[Hold.ANSWER] = durable
        durable.addCallbacks(
            self._confirmed, self._not_confirmed, callbackArgs=(answer,), errbackArgs=(lost,)
        )

    def _confirmed(self, _: None, answer: bytes) -> None:
        del self._holds[Hold.ANSWER]
        if answer:
            self._wire.write(answer)
        if self._behind is not None:
            behind, self._behind = self._behind, None
            self.answer_all(behind)
        self._go_on()

    def _not_confirmed(self, failure: Failure, lost: int) -> None:
        del self._holds[Hold.ANSWER]
        self._connection.close()
        # Cancelled by the end of the connection, or refused because the process is stopping.
        failure.trap(CancelledError, NotAccepted)
        if lost:
            self._gateway.lost(self._connection, lost)

    def _kept(self, _: None, ack: bytes) -> None:
        if ack and not self._ended:
            self._wire.write(ack)
        self._arrived()

    def _given_up(self, failure: Failure) -> None:
        failure.trap(NotAccepted)
        self._connection.close()  # before an answer could say that all is durable
        self._arrived()

    def _arrived(self) -> None:
        self._throttle.message_arrived()
        if not self._throttle.too_many_under_way:
            self._holds.pop(Hold.CROWD, None)
        self._go_on()
