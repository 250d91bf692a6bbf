"""Directus' REST interface: items, and whatever else one asks it for.

Facts of Directus 11 that callers need to know:

- It answers 403 for a row that is not there, as for one that may not be seen. Who has to tell
  the two apart changes rows by a filter (:meth:`DirectusClient.update_where`), which then
  matches nothing.
- A query without a limit answers 100 rows, and a change by a filter changes 100. Where it runs with
  ``QUERY_LIMIT_MAX``, "all" means so many, in silence; so do answers to changes. A greater limit is
  refused.
- With ``CACHE_ENABLED`` what is read by GET may be minutes old. So rows are read by SEARCH, which
  it never answers from a cache.
- Only numbers and times can be filtered by what is less or greater: texts and keys can not, so
  rows are not gone through by their keys.
- An empty list is refused after ``_in`` and ``_nin``, and so is an empty text after ``_eq``; what
  is no UUID among the keys of an ``_in`` is an internal error (500).
- A text with a NUL in it, or a time that is none, is an internal error (500) to it, and so to us
  something that might go well later. It never does: callers keep such values away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

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
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
    _HTTP11ClientFactory,
)
from twisted.web.http import PotentialDataLoss, stringToDatetime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from tracker.untrusted import MAX_LINE, parse_json, shown

from twisted.web._newclient import RequestNotSent  # isort: skip - it has no public name

#: Seconds for a connection, and from the question to the last byte of the answer.
TIMEOUT: Final = 10.0
#: Bytes of an answer.
LARGEST_ANSWER: Final = 32 * 1024 * 1024
#: Seconds that an idle connection is kept: less than Node's 5, which would close it under us.
IDLE: Final = 3.0
#: Characters of what Directus says about an error.
LONGEST_MESSAGE: Final = 300

_LATER: Final = frozenset({408, 425, 429})


class DirectusError(Exception):
    """Directus has not done what it was asked for; the text says why, in one line."""

    outcome = "refused"
    """In one word, for counting."""

    def __init__(self, text: str, status: int | None = None, code: str = "") -> None:
        super().__init__(text)
        self.status = status
        """The HTTP status, where there was one."""
        self.code = code
        """Directus' name for the error, as ``RECORD_NOT_UNIQUE``; may be empty."""


class DirectusDown(DirectusError):
    """It is not there, or not able to: the same may go well later."""

    outcome = "down"

    def __init__(
        self,
        text: str,
        status: int | None = None,
        code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, status, code)
        self.retry_after = retry_after
        """Seconds that it wants to be left alone, where it says so."""


class DirectusTooLong(DirectusDown):
    """The answer is longer than is read: less of it at a time may go well."""


class DirectusDenied(DirectusError):
    """The token is not valid (401), or may not do that (403); or there is no such row (403)."""

    outcome = "denied"


class DirectusRefused(DirectusError):
    """What it was asked for makes no sense to it."""


class DirectusClient:
    """One Directus, and one user of it.

    :param base_url: where it is, as ``http://127.0.0.1:8055``.
    :param token: a static token of the user; it stands in no text and no log.
    :param agent: makes the requests; by default one with persistent connections.
    :param timeout: seconds for each question and its answer.
    :param called: told of each question: its method, how it ended (one of
        :data:`tracker.bridge.metrics.CALL_OUTCOMES`), and after how many seconds.
    :raises ValueError: when the URL makes no sense, or the token; in one line.
    """

    def __init__(
        self,
        reactor: Any,
        base_url: str,
        token: str,
        agent: IAgent | None = None,
        timeout: float = TIMEOUT,
        called: Callable[[str, str, float], None] = lambda method, outcome, seconds: None,
    ) -> None:
        self.base_url = checked_url(base_url)
        self._authorization = f"Bearer {checked_token(token)}"
        self._token = token
        self._reactor = reactor
        self._timeout = timeout
        self._called = called
        self._pool: HTTPConnectionPool | None = None
        if agent is None:
            self._pool = _Pool(reactor)
            self._pool.cachedConnectionTimeout = IDLE  # type: ignore[assignment]
            agent = Agent(reactor, connectTimeout=timeout, pool=self._pool)
        self._http = HTTPClient(agent, data_to_body_producer=_Whole)

    async def close(self) -> None:
        """Close the connections that are idle."""
        if self._pool is not None:
            await self._pool.closeCachedConnections()

    async def get_items(
        self,
        collection: str,
        *,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - Directus' own word
        fields: Sequence[str] | None = None,
        sort: Sequence[str] | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[dict[str, Any]]:
        """Rows of a collection.

        :param filter: as ``{"status": {"_eq": "pending"}}``.
        :param fields: their names; all that the user may see when None.
        :param sort: names of fields, with ``-`` in front where the greatest comes first.
        :param limit: -1 for all rows, 100 when None.
        :param offset: how many rows are left out at the beginning.
        :raises DirectusError: see its subclasses.
        """
        query: dict[str, Any] = {}
        if filter is not None:
            query["filter"] = filter
        if fields is not None:
            query["fields"] = list(fields)
        if sort is not None:
            query["sort"] = list(sort)
        if limit is not None:
            query["limit"] = limit
        if offset is not None:
            query["offset"] = offset
        return _rows(await self.request("SEARCH", items_path(collection), {"query": query}))

    async def update_item(
        self, collection: str, key: str | int, data: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Change one row.

        :return: what the user may see of it; None where that is nothing.
        :raises DirectusDenied: also when it is not there.
        """
        path = f"{items_path(collection)}/{quote(str(key), safe='')}"
        return cast("dict[str, Any] | None", await self.request("PATCH", path, dict(data)))

    async def update_where(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002 - Directus' own word
        data: Mapping[str, Any],
        *,
        fields: Sequence[str] = ("id",),
    ) -> list[dict[str, Any]]:
        """Change all rows that a filter matches.

        Directus looks for the rows first and then changes them, without locking them.

        :param fields: what is answered of each row, which the user must be allowed to see.
        :return: the rows that were changed, as they are now.
        :raises DirectusError: see its subclasses.
        """
        body = {"query": {"filter": filter, "limit": -1}, "data": dict(data)}
        params = {"fields": ",".join(fields)}
        return _rows(await self.request("PATCH", items_path(collection), body, params))

    async def update_batch(
        self,
        collection: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        fields: Sequence[str] = ("id",),
    ) -> list[dict[str, Any]]:
        """Change several rows, each in its own way: all of them, or none.

        :param rows: what changes, and the primary key.
        :param fields: what is answered of each row, which the user must be allowed to see.
        :return: the rows as they are now.
        :raises DirectusDenied: also when one of them is not there.
        """
        body = [dict(row) for row in rows]
        params = {"fields": ",".join(fields)}
        return _rows(await self.request("PATCH", items_path(collection), body, params))

    async def create(self, collection: str, data: Mapping[str, Any]) -> dict[str, Any] | None:
        """Add a row.

        :return: what the user may see of it; None where that is nothing.
        """
        made = await self.request("POST", items_path(collection), dict(data))
        return cast("dict[str, Any] | None", made)

    async def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask for anything.

        :param path: with a slash in front, quoted.
        :param json: the body; none when None.
        :return: what stands under ``data`` in the answer, or all of it where there is no such
            thing; None for an answer without a body.
        :raises DirectusError: see its subclasses.
        """
        began, outcome = self._reactor.seconds(), "given_up"
        try:
            answer = await self._request(method, path, json, params)
            outcome = "answered"
        except DirectusError as error:
            outcome = error.outcome
            raise
        finally:
            self._called(method, outcome, self._reactor.seconds() - began)
        return answer

    async def _request(
        self, method: str, path: str, json: Any, params: Mapping[str, str] | None
    ) -> Any:
        what = f"{method} {path}"
        try:
            status, headers, body = await self._exchange(method, path, json, params)
        except _TooLong as error:
            raise DirectusTooLong(self._line(f"{what}: {error}")) from None
        except _Unusable as error:
            raise DirectusDown(self._line(f"{what}: {error}")) from None
        if not 200 <= status < 300:
            raise self._error(what, status, headers, body)
        if not body:
            return None
        try:
            answer = parse_json(body, LARGEST_ANSWER)
        except ValueError:
            text = f"{what}: {status}, and the answer is no JSON"
            raise DirectusDown(text, status) from None
        return answer["data"] if isinstance(answer, dict) and "data" in answer else answer

    async def _exchange(
        self, method: str, path: str, body: Any, params: Mapping[str, str] | None
    ) -> tuple[int, Headers, bytes]:
        asked = Deferred.fromCoroutine(self._ask(method, path, body, params))
        # Cancelling it closes the connection, in whatever state it is.
        asked.addTimeout(self._timeout, self._reactor, _overdue)
        try:
            return await asked
        except ConnectingCancelledError:  # by who has asked: else it would not heed a stop
            raise CancelledError from None
        except (
            *(ConnectError, DNSLookupError, ConnectionLost, ConnectionDone, SSLError),
            *(ResponseFailed, ResponseNeverReceived, RequestTransmissionFailed, RequestNotSent),
        ) as error:
            reason = _innermost(error)
            if isinstance(reason, CancelledError):  # by who has asked
                raise reason from None
            broken = "the answer broke off: " if isinstance(error, ResponseFailed) else ""
            why = str(reason) or type(reason).__name__.strip("_")
            raise _Unusable(f"{broken}{why}") from None

    async def _ask(
        self, method: str, path: str, body: Any, params: Mapping[str, str] | None
    ) -> tuple[int, Headers, bytes]:
        headers = Headers({"Authorization": [self._authorization], "User-Agent": ["tracker"]})
        options: dict[str, Any] = {} if body is None else {"json": body}
        response = await self._http.request(
            method,
            self.base_url + path,
            params=dict(params or {}),
            headers=headers,
            # The token is for this address, whatever that one says.
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
            **options,
        )
        return response.code, response.headers, await _content(response)

    def _error(self, what: str, status: int, headers: Headers, body: bytes) -> DirectusError:
        message, code = _first_error(body)
        text = self._line(f"{what}: {status} {message}".rstrip())
        if status in (401, 403):
            return DirectusDenied(text, status, code)
        if status >= 500 or status in _LATER:
            return DirectusDown(text, status, code, self._retry_after(headers))
        if status < 400:
            text += ": it leads elsewhere, and only Directus' own address will do"
        return DirectusRefused(text, status, code)

    def _retry_after(self, headers: Headers) -> float | None:
        """RFC 9110, section 10.2.3: seconds, or a date."""
        value = (headers.getRawHeaders(b"retry-after") or [b""])[-1].strip()
        try:
            return max(0.0, float(value)) if float(value) < float("inf") else None
        except ValueError:
            pass
        try:
            return float(max(0.0, stringToDatetime(value) - self._reactor.seconds()))
        except (ValueError, IndexError, KeyError, LookupError):
            return None

    def _line(self, text: str) -> str:
        """Printable, on one line, of bounded length, and without the token."""
        line = " ".join(text.replace(self._token, "…").split())
        line = "".join(one if one.isprintable() else "?" for one in line)
        return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}…"


class _QuietFactory(_HTTP11ClientFactory):
    noisy = False  # else each connection has two lines in the log


class _Pool(HTTPConnectionPool):
    _factory = _QuietFactory
    # As many as are asked at once, or each further question takes a connection of its own.
    maxPersistentPerHost = 16


class _Unusable(Exception):
    """No answer, or none that could be read."""


class _TooLong(_Unusable):
    """One that is too long."""


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
    """Collects a body, as long as it is not too long."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= LARGEST_ANSWER:
            self._parts.append(data)
        elif not self.done.called:
            self._parts.clear()
            self.done.errback(_TooLong(f"more than {LARGEST_ANSWER:,} bytes"))
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


def _content(response: IResponse) -> Deferred[bytes]:
    body = _Body()
    response.deliverBody(body)
    return body.done


def checked_url(text: str) -> str:
    """A base URL, without a slash at its end.

    :raises ValueError: when it makes no sense; in one line, which does not show it.
    """
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        raise ValueError("must be like http://127.0.0.1:8055") from None
    if url.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise ValueError("must be like http://127.0.0.1:8055")
    if "@" in url.netloc:
        raise ValueError("must hold no user and password: the token says who asks")
    if url.query or url.fragment:
        raise ValueError("must hold no question mark and no #")
    return text.rstrip("/")


def checked_token(text: str) -> str:
    """A token that may stand in a header.

    :raises ValueError: in one line, which does not show it.
    """
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("the token must be printable ASCII without spaces, and not empty")
    return text


def items_path(collection: str) -> str:
    """Where the rows of a collection are."""
    return f"/items/{quote(collection, safe='')}"


def _rows(data: Any) -> list[dict[str, Any]]:
    if data is None:  # the user may change rows, and see none
        return []
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DirectusDown("Directus answered no list of rows")
    return data


def _first_error(body: bytes) -> tuple[str, str]:
    """Message and code of what Directus complains of; empty where it says nothing."""
    try:
        error = parse_json(body, LARGEST_ANSWER)["errors"][0]
        message = str(error.get("message", ""))[:MAX_LINE]
        return message, shown(str(error.get("extensions", {}).get("code", "")), 64)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""


def _overdue(result: Any, seconds: float) -> Any:
    raise _Unusable(f"no answer within {seconds:g} s")


def _innermost(error: Any) -> Any:
    """What stands behind an error that wraps others."""
    while reasons := getattr(error, "reasons", None):
        error = reasons[-1].value if isinstance(reasons[-1], Failure) else reasons[-1]
    return error
