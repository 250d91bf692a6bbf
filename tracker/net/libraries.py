"""Private parts of libraries that have no public equivalent.

``tests/unit/net/test_libraries.py`` fails if one of them changes. Those of txredisapi are in
:mod:`tracker.redis.protocol`.
"""

from __future__ import annotations

from twisted.web.client import HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.http import HTTPChannel

from twisted.web._newclient import RequestNotSent as RequestNotSent  # isort: skip


class _QuietFactory(_HTTP11ClientFactory):
    noisy = False


class QuietPool(HTTPConnectionPool):
    """A pool of HTTP connections that does not log a line at the start and end of each."""

    # The pool has no parameter for its factory, whose class is private.
    _factory = _QuietFactory


class CheckedChannel(HTTPChannel):
    """A server's connection with hooks for unread bytes and for malformed requests."""

    def unread(self) -> bytes:
        """Return the bytes that have arrived after the current request."""
        return b"".join((self._buffer, *self._dataBuffer))

    def malformed(self, reason: str) -> None:
        """Send an error response to a request that cannot be parsed, and close the connection."""
        raise NotImplementedError

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is longer than ``MAX_LENGTH``."""
        self.malformed("a line of the head is too long")

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted would send a response without a body.
        self.malformed("the request is malformed")
