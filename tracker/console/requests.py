"""Checks and header fields of all requests: names of this host, origins, sizes."""

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

#: A browser opens six connections, and a command has up to 4,096 characters. Behind a proxy all
#: browsers have one address, therefore one address may hold all 200 live views (MAX_STREAMS in
#: ``events.py``) and 120 more connections.
CONSOLE_LIMITS: Final = HTTPLimits(connections=512, per_address=320, body=64 * 1024)
#: Header fields that are read as text.
TEXT_HEADERS: Final = (b"host", b"origin", b"sec-fetch-site", b"x-csrf-token", b"content-type")
#: Status of a request for another host (RFC 9110, section 15.5.20).
MISDIRECTED_REQUEST: Final = 421
#: Names of the loopback interface.
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
#: Browsers use only TLS with this host for a year (RFC 6797).
_HSTS: Final = b"max-age=31536000"
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


@frozen
class HostNames:
    """Accepted values of the Host header.

    Another site's name can resolve to this host (DNS rebinding), and its page could then read the
    responses. Over TLS the certificate prevents that, and every name is accepted.
    """

    names: frozenset[str]

    @classmethod
    def of(cls, given: Iterable[str]) -> HostNames:
        """Return the names of loopback and the given ones."""
        return cls(frozenset((*LOOPBACK_NAMES, *(name.lower() for name in given))))

    def allow(self, host: str, secure: bool) -> bool:
        """Return True if the value of a Host header is accepted."""
        found = _HOST.fullmatch(host)
        return found is not None and (secure or found[1].lower() in self.names)


def policy(tiles: str | None) -> str:
    """Return the Content-Security-Policy (W3C, CSP level 3) of all responses.

    :param tiles: URL of the map's tiles, whose host is allowed as a source of images.
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


def is_same_origin(request: Any) -> bool:
    """Return True if a page of this console made a request that changes something.

    Browsers send the origin of the page in Origin, and the requested host in Host.
    """
    origin = request.getHeader("origin")
    if origin is None:
        return bool(request.getHeader("sec-fetch-site") == "same-origin")
    host = (request.getHeader("host") or "").lower()
    scheme = "https" if request.isSecure() else "http"
    return bool(origin.lower() in (f"{scheme}://{host}", f"https://{host}"))


def is_cross_site(request: Any) -> bool:
    """Return True if a page of another origin made the request (W3C, Fetch Metadata).

    This includes pages on other ports of this host, which share its cookies.
    """
    return request.getHeader("sec-fetch-site") not in (None, "same-origin", "none")


def console_site(
    reactor: IReactorTime,
    resource: Resource,
    *,
    names: HostNames,
    tiles: str | None,
    reports: Reports,
) -> BoundedSite:
    """Return the site of a resource, with the header fields and checks of all requests."""
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
        """A request with a checked Host header."""

        text_headers = TEXT_HEADERS

        def process(self) -> None:
            host = self.getHeader("host") or ""
            # For a name of loopback, browsers would apply HSTS to all ports of this machine.
            if self.isSecure() and not HostNames.of(()).allow(host, secure=False):
                self.setHeader(b"strict-transport-security", _HSTS)
            if names.allow(host, self.isSecure()):
                super().process()
                return
            text = "the Host header does not name this console; add the name with --host-name"
            self.refuse(Refusal.MISDIRECTED, MISDIRECTED_REQUEST, text)

    return BoundedSite(
        resource,
        reactor,
        CONSOLE_LIMITS,
        reports,
        headers=headers,
        request_factory=ConsoleRequest,
    )
