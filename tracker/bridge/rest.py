"""A client of Directus' REST interface.

Facts about Directus 11 that callers need to know:

- The status is 403 for a row that does not exist and for a row that the user must not see. To
  distinguish the two, change rows by a filter (:meth:`DirectusClient.update_where`), which matches
  no rows if the row does not exist.
- A query without a limit returns at most 100 rows, and a change by a filter changes at most 100.
  If Directus runs with ``QUERY_LIMIT_MAX``, "all" silently means that number, also in responses to
  changes. A greater limit is refused.
- With ``CACHE_ENABLED``, a response to GET may be minutes old. Rows are therefore read by SEARCH,
  which Directus never serves from its cache.
- Filters can compare numbers and times by size, but not texts and keys. Rows can therefore not be
  read page by page in the order of their keys.
- ``_in`` and ``_nin`` refuse an empty list, and ``_eq`` refuses an empty text. A key in ``_in``
  that is not a UUID causes an internal error (500).
- A text with a NUL, or a malformed time, causes an internal error (500). It looks like a temporary
  failure, but a retry cannot succeed. Callers must not send such values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import stringToDatetime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from tracker.net.httpclient import BoundedClient, HTTPResponse, NoResponse, ResponseTooLong
from tracker.untrusted import MAX_LINE, parse_json, shown

#: Seconds to connect, and from a request to the last byte of its response.
TIMEOUT: Final = 10.0
#: Maximum size of a response.
MAX_RESPONSE_BYTES: Final = 32 * 1024 * 1024
#: Maximum length of an error's text, in characters.
MAX_MESSAGE_LENGTH: Final = 300

_TEMPORARY_STATUSES: Final = frozenset({408, 425, 429})


class DirectusError(Exception):
    """Directus has not executed a request; the message gives the reason in one line."""

    result = "refused"
    """The label of the error in metrics."""

    def __init__(self, text: str, status: int | None = None, code: str = "") -> None:
        super().__init__(text)
        self.status = status
        """The HTTP status; None without a response."""
        self.code = code
        """Directus' code of the error, such as ``RECORD_NOT_UNIQUE``; may be empty."""


class DirectusDown(DirectusError):
    """Directus cannot be reached, or cannot respond now; retry later."""

    result = "down"

    def __init__(
        self,
        text: str,
        status: int | None = None,
        code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, status, code)
        self.retry_after = retry_after
        """Seconds after which to retry, from the header Retry-After; None without one."""


class DirectusUnreachable(DirectusDown):
    """No response has arrived; the text names the address."""


class DirectusTooLong(DirectusDown):
    """The response is too long; request fewer rows or fields."""


class DirectusDenied(DirectusError):
    """The token is invalid (401), or the row does not exist or the user lacks permission (403)."""

    result = "denied"


class DirectusRefused(DirectusError):
    """Directus refuses the request as invalid."""


class DirectusClient:
    """A client of one Directus, with the token of one user.

    :param base_url: the address of Directus, for example ``http://127.0.0.1:8055``.
    :param token: a static token of the user; it never appears in errors and logs.
    :param agent: makes the requests; by default an agent with persistent connections.
    :param timeout: seconds from a request to the end of its response.
    :param called: is called after each request with its method, its result (one of
        :data:`tracker.bridge.metrics.CALL_RESULTS`), and its duration in seconds.
    :raises ValueError: if the URL or the token is malformed; the message is one line.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        base_url: str,
        token: str,
        *,
        agent: IAgent | None = None,
        timeout: float = TIMEOUT,
        called: Callable[[str, str, float], None] = lambda method, result, seconds: None,
    ) -> None:
        self.base_url = checked_url(base_url)
        self._authorization = f"Bearer {checked_token(token)}"
        self._token = token
        self._reactor = reactor
        self._called = called
        self._http = BoundedClient(
            reactor, timeout=timeout, max_body=MAX_RESPONSE_BYTES, agent=agent
        )

    async def close(self) -> None:
        """Close idle connections."""
        await self._http.close()

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
        """Return rows of a collection.

        :param filter: a filter rule, for example ``{"status": {"_eq": "pending"}}``.
        :param fields: names of fields; None: all that the user may see.
        :param sort: names of fields, with ``-`` in front for a descending order.
        :param limit: maximum number of rows; -1: all; None: 100.
        :param offset: number of rows to skip.
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

    async def update_where(
        self,
        collection: str,
        filter: Mapping[str, Any],  # noqa: A002 - Directus' own word
        data: Mapping[str, Any],
        *,
        fields: Sequence[str] = ("id",),
    ) -> list[dict[str, Any]]:
        """Change all rows that a filter matches.

        Directus first finds the rows and then changes them, without locking them.

        :param filter: a filter rule, see :meth:`get_items`.
        :param data: the new values.
        :param fields: fields of each row in the response; the user must be allowed to see them.
        :return: the changed rows, with their new values.
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
        """Change several rows, each with its own values, in one transaction.

        :param rows: the primary key and the new values of each row.
        :param fields: fields of each row in the response; the user must be allowed to see them.
        :return: the changed rows, with their new values.
        :raises DirectusDenied: also if one of the rows does not exist; then none is changed.
        :raises DirectusError: see its subclasses.
        """
        body = [dict(row) for row in rows]
        params = {"fields": ",".join(fields)}
        return _rows(await self.request("PATCH", items_path(collection), body, params))

    async def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        """Make a request of any kind.

        :param method: the HTTP method.
        :param path: quoted path, with a slash in front.
        :param json: the body; None: no body.
        :param params: the query string, by name.
        :return: ``data`` of the response, or the whole response if it has no such member; None for
            a response without a body.
        :raises DirectusError: see its subclasses.
        """
        began, result = self._reactor.seconds(), "given_up"
        try:
            data = await self._request(method, path, json, params)
            result = "answered"
        except DirectusError as error:
            result = error.result
            raise
        finally:
            self._called(method, result, self._reactor.seconds() - began)
        return data

    async def _request(
        self, method: str, path: str, json: Any, params: Mapping[str, str] | None
    ) -> Any:
        request = f"{method} {path}"
        headers = Headers({"Authorization": [self._authorization], "User-Agent": ["tracker"]})
        url = self.base_url + path
        try:
            # Redirects are not followed, because the token must not reach another host.
            response = await self._http.request(
                method, url, headers=headers, json=json, params=params
            )
        except ResponseTooLong as error:
            raise DirectusTooLong(self._one_line(f"{request}: {error}")) from None
        except NoResponse as error:
            text = f"Directus at {self.base_url}: {request}: {error}"
            raise DirectusUnreachable(self._one_line(text)) from None
        if not 200 <= response.status < 300:
            raise self._error(request, response)
        if not response.body:
            return None
        try:
            found = parse_json(response.body, MAX_RESPONSE_BYTES)
        except ValueError:
            text = f"{request}: {response.status}, but the response is not JSON"
            raise DirectusDown(text, response.status) from None
        return found["data"] if isinstance(found, dict) and "data" in found else found

    def _error(self, request: str, response: HTTPResponse) -> DirectusError:
        status = response.status
        message, code = _first_error(response.body)
        text = self._one_line(f"{request}: {status} {message}".rstrip())
        if status in (401, 403):
            return DirectusDenied(text, status, code)
        if status >= 500 or status in _TEMPORARY_STATUSES:
            return DirectusDown(text, status, code, self._retry_after(response.headers))
        if status < 400:
            text += ": redirects are not followed; give the address of Directus itself"
        return DirectusRefused(text, status, code)

    def _retry_after(self, headers: Headers) -> float | None:
        """Return the value of Retry-After in seconds (RFC 9110, section 10.2.3)."""
        value = (headers.getRawHeaders(b"retry-after") or [b""])[-1].strip()
        try:
            return max(0.0, float(value)) if float(value) < float("inf") else None
        except ValueError:
            pass
        try:
            return float(max(0.0, stringToDatetime(value) - self._reactor.seconds()))
        except (ValueError, IndexError, KeyError, LookupError):
            return None

    def _one_line(self, text: str) -> str:
        """Return a text in printable characters, on one line, shortened, without the token."""
        line = " ".join(text.replace(self._token, "…").split())
        line = "".join(one if one.isprintable() else "?" for one in line)
        return line if len(line) <= MAX_MESSAGE_LENGTH else f"{line[:MAX_MESSAGE_LENGTH]}…"


def checked_url(text: str) -> str:
    """Return a base URL without a slash at its end.

    :raises ValueError: if it is malformed; the message is one line, without the URL.
    """
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        raise ValueError("must be a URL like http://127.0.0.1:8055") from None
    if url.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise ValueError("must be a URL like http://127.0.0.1:8055")
    if "@" in url.netloc:
        raise ValueError("must not contain a user or password; the token identifies the user")
    if url.query or url.fragment:
        raise ValueError("must not contain ? or #")
    return text.rstrip("/")


def checked_token(text: str) -> str:
    """Return a token that a header can contain.

    :raises ValueError: if it is malformed; the message is one line, without the token.
    """
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("the token must be one or more printable ASCII characters, without spaces")
    return text


def items_path(collection: str) -> str:
    """Return the path of a collection's rows."""
    return f"/items/{quote(collection, safe='')}"


def _rows(data: Any) -> list[dict[str, Any]]:
    if data is None:  # the user may change rows but not see them
        return []
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DirectusDown("the response of Directus is not a list of rows")
    return data


def _first_error(body: bytes) -> tuple[str, str]:
    """Return message and code of the first error in a response; "" if there is none."""
    try:
        error = parse_json(body, MAX_RESPONSE_BYTES)["errors"][0]
        message = str(error.get("message", ""))[:MAX_LINE]
        return message, shown(str(error.get("extensions", {}).get("code", "")), 64)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""
