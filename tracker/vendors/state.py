"""State of one connection: its stage, with a table of transitions, and its figures.

======== ======================================= ==================================
stage    accepted input                          effect
======== ======================================= ==================================
login    signs of life, then a login             served → serving; else → closed
serving  all frames of the dialect               the steps of each frame
retiring all frames of the dialect               closed when nothing is under way
closed   bytes that the peer sent before         none
======== ======================================= ==================================
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from attrs import define

from tracker.interfaces import ConnectionFigures


class Stage(Enum):
    """The stage of a connection."""

    LOGIN = "login"
    SERVING = "serving"
    RETIRING = "retiring"
    CLOSED = "closed"


class Event(Enum):
    """An event that changes the stage of a connection."""

    LOGGED_IN = "logged in"
    RETIRED = "retired"
    ENDED = "ended"


#: Stage → event → next stage. An event that is missing cannot happen.
TRANSITIONS: Final[Mapping[Stage, Mapping[Event, Stage]]] = {
    Stage.LOGIN: {
        Event.LOGGED_IN: Stage.SERVING,
        Event.RETIRED: Stage.CLOSED,
        Event.ENDED: Stage.CLOSED,
    },
    Stage.SERVING: {Event.RETIRED: Stage.RETIRING, Event.ENDED: Stage.CLOSED},
    Stage.RETIRING: {Event.RETIRED: Stage.RETIRING, Event.ENDED: Stage.CLOSED},
    Stage.CLOSED: {Event.RETIRED: Stage.CLOSED, Event.ENDED: Stage.CLOSED},
}
#: Stages in which the device is known.
LOGGED_IN: Final = frozenset({Stage.SERVING, Stage.RETIRING})


@define(eq=False)
class ConnectionState:
    """The stage and the figures of one connection; see ConnectionFigures."""

    stage: Stage = Stage.LOGIN
    since: float = 0.0
    codec: str = ""
    records: int = 0
    bytes: int = 0

    def change(self, event: Event) -> None:
        """Enter the stage that follows an event."""
        self.stage = TRANSITIONS[self.stage][event]

    def figures(self, last_heard: float) -> ConnectionFigures:
        """Return the figures, once a device has logged in.

        :param last_heard: time of the last whole frame, in seconds since 1970 (UTC).
        """
        return ConnectionFigures(self.since, last_heard, self.codec, self.records, self.bytes)
