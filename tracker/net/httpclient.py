"""HTTP requests whose time and answers are bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from attrs import frozen
from OpenSSL.SSL import Error as SSLError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
)
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from tracker.net.libraries import QuietPool, RequestNotSent

#: Seconds that an idle connection is kept: less than Node's 5, which would close it under us.
IDLE: Final = 3.0
#: Idle connections that are kept: as many as there are requests at a time.
MAX_IDLE: Final = 16


class Unanswered(Exception):
    """There is no answer, or none that could be read; the text says why."""


class AnswerTooLong(Unanswered):
    """The body of the answer is longer than the limit."""


@frozen
class Answer:
    """The answer to a request."""

    status: int
    headers: Headers
    body: bytes


class BoundedClient:
    """Makes requests over persistent connections; follows no redirects.

    :param timeout: seconds for a connection, and from a request to the last byte of its answer.
    :param max_body: bytes of an answer.
    :param agent: makes the requests; None: one with persistent connections.
    """

    def __init__(
        self, reactor: IReactorTime, *, timeout: float, max_body: int, agent: IAgent | None = None
    ) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._max_body = max_body
        self._pool: QuietPool | None = None
        if agent is None:
            self._pool = QuietPool(reactor)
            self._pool.cachedConnectionTimeout = IDLE  # type: ignore[assignment]
            self._pool.maxPersistentPerHost = MAX_IDLE
            agent = Agent(reactor, connectTimeout=timeout, pool=self._pool)
        self._http = HTTPClient(agent, data_to_body_producer=_Whole)

    async def close(self) -> None:
        """Close the idle connections."""
        if self._pool is not None:
            await self._pool.closeCachedConnections()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers,
        json: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make a request; cancelling it closes its connection.

        :param json: the body; None: there is none.
        :raises Unanswered: if there is no answer in time, or it is too long.
        """
        options: dict[str, Any] = {} if json is None else {"json": json}
        asked = Deferred.fromCoroutine(
            self._ask(method, url, headers, params or {}, options=options)
        )
        asked.addTimeout(self._timeout, self._reactor, _overdue)
        try:
            return await asked
        except ConnectingCancelledError:  # by the caller
            raise CancelledError from None
        except _BROKEN as error:
            reason = _innermost(error)
            if isinstance(reason, CancelledError):  # by the caller
                raise reason from None
            broken = "the answer broke off: " if isinstance(error, ResponseFailed) else ""
            why = str(reason) or type(reason).__name__.strip("_")
            raise Unanswered(f"{broken}{why}") from None

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Headers,
        params: Mapping[str, str],
        *,
        options: dict[str, Any],
    ) -> Answer:
        response = await self._http.request(
            method,
            url,
            params=dict(params),
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=cast(Any, self._reactor),  # else treq imports the installed one
            **options,
        )
        return Answer(response.code, response.headers, await _content(response, self._max_body))


#: Errors of a connection, or of a request on it.
_BROKEN: Final = (
    *(ConnectError, DNSLookupError, ConnectionLost, ConnectionDone, SSLError),
    *(ResponseFailed, ResponseNeverReceived, RequestTransmissionFailed, RequestNotSent),
)


@implementer(IBodyProducer)
class _Whole:
    """A body that is written at once: it is short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is written already."""

    def resumeProducing(self) -> None:
        """It is written already."""

    def stopProducing(self) -> None:
        """It is written already."""


class _Body(Protocol):
    """Collects a body up to a limit.

    ``treq.collect`` could count bytes as well, but its Deferred does not close the connection when
    it is cancelled: a server that stops in the middle of an answer would hold a connection for
    each request that has timed out.
    """

    def __init__(self, limit: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._parts.append(data)
        elif not self.done.called:
            self._parts.clear()
            self.done.errback(AnswerTooLong(f"more than {self._limit:,} bytes"))
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(reason)

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()


def _content(response: IResponse, limit: int) -> Deferred[bytes]:
    body = _Body(limit)
    response.deliverBody(body)
    return body.done


def _overdue(result: Any, seconds: float) -> Any:
    raise Unanswered(f"no answer within {seconds:g} s")


def _innermost(error: Any) -> Any:
    """Return the error that others wrap."""
    while reasons := getattr(error, "reasons", None):
        error = reasons[-1].value if isinstance(reasons[-1], Failure) else reasons[-1]
    return error
