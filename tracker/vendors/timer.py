"""Timeouts of a connection: for its login, between its frames, and for its close."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tracker.durations import format_duration
from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.vendors.holds import Hold
from tracker.vendors.wire import Wire

#: Seconds in which a peer has to read what was written before its connection was closed.
CLOSE_TIMEOUT: Final = 5.0
#: Reasons to hold a connection that is not idle: its device has sent more than is handled.
_NOT_IDLE: Final = frozenset({Hold.WORK, Hold.RATE, Hold.MEMORY})


class ConnectionTimer:
    """The one timer of a connection: until its login, between its frames, and at its close.

    :param holds: the reasons for which the connection is held.
    :param wire: its transport. A connection is not idle while frames that its device never sends
        again may be unread in the transport.
    :param give_up: called with the reason and its kind when a timeout has passed.
    """

    __slots__ = ("_clock", "_give_up", "_holds", "_limits", "_timer", "_wire", "last_heard")

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        holds: Collection[Hold],
        wire: Wire,
        *,
        give_up: Callable[[str, Rejection], None],
    ) -> None:
        self.last_heard = 0.0
        """Time of the last whole frame."""
        self._clock = clock
        self._limits = limits
        self._holds = holds
        self._wire = wire
        self._give_up = give_up
        self._timer: IDelayedCall | None = None

    def expect_login(self) -> None:
        """Start the login timeout."""
        self._timer = self._clock.callLater(self._limits.login_timeout, self._login_overdue)

    def logged_in(self, now: float) -> None:
        """Replace the login timeout by the idle timeout."""
        self.stop()
        self.last_heard = now
        self._timer = self._clock.callLater(self._limits.idle_timeout, self._check)

    def closing(self, abort: Callable[[], None]) -> None:
        """Call ``abort`` if the closed connection does not end within :data:`CLOSE_TIMEOUT`."""
        self.stop()
        self._timer = self._clock.callLater(CLOSE_TIMEOUT, abort)

    @property
    def is_heard(self) -> bool:
        """True if the idle timeout has not passed since the last frame."""
        return self._clock.seconds() - self.last_heard < self._limits.idle_timeout

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _login_overdue(self) -> None:
        if Hold.MEMORY in self._holds:
            self.expect_login()  # its first frame was received, and is not handled yet
            return
        self._give_up(
            f"no login within {format_duration(self._limits.login_timeout)}", Rejection.NO_LOGIN
        )

    def _check(self) -> None:
        # One timer for each connection costs less than one for each frame.
        now = self._clock.seconds()
        unread = self._wire.paused and Hold.DETACHED in self._holds
        if unread or not _NOT_IDLE.isdisjoint(self._holds):
            self.last_heard = now
        left = self.last_heard + self._limits.idle_timeout - now
        if left <= 0:
            timeout = self._limits.idle_timeout
            self._give_up(f"no complete frame within {format_duration(timeout)}", Rejection.IDLE)
        else:
            self._timer = self._clock.callLater(left, self._check)
