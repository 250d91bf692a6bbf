"""HTTP requests with a timeout and bounded responses."""

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

from tracker.durations import format_duration
from tracker.net.libraries import QuietPool, RequestNotSent
from tracker.net.reasons import connect_error
from tracker.wording import counted

#: Seconds that an idle connection is kept: less than the 5 after which Node closes it.
IDLE_TIMEOUT: Final = 3.0
#: Idle connections that are kept: the number of simultaneous requests.
MAX_IDLE: Final = 16


class NoResponse(Exception):
    """No response, or one that could not be read; the message gives the reason."""


class ResponseTooLong(NoResponse):
    """The body of the response is longer than the limit."""


@frozen
class HTTPResponse:
    """Response to a request."""

    status: int
    headers: Headers
    body: bytes


class BoundedClient:
    """Sends requests over persistent connections; follows no redirects.

    :param timeout: seconds to connect, and from a request to the last byte of its response.
    :param max_body: maximum number of bytes of a response's body.
    :param agent: sends the requests; None for an agent with persistent connections.
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
            self._pool.cachedConnectionTimeout = IDLE_TIMEOUT  # type: ignore[assignment]
            self._pool.maxPersistentPerHost = MAX_IDLE
            agent = Agent(reactor, connectTimeout=timeout, pool=self._pool)
        self._http = HTTPClient(agent, data_to_body_producer=_WholeBody)

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
    ) -> HTTPResponse:
        """Send a request, and return its response. Cancelling it closes its connection.

        :param json: the body; None for no body.
        :raises NoResponse: if no response arrives in time, or it is too long.
        """
        options: dict[str, Any] = {} if json is None else {"json": json}
        sent = Deferred.fromCoroutine(
            self._send(method, url, headers, params or {}, options=options)
        )
        sent.addTimeout(self._timeout, self._reactor, _overdue)
        try:
            return await sent
        except ConnectingCancelledError:  # cancelled by the caller
            raise CancelledError from None
        except _CONNECTION_ERRORS as error:
            reason = _innermost(error)
            if isinstance(reason, CancelledError):  # cancelled by the caller
                raise reason from None
            incomplete = "incomplete response: " if isinstance(error, ResponseFailed) else ""
            why = connect_error(reason) or type(reason).__name__.strip("_")
            raise NoResponse(f"{incomplete}{why}") from None

    async def _send(
        self,
        method: str,
        url: str,
        headers: Headers,
        params: Mapping[str, str],
        *,
        options: dict[str, Any],
    ) -> HTTPResponse:
        response = await self._http.request(
            method,
            url,
            params=dict(params),
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=cast(Any, self._reactor),  # otherwise treq imports the installed one
            **options,
        )
        body = await _content(response, self._max_body)
        return HTTPResponse(response.code, response.headers, body)


#: Errors of a connection, or of a request on it.
_CONNECTION_ERRORS: Final = (
    *(ConnectError, DNSLookupError, ConnectionLost, ConnectionDone, SSLError),
    *(ResponseFailed, ResponseNeverReceived, RequestTransmissionFailed, RequestNotSent),
)


@implementer(IBodyProducer)
class _WholeBody:
    """Body of a request, short enough to be written at once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Do nothing: the body is written already."""

    def resumeProducing(self) -> None:
        """Do nothing: the body is written already."""

    def stopProducing(self) -> None:
        """Do nothing: the body is written already."""


class _Body(Protocol):
    """Collects the body of a response up to a limit.

    ``treq.collect`` could count bytes as well, but cancelling its Deferred does not close the
    connection: a server that stops in the middle of a response would hold a connection for each
    request that has timed out.
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
            self.done.errback(ResponseTooLong(f"more than {counted(self._limit, 'byte')}"))
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
    raise NoResponse(f"no response within {format_duration(seconds)}")


def _innermost(error: Any) -> Any:
    """Return the error that the others wrap."""
    while reasons := getattr(error, "reasons", None):
        error = reasons[-1].value if isinstance(reasons[-1], Failure) else reasons[-1]
    return error
