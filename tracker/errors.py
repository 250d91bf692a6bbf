"""Errors that the Redis client and every engine of the log raise."""

from __future__ import annotations


class Unavailable(Exception):
    """The server is not reachable; a request that was sent may or may not have been carried out."""


class Unanswered(Unavailable):
    """The server has received the request, and has not replied in time."""


class Refused(Exception):
    """The server has replied with an error, and has not carried out the request."""
