"""The reasons for which a connection is not handled further."""

from __future__ import annotations

from enum import Enum


class Hold(Enum):
    """Why no further frame of a connection is handled; there may be several at once."""

    ANSWER = "answer"
    """An answer is due, as a rule once the log has confirmed records."""
    CROWD = "crowd"
    """Too much that outlives its connection is under way to the log."""
    WORK = "work"
    """The budget of work is used up."""
    RATE = "rate"
    """The next message is over the rate."""
    PEER = "peer"
    """The peer does not read what is written to it."""

    # Enum's own is a Python function, and two reasons come and go with each packet.
    __hash__ = object.__hash__
