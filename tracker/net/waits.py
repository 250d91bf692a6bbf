"""Stages of an HTTP connection, and their deadlines.

Every wait for the peer has a deadline, which the peer cannot extend by sending bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from twisted.internet.interfaces import IDelayedCall

#: Seconds until the head of a request is complete (from its first byte; for the first request,
#: from the connection), and from then until its body is complete.
HEAD_TIMEOUT: Final = 10.0
BODY_TIMEOUT: Final = 10.0
#: Seconds that a connection may be idle between two requests.
IDLE_TIMEOUT: Final = 60.0
#: Seconds within which a peer must read the buffered response, or close its side.
READ_TIMEOUT: Final = 60.0


class Stage(Enum):
    """Event that a connection waits for, as text for the log."""

    NEW = "its first byte"
    HEAD = "the rest of the head"
    BODY = "the rest of the body"
    RESPONSE = "our response"
    IDLE = "the next request"
    CLOSE = "the peer to read the last response and to close"


#: Stage → seconds until its deadline; None: no deadline.
STAGE_TIMEOUTS: Final = {
    Stage.NEW: HEAD_TIMEOUT,
    Stage.HEAD: HEAD_TIMEOUT,
    Stage.BODY: BODY_TIMEOUT,
    Stage.RESPONSE: None,
    Stage.IDLE: IDLE_TIMEOUT,
    Stage.CLOSE: READ_TIMEOUT,
}


class Wait:
    """Current wait of a connection, and its deadline.

    :param call_later: schedules a call, such as ``IReactorTime.callLater``.
    :param begun: called at the start of each wait; the argument is True if it is for the peer.
    :param overdue: called when the deadline passes.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], IDelayedCall],
        begun: Callable[[bool], None],
        overdue: Callable[[], None],
    ) -> None:
        self.stage = Stage.NEW
        self.stalled = False
        """True if the peer must first read the buffered response."""
        self._call_later = call_later
        self._begun = begun
        self._overdue = overdue
        self._deadline: IDelayedCall | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds until the deadline of the current wait; None: no deadline."""
        return READ_TIMEOUT if self.stalled else STAGE_TIMEOUTS[self.stage]

    def begin(self, stage: Stage, stalled: bool = False) -> None:
        """Enter a stage, and start its deadline."""
        self.cancel()
        self.stage, self.stalled = stage, stalled
        seconds = self.seconds
        self._begun(seconds is not None)
        if seconds is not None:
            self._deadline = self._call_later(seconds, self._deadline_passed)

    def cancel(self) -> None:
        """Cancel the deadline."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _deadline_passed(self) -> None:
        self._deadline = None
        self._overdue()
