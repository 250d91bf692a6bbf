"""Dispatch HTTP requests by a table of paths and methods."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.http import NOT_ALLOWED, NOT_FOUND, RESPONSES
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

JSON: Final = b"application/json"

#: Handles a request: called with the request and the groups of the path's expression, it returns
#: the body of the response. An awaitable is cancelled if the peer disconnects; its result is None
#: if it has finished the request itself.
Handler = Callable[..., bytes | Awaitable[bytes | None]]
#: Regular expression of a whole path → method → handler. The handler of GET also serves HEAD.
Table = Mapping[str, Mapping[bytes, Handler]]
#: Returns the body for an unknown path or method, from a status and its name in lower case.
Refuse = Callable[[Request, int, str], bytes]


def respond(request: Request, status: int, body: bytes, content_type: bytes = JSON) -> bytes:
    """Set the status, type and length of a response, and return its body."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"content-length", b"%d" % len(body))
    return body


class Routes(Resource):
    """Resource that dispatches by a table; child resources take precedence.

    Decoded paths are matched as they are, without redirects to normalised paths.
    """

    def __init__(self, table: Table, refuse: Refuse) -> None:
        super().__init__()
        self.leaf: Resource = _Leaf(table, refuse)
        """Resource that matches the whole path. As a child, it serves all paths below it."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the resource that matches the whole path."""
        return self.leaf


class _Leaf(Resource):
    isLeaf = True

    def __init__(self, table: Table, refuse: Refuse) -> None:
        super().__init__()
        self._table = [(re.compile(path), handlers) for path, handlers in table.items()]
        self._refuse = refuse

    def render(self, request: Request) -> int:
        """Respond now or later."""
        ended = request.notifyFinish()
        ended.addErrback(lambda _: None)
        body = Deferred.fromCoroutine(self._body(request))
        # A handler that itself waits for the end of its request is notified before it is cancelled.
        request.notifyFinish().addErrback(lambda _: body.cancel())

        def send(content: bytes | None) -> None:
            if content is not None and not ended.called:
                request.write(content)
                request.finish()

        def fail(failure: Failure) -> None:
            if not (ended.called and failure.check(CancelledError)):
                request.processingFailed(failure)

        body.addCallback(send).addErrback(fail)
        return NOT_DONE_YET

    async def _body(self, request: Request) -> bytes | None:
        body = self._dispatch(request)
        return body if isinstance(body, bytes) else await body

    def _dispatch(self, request: Request) -> bytes | Awaitable[bytes | None]:
        # BoundedRequest has checked that the whole target is UTF-8.
        path = b"/".join([*(request.prepath or ()), *(request.postpath or ())]).decode()
        for expression, handlers in self._table:
            if (found := expression.fullmatch("/" + path.lstrip("/"))) is not None:
                methods = dict(handlers)
                if b"GET" in handlers:
                    methods[b"HEAD"] = handlers[b"GET"]
                if (handler := methods.get(request.method)) is not None:
                    return handler(request, *found.groups())
                request.setHeader(b"allow", b", ".join(methods))
                return self._refused(request, NOT_ALLOWED)
        return self._refused(request, NOT_FOUND)

    def _refused(self, request: Request, status: int) -> bytes:
        return self._refuse(request, status, RESPONSES[status].decode().lower())
