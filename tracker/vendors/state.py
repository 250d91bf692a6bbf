"""State of one connection: its stage, with a table of transitions, and its figures.

On a connection that several devices share, entries of those that are not served are discarded in
the other stages, too.

======== =========================== =========================================================
stage    accepted input              effect
======== =========================== =========================================================
login    signs of life, then a login served → serving; waits → waiting; else → closed
waiting  all frames of the dialect   replies; entries are discarded without an ACK
serving  all frames of the dialect   the steps of each frame
retiring all frames of the dialect   closed when nothing is under way
closed   bytes that the peer sent    none
======== =========================== =========================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from attrs import define, field

from tracker.interfaces import ConnectionFigures


class Stage(Enum):
    """The stage of a connection."""

    LOGIN = "login"
    WAITING = "waiting"
    SERVING = "serving"
    RETIRING = "retiring"
    CLOSED = "closed"


class Event(Enum):
    """An event that changes the stage of a connection."""

    LOGGED_IN = "logged in"
    NONE_SERVED = "none served"
    """Devices wait on the connection, and none is served."""
    RETIRED = "retired"
    ENDED = "ended"


#: Stage → event → next stage. An event that is missing cannot happen.
TRANSITIONS: Final[Mapping[Stage, Mapping[Event, Stage]]] = {
    Stage.LOGIN: {
        Event.LOGGED_IN: Stage.SERVING,
        Event.NONE_SERVED: Stage.WAITING,
        Event.RETIRED: Stage.CLOSED,
        Event.ENDED: Stage.CLOSED,
    },
    Stage.WAITING: {
        Event.LOGGED_IN: Stage.SERVING,
        Event.NONE_SERVED: Stage.WAITING,
        Event.RETIRED: Stage.CLOSED,
        Event.ENDED: Stage.CLOSED,
    },
    Stage.SERVING: {
        Event.LOGGED_IN: Stage.SERVING,
        Event.NONE_SERVED: Stage.WAITING,
        Event.RETIRED: Stage.RETIRING,
        Event.ENDED: Stage.CLOSED,
    },
    Stage.RETIRING: {
        Event.LOGGED_IN: Stage.RETIRING,
        Event.NONE_SERVED: Stage.RETIRING,
        Event.RETIRED: Stage.RETIRING,
        Event.ENDED: Stage.CLOSED,
    },
    Stage.CLOSED: {Event.RETIRED: Stage.CLOSED, Event.ENDED: Stage.CLOSED},
}
#: Stages in which a device is served.
LOGGED_IN: Final = frozenset({Stage.SERVING, Stage.RETIRING})


@define(eq=False)
class ConnectionState:
    """The stage and the figures of one connection; see ConnectionFigures."""

    stage: Stage = Stage.LOGIN
    since: float = 0.0
    codec: str = ""
    records: int = 0
    bytes: int = 0
    devices: dict[str, bool] = field(factory=dict)
    """Device → True if it is served, False if it waits."""
    may_stay: bool = False
    """True if devices that are not served may wait on the connection."""
    shared: bool = False
    """True if several devices may log in on the connection."""

    def serve(self, device_id: str) -> None:
        """Note that a device is served."""
        self.devices[device_id] = True
        self.change(Event.LOGGED_IN)

    def wait(self, device_id: str) -> None:
        """Note that a device waits until it is served."""
        self.devices[device_id] = False
        if self.stage is not Stage.SERVING or True not in self.devices.values():
            self.change(Event.NONE_SERVED)

    def log_out(self, device_id: str) -> None:
        """Remove a device."""
        del self.devices[device_id]
        if self.stage is Stage.SERVING and True not in self.devices.values():
            self.change(Event.NONE_SERVED)

    def change(self, event: Event) -> None:
        """Enter the stage that follows an event."""
        self.stage = TRANSITIONS[self.stage][event]

    def figures(self, last_heard: float) -> ConnectionFigures:
        """Return the figures, once a device has logged in.

        :param last_heard: time of the last whole frame, in seconds since 1970 (UTC).
        """
        return ConnectionFigures(self.since, last_heard, self.codec, self.records, self.bytes)
