"""What an HTTP connection waits for, and for how long.

Every wait for the peer has a deadline, which nothing extends that the peer sends.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from twisted.internet.interfaces import IDelayedCall

#: Seconds from the first moment of a request until its head is complete, and from then until
#: its body is.
HEAD_TIMEOUT: Final = 10.0
BODY_TIMEOUT: Final = 10.0
#: Seconds that a connection is kept between two requests.
IDLE_TIMEOUT: Final = 60.0
#: Seconds in which a peer has to read what the transport holds for it, or to close.
READ_TIMEOUT: Final = 60.0


class Stage(Enum):
    """What a connection waits for."""

    NEW = "its first byte"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    ANSWER = "our own answer"
    IDLE = "another request"
    CLOSE = "the peer to read the last answer, and to close"


#: How long it waits; None: as long as it takes.
SECONDS: Final = {
    Stage.NEW: HEAD_TIMEOUT,
    Stage.HEAD: HEAD_TIMEOUT,
    Stage.BODY: BODY_TIMEOUT,
    Stage.ANSWER: None,
    Stage.IDLE: IDLE_TIMEOUT,
    Stage.CLOSE: READ_TIMEOUT,
}


class Wait:
    """What a connection waits for now, and the deadline of that.

    :param call_later: as of ``IReactorTime``.
    :param begun: called with each wait, and whether it is for the peer.
    :param overdue: called when the deadline is over.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], IDelayedCall],
        begun: Callable[[bool], None],
        overdue: Callable[[], None],
    ) -> None:
        self.stage = Stage.NEW
        self.stalled = False
        """Whether it waits for the peer to read, first of all."""
        self._call_later = call_later
        self._begun = begun
        self._overdue = overdue
        self._deadline: IDelayedCall | None = None

    @property
    def seconds(self) -> float | None:
        """How long this may take."""
        return READ_TIMEOUT if self.stalled else SECONDS[self.stage]

    def begin(self, stage: Stage, stalled: bool = False) -> None:
        """Begin to wait for something."""
        self.cancel()
        self.stage, self.stalled = stage, stalled
        seconds = self.seconds
        self._begun(seconds is not None)
        if seconds is not None:
            self._deadline = self._call_later(seconds, self._over)

    def cancel(self) -> None:
        """Wait without a deadline."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _over(self) -> None:
        self._deadline = None
        self._overdue()
