"""The end of connections that are silent for too long."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tracker.interfaces import Rejection
from tracker.limits import Limits
from tracker.vendors.holds import Hold

#: Seconds for a peer to take what was written before its connection was closed.
CLOSE_GRACE: Final = 5.0


class Silence:
    """The one timer of a connection: until its login, between its frames, and at its close.

    :param holds: why the connection is held. If that is because it has sent too much, it is
        not silent.
    :param give_up: called with the reason when the device is silent for too long.
    """

    __slots__ = ("_clock", "_give_up", "_holds", "_limits", "_timer", "heard_at")

    def __init__(
        self,
        clock: IReactorTime,
        limits: Limits,
        holds: Container[Hold],
        give_up: Callable[[str, Rejection], None],
    ) -> None:
        self.heard_at = 0.0
        """Time of the last whole frame."""
        self._clock = clock
        self._limits = limits
        self._holds = holds
        self._give_up = give_up
        self._timer: IDelayedCall | None = None

    def expect_login(self) -> None:
        """Allow for the time until the login."""
        self._timer = self._clock.callLater(self._limits.login_timeout, self._login_overdue)

    def logged_in(self, now: float) -> None:
        """Allow for the time between two frames from now on."""
        self.stop()
        self.heard_at = now
        self._timer = self._clock.callLater(self._limits.idle_timeout, self._check)

    def closing(self, abort: Callable[[], None]) -> None:
        """Abort a connection that was closed, unless it ends soon by itself."""
        self.stop()
        self._timer = self._clock.callLater(CLOSE_GRACE, abort)

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _login_overdue(self) -> None:
        self._give_up(f"no login within {self._limits.login_timeout:g} s", Rejection.NO_LOGIN)

    def _check(self) -> None:
        # One timer for each connection, not one for each frame.
        now = self._clock.seconds()
        if Hold.WORK in self._holds or Hold.RATE in self._holds:
            self.heard_at = now
        left = self.heard_at + self._limits.idle_timeout - now
        if left <= 0:
            self._give_up(f"nothing whole for {self._limits.idle_timeout:g} s", Rejection.IDLE)
        else:
            self._timer = self._clock.callLater(left, self._check)
