"""What holds for every request, whatever it asks for: headers, names of this host, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource

from tracker.net.http import BoundedRequest, BoundedSite, HTTPLimits
from tracker.net.refusals import Refusal, Reports

#: A browser opens six connections, and the text of a command has 4,096 characters. Behind a
#: proxy all browsers have one address, so one address may hold all 200 live views
#: (MOST_STREAMS in ``events.py``), and 120 more connections.
CONSOLE_LIMITS: Final = HTTPLimits(connections=512, per_address=320, body=64 * 1024)
#: Header fields that are read as text.
TEXT_HEADERS: Final = (b"host", b"origin", b"sec-fetch-site", b"x-csrf-token", b"content-type")
#: This host is not that one (RFC 9110, section 15.5.20).
MISDIRECTED_REQUEST: Final = 421
#: Names by which browsers on this machine call it.
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
#: A year, in which browsers ask this host by TLS only.
_HSTS: Final = b"max-age=31536000"
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


@frozen
class Names:
    """The names by which this host may be called.

    A page of somebody else's can have its own name lead here (DNS rebinding), and then read
    what is answered: so the name has to be one of ours. Over TLS it is, or the browser would
    not have got here.
    """

    names: frozenset[str]

    @classmethod
    def of(cls, given: Iterable[str]) -> Names:
        """Those of loopback, and some more."""
        return cls(frozenset((*LOOPBACK_NAMES, *(name.lower() for name in given))))

    def allow(self, host: str, secure: bool) -> bool:
        """Whether a Host header names us."""
        found = _HOST.fullmatch(host)
        return found is not None and (secure or found[1].lower() in self.names)


def policy(tiles: str | None) -> str:
    """The Content-Security-Policy (W3C, CSP level 3) of all answers.

    :param tiles: the URL of a map's tiles, whose host images may come from.
    """
    images = "'self' data:"
    if tiles is not None:
        parts = urlsplit(tiles)
        images += f" {parts.scheme}://{parts.netloc.replace('{s}', '*')}"
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src {images}",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "require-trusted-types-for 'script'",
        )
    )


def same_origin(request: Any) -> bool:
    """Whether a request that changes something comes from a page of ours.

    Browsers say so in Origin, and say the host that they have asked in Host.
    """
    origin = request.getHeader("origin")
    if origin is None:
        return bool(request.getHeader("sec-fetch-site") == "same-origin")
    host = (request.getHeader("host") or "").lower()
    scheme = "https" if request.isSecure() else "http"
    return bool(origin.lower() in (f"{scheme}://{host}", f"https://{host}"))


def from_elsewhere(request: Any) -> bool:
    """Whether a browser says that somebody else's page has made it ask (W3C, Fetch Metadata).

    A page on another port of this host is one, too: it is sent the same cookies.
    """
    return request.getHeader("sec-fetch-site") not in (None, "same-origin", "none")


def console_site(
    reactor: IReactorTime, resource: Resource, *, names: Names, tiles: str | None, reports: Reports
) -> BoundedSite:
    """Return the site of a resource, with the header fields and checks of all its answers."""
    headers = [
        (b"content-security-policy", policy(tiles).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"geolocation=(), camera=(), microphone=()"),
        (b"cache-control", b"no-store"),
    ]

    class ConsoleRequest(BoundedRequest):
        """One request."""

        text_headers = TEXT_HEADERS

        def process(self) -> None:
            host = self.getHeader("host") or ""
            # Browsers would heed it for all else on this machine, too.
            if self.isSecure() and not Names.of(()).allow(host, secure=False):
                self.setHeader(b"strict-transport-security", _HSTS)
            if names.allow(host, self.isSecure()):
                super().process()
                return
            text = "the Host header does not name this console; --host-name adds a name"
            self.refuse(Refusal.MISDIRECTED, MISDIRECTED_REQUEST, text)

    return BoundedSite(
        resource,
        reactor,
        CONSOLE_LIMITS,
        reports,
        headers=headers,
        request_factory=ConsoleRequest,
    )
