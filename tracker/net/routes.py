"""Answer HTTP requests by a table of paths and methods."""

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

#: Makes an answer: called with the request and the groups of the path's expression, it returns the
#: body. An awaitable is cancelled if the peer leaves; its result is None if the request has ended.
Answer = Callable[..., bytes | Awaitable[bytes | None]]
#: Regular expression of a whole path → method → answer. GET answers HEAD, too.
Table = Mapping[str, Mapping[bytes, Answer]]
#: Makes the answer to an unknown path or method, of a status and its name in lower case.
Refuse = Callable[[Request, int, str], bytes]


def respond(request: Request, status: int, body: bytes, content_type: bytes = JSON) -> bytes:
    """Set the status, type and length of an answer, and return its body."""
    request.setResponseCode(status)
    request.setHeader(b"content-type", content_type)
    request.setHeader(b"content-length", b"%d" % len(body))
    return body


class Routes(Resource):
    """Answer by a table; children, if there are any, come first.

    Paths are matched as they are after decoding: there are no redirects to other paths.
    """

    def __init__(self, table: Table, refuse: Refuse) -> None:
        super().__init__()
        self.leaf: Resource = _Leaf(table, refuse)
        """Looks up the whole path of each request. As a child it answers for all paths below it."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        """Return the resource that looks up the whole path."""
        return self.leaf


class _Leaf(Resource):
    isLeaf = True

    def __init__(self, table: Table, refuse: Refuse) -> None:
        super().__init__()
        self._table = [(re.compile(path), answers) for path, answers in table.items()]
        self._refuse = refuse

    def render(self, request: Request) -> int:
        """Answer now or later."""
        ended = request.notifyFinish()
        ended.addErrback(lambda _: None)
        made = Deferred.fromCoroutine(self._answer(request))
        # If the peer leaves, an answer that waits for the end of its request learns of it first.
        request.notifyFinish().addErrback(lambda _: made.cancel())

        def send(body: bytes | None) -> None:
            if body is not None and not ended.called:
                request.write(body)
                request.finish()

        def fail(failure: Failure) -> None:
            if not (ended.called and failure.check(CancelledError)):
                request.processingFailed(failure)

        made.addCallback(send).addErrback(fail)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> bytes | None:
        made = self._look_up(request)
        return made if isinstance(made, bytes) else await made

    def _look_up(self, request: Request) -> bytes | Awaitable[bytes | None]:
        # The whole target of the request was checked to be UTF-8.
        path = b"/".join([*(request.prepath or ()), *(request.postpath or ())]).decode()
        for expression, answers in self._table:
            if (found := expression.fullmatch("/" + path.lstrip("/"))) is not None:
                methods = {**answers, b"HEAD": answers[b"GET"]} if b"GET" in answers else answers
                if (answer := methods.get(request.method)) is not None:
                    return answer(request, *found.groups())
                request.setHeader(b"allow", b", ".join(methods))
                return self._refused(request, NOT_ALLOWED)
        return self._refused(request, NOT_FOUND)

    def _refused(self, request: Request, status: int) -> bytes:
        return self._refuse(request, status, RESPONSES[status].decode().lower())
