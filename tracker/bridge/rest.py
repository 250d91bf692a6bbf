"""Directus' REST interface: the rows of collections, and requests of any other kind.

Facts of Directus 11 that callers need to know:

- It answers 403 for a row that does not exist, as for one that the user may not see. To tell the
  two apart, change rows by a filter (:meth:`DirectusClient.update_where`), which then matches
  nothing.
- A query without a limit returns 100 rows, and a change by a filter changes 100. If Directus runs
  with ``QUERY_LIMIT_MAX``, "all" silently means that number, also in answers to changes. A greater
  limit is refused.
- With ``CACHE_ENABLED``, what is read by GET may be minutes old. So rows are read by SEARCH, which
  is never answered from a cache.
- Only numbers and times can be compared by less and greater in a filter, not texts and keys. So
  rows cannot be read in the order of their keys.
- An empty list is refused after ``_in`` and ``_nin``, and so is an empty text after ``_eq``. A key
  after ``_in`` that is not a UUID causes an internal error (500).
- A text with a NUL, or a malformed time, causes an internal error (500), which looks like a
  temporary failure and is not. Callers must not send such values.
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

#: Seconds for a connection, and from a request to the last byte of its answer.
TIMEOUT: Final = 10.0
#: Bytes of an answer.
LARGEST_ANSWER: Final = 32 * 1024 * 1024
#: Characters of an error's text.
LONGEST_MESSAGE: Final = 300

_LATER: Final = frozenset({408, 425, 429})


class DirectusError(Exception):
    """Directus has not carried out a request; the text gives the reason, in one line."""

    result = "refused"
    """In one word, for counting."""

    def __init__(self, text: str, status: int | None = None, code: str = "") -> None:
        super().__init__(text)
        self.status = status
        """The HTTP status, where there was one."""
        self.code = code
        """Directus' name for the error, such as ``RECORD_NOT_UNIQUE``; may be empty."""


class DirectusDown(DirectusError):
    """It cannot be reached, or cannot answer now; retry later."""

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
        """Seconds after which to retry, if Directus says so."""


class DirectusTooLong(DirectusDown):
    """The answer is too long: request less at a time."""


class DirectusDenied(DirectusError):
    """The token is invalid (401), the user may not do that, or there is no such row (403)."""

    result = "denied"


class DirectusRefused(DirectusError):
    """Directus refuses the request."""


class DirectusClient:
    """A client of one Directus, with the token of one user.

    :param base_url: such as ``http://127.0.0.1:8055``.
    :param token: a static token of the user; it appears in no error and no log.
    :param agent: makes the requests; by default one with persistent connections.
    :param timeout: seconds for each request and its answer.
    :param called: called after each request with its method, its result (one of
        :data:`tracker.bridge.metrics.CALL_RESULTS`), and its duration in seconds.
    :raises ValueError: if the URL or the token is malformed; in one line.
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
        self._http = BoundedClient(reactor, timeout=timeout, max_body=LARGEST_ANSWER, agent=agent)

    async def close(self) -> None:
        """Close the connections that are idle."""
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

        :param filter: such as ``{"status": {"_eq": "pending"}}``.
        :param fields: their names; None: all that the user may see.
        :param sort: names of fields; with ``-`` in front, the greatest value comes first.
        :param limit: -1: all rows; None: 100.
        :param offset: number of rows that are skipped at the beginning.
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

        Directus looks for the rows first and then changes them, without locking them.

        :param fields: fields of each row in the answer, which the user must be allowed to see.
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
        """Change several rows, each by values of its own; either all of them, or none.

        :param rows: the primary key of each, and the fields that change.
        :param fields: fields of each row in the answer, which the user must be allowed to see.
        :return: the rows as they are now.
        :raises DirectusDenied: also if one of them does not exist.
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

        :param path: with a slash in front, quoted.
        :param json: the body; None: no body.
        :return: ``data`` of the answer, or the whole answer if it has none; None for an answer
            without a body.
        :raises DirectusError: see its subclasses.
        """
        began, result = self._reactor.seconds(), "given_up"
        try:
            answer = await self._request(method, path, json, params)
            result = "answered"
        except DirectusError as error:
            result = error.result
            raise
        finally:
            self._called(method, result, self._reactor.seconds() - began)
        return answer

    async def _request(
        self, method: str, path: str, json: Any, params: Mapping[str, str] | None
    ) -> Any:
        what = f"{method} {path}"
        headers = Headers({"Authorization": [self._authorization], "User-Agent": ["tracker"]})
        url = self.base_url + path
        try:
            # No redirect is followed: the token is for this address only.
            answer = await self._http.request(
                method, url, headers=headers, json=json, params=params
            )
        except ResponseTooLong as error:
            raise DirectusTooLong(self._line(f"{what}: {error}")) from None
        except NoResponse as error:
            raise DirectusDown(self._line(f"{what}: {error}")) from None
        if not 200 <= answer.status < 300:
            raise self._error(what, answer)
        if not answer.body:
            return None
        try:
            found = parse_json(answer.body, LARGEST_ANSWER)
        except ValueError:
            text = f"{what}: {answer.status}, and the answer is no JSON"
            raise DirectusDown(text, answer.status) from None
        return found["data"] if isinstance(found, dict) and "data" in found else found

    def _error(self, what: str, answer: HTTPResponse) -> DirectusError:
        status = answer.status
        message, code = _first_error(answer.body)
        text = self._line(f"{what}: {status} {message}".rstrip())
        if status in (401, 403):
            return DirectusDenied(text, status, code)
        if status >= 500 or status in _LATER:
            return DirectusDown(text, status, code, self._retry_after(answer.headers))
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


def checked_url(text: str) -> str:
    """Return a base URL without a slash at its end.

    :raises ValueError: if it is malformed; in one line, which does not contain it.
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
    """Return a token that a header can contain.

    :raises ValueError: if it is malformed; in one line, which does not contain it.
    """
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("the token must be printable ASCII without spaces, and not empty")
    return text


def items_path(collection: str) -> str:
    """Return the path of a collection's rows."""
    return f"/items/{quote(collection, safe='')}"


def _rows(data: Any) -> list[dict[str, Any]]:
    if data is None:  # the user may change rows, and see none
        return []
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise DirectusDown("Directus answered no list of rows")
    return data


def _first_error(body: bytes) -> tuple[str, str]:
    """Return message and code of the first error in an answer; empty if there is none."""
    try:
        error = parse_json(body, LARGEST_ANSWER)["errors"][0]
        message = str(error.get("message", ""))[:MAX_LINE]
        return message, shown(str(error.get("extensions", {}).get("code", "")), 64)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return "", ""
