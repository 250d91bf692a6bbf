"""Reasons for not handling further frames of a connection."""

from __future__ import annotations

from enum import Enum


class Hold(Enum):
    """Reason for not handling further frames of a connection; several may apply at once."""

    REPLY = "reply"
    """An ACK or a reply is due, usually once the log has confirmed records."""
    DETACHED = "detached"
    """Too many detached messages are under way to the log."""
    MEMORY = "memory"
    """The memory for entries that outlive their connection is used up."""
    WORK = "work"
    """The budget of work is used up."""
    RATE = "rate"
    """The next message is over the rate."""
    PEER = "peer"
    """The peer does not read what is written to it."""

    # Enum's own hash is a Python function, and the hot path adds and removes two reasons for
    # each frame.
    __hash__ = object.__hash__
