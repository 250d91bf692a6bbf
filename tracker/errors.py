"""Errors of what Tracker stands on: the Redis client and every engine of the log raise them."""

from __future__ import annotations


class Unavailable(Exception):
    """The server cannot be asked; the outcome of a request that was sent is unknown."""


class Unanswered(Unavailable):
    """The server was asked, and has not answered in time."""


class Refused(Exception):
    """The server has answered with an error, and has done nothing of what it was asked."""
