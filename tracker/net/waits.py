"""The states in which an HTTP connection waits, and their deadlines.

Every wait for the peer has a deadline, which the peer cannot extend by sending bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from twisted.internet.interfaces import IDelayedCall

#: Seconds from the first byte of a request (of the first one, from the connection) until its
#: head is complete, and from then until its body is complete.
HEAD_TIMEOUT: Final = 10.0
BODY_TIMEOUT: Final = 10.0
#: Seconds that a connection is kept between two requests.
IDLE_TIMEOUT: Final = 60.0
#: Seconds in which a peer must read what the transport holds for it, or close.
READ_TIMEOUT: Final = 60.0


class Stage(Enum):
    """What a connection waits for."""

    NEW = "its first byte"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWER = "our own answer"
    IDLE = "another request"
    CLOSE = "the peer to read the last answer, and to close"


#: Seconds of each stage; None: no deadline.
STAGE_TIMEOUTS: Final = {
    Stage.NEW: HEAD_TIMEOUT,
    Stage.HEAD: HEAD_TIMEOUT,
    Stage.BODY: BODY_TIMEOUT,
    Stage.ANSWER: None,
    Stage.IDLE: IDLE_TIMEOUT,
    Stage.CLOSE: READ_TIMEOUT,
}


class Wait:
    """The current wait of a connection, and its deadline.

    :param call_later: as of ``IReactorTime``.
    :param begun: called at the start of each wait, with whether it is for the peer.
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
        """True if the peer must first read what the transport holds for it."""
        self._call_later = call_later
        self._begun = begun
        self._overdue = overdue
        self._deadline: IDelayedCall | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds that the current wait may take; None: no deadline."""
        return READ_TIMEOUT if self.stalled else STAGE_TIMEOUTS[self.stage]

    def begin(self, stage: Stage, stalled: bool = False) -> None:
        """Enter a stage, and start its deadline."""
        self.cancel()
        self.stage, self.stalled = stage, stalled
        seconds = self.seconds
        self._begun(seconds is not None)
        if seconds is not None:
            self._deadline = self._call_later(seconds, self._over)

    def cancel(self) -> None:
        """Cancel the deadline."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _over(self) -> None:
        self._deadline = None
        self._overdue()
