"""Reasons for which an HTTP site refuses connections and requests."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from twisted.python.failure import Failure


class Refusal(Enum):
    """Reason to refuse a connection or a request; a label of a metric."""

    CONNECTIONS = "connections"
    """The site has its maximum number of connections."""
    ADDRESS = "address"
    """The peer's address has its maximum number of connections."""
    OVERDUE = "overdue"
    """The peer was too slow."""
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    MISDIRECTED = "misdirected"
    """The request names another host."""


class Reports(Protocol):
    """Counts and logs the refusals and errors of a site. Log lines must be rate-limited."""

    def refused(self, refusal: Refusal, peer: str, text: str) -> None:
        """Count and log a refused connection or request.

        :param text: the reason, for people; contains no bytes from the peer.
        """

    def failed(self, failure: Failure) -> None:
        """Log an internal error."""
