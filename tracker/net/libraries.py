"""Private parts of libraries that have no public equivalent.

``tests/unit/net/test_libraries.py`` fails if one of them changes.
"""

from __future__ import annotations

from twisted.web.client import HTTPConnectionPool, _HTTP11ClientFactory

from twisted.web._newclient import RequestNotSent as RequestNotSent  # isort: skip


class _QuietFactory(_HTTP11ClientFactory):
    noisy = False


class QuietPool(HTTPConnectionPool):
    """A pool of HTTP connections that does not log a line at the start and end of each."""

    # There is no parameter for the factory, whose class is private.
    _factory = _QuietFactory
