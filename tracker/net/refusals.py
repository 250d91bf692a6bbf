"""Reasons for which an HTTP site refuses connections and requests."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from twisted.python.failure import Failure


class Refusal(Enum):
    """Why a connection or a request was refused; a metric's label."""

    CONNECTIONS = "connections"
    """The site has its maximal number of connections."""
    ADDRESS = "address"
    """The peer's address has its maximal number of connections."""
    OVERDUE = "overdue"
    """The peer was too slow."""
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    MISDIRECTED = "misdirected"
    """The request names another host."""


class Reports(Protocol):
    """Counts and logs the refusals and faults of a site. Log lines must be rate-limited."""

    def refused(self, refusal: Refusal, peer: str, text: str) -> None:
        """Count and log a connection or a request that was refused.

        :param text: the reason, for people; holds nothing that the peer has sent.
        """

    def failed(self, failure: Failure) -> None:
        """Log an internal error."""
