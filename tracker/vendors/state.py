"""The state of one connection, as an enum with a table of transitions, and its figures.

======== ======================================= ==================================
state    what may come                           what follows
======== ======================================= ==================================
login    signs of life, then a login             served → serving; else → closed
serving  whatever the dialect reads              its steps
retiring the same                                closed when nothing is under way
closed   whatever the peer still sent            nothing
======== ======================================= ==================================
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from attrs import define

from tracker.interfaces import ConnectionFigures


class State(Enum):
    """The stage of a connection."""

    LOGIN = "login"
    SERVING = "serving"
    RETIRING = "retiring"
    CLOSED = "closed"


class Event(Enum):
    """An event that changes the state of a connection."""

    LOGGED_IN = "logged in"
    RETIRED = "retired"
    ENDED = "ended"


#: State → event → next state. An event that is missing cannot happen.
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.LOGIN: {
        Event.LOGGED_IN: State.SERVING,
        Event.RETIRED: State.CLOSED,
        Event.ENDED: State.CLOSED,
    },
    State.SERVING: {Event.RETIRED: State.RETIRING, Event.ENDED: State.CLOSED},
    State.RETIRING: {Event.RETIRED: State.RETIRING, Event.ENDED: State.CLOSED},
    State.CLOSED: {Event.RETIRED: State.CLOSED, Event.ENDED: State.CLOSED},
}
#: States in which there is a device.
LOGGED_IN: Final = frozenset({State.SERVING, State.RETIRING})


@define(eq=False)
class Status:
    """The state and the figures of one connection; see ConnectionFigures."""

    state: State = State.LOGIN
    since: float = 0.0
    codec: str = ""
    records: int = 0
    bytes: int = 0

    def change(self, event: Event) -> None:
        """Enter the state that follows an event."""
        self.state = TRANSITIONS[self.state][event]

    def figures(self, heard_at: float) -> ConnectionFigures:
        """Return the figures, once a device has logged in.

        :param heard_at: when the last whole frame came.
        """
        return ConnectionFigures(self.since, heard_at, self.codec, self.records, self.bytes)
