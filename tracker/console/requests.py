"""What holds for every request, whatever it asks for: headers, names of this host, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import frozen
from klein import Klein
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from twisted.web.server import Request, Site

#: Bytes of a request's body: a command's text is 4,096 at most.
MOST_BYTES: Final = 64 * 1024
#: Connections at a time; a browser opens six.
MOST_CONNECTIONS: Final = 1000
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


class _BoundedSite(Site):
    """Serves so many connections at a time, and no more: there are not endlessly many files."""

    connections = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.connections >= MOST_CONNECTIONS:
            return None
        channel: Any = super().buildProtocol(addr)
        lost = channel.connectionLost

        def connection_lost(reason: Failure) -> None:
            self.connections -= 1
            lost(reason)

        channel.connectionLost = connection_lost
        self.connections += 1
        return channel


def console_site(app: Klein, names: Names, tiles: str | None) -> Site:
    """The site of an application, with what holds for all of it."""
    headers = [
        (b"content-security-policy", policy(tiles).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"geolocation=(), camera=(), microphone=()"),
        (b"cache-control", b"no-store"),
    ]

    class ConsoleRequest(Request):
        """One request."""

        def gotLength(self, length: int | None) -> None:
            # A body that is too large is not read.
            if length is None or length > MOST_BYTES:
                self.channel.forceAbortClient()
                return
            super().gotLength(length)

        def process(self) -> None:
            for name, value in headers:
                self.setHeader(name, value)
            host = self.getHeader("host") or ""
            # Browsers would heed it for all else on this machine, too.
            if self.isSecure() and not Names.of(()).allow(host, secure=False):
                self.setHeader(b"strict-transport-security", _HSTS)
            if names.allow(host, self.isSecure()):
                super().process()
                return
            self.setResponseCode(MISDIRECTED_REQUEST)
            self.setHeader(b"content-type", b"text/plain; charset=utf-8")
            self.write(b"This console is not called by this name here: see --name.\n")
            self.finish()

        def setHeader(self, name: Any, value: Any) -> None:
            # Which program serves it, and of which version, is nobody's business.
            if name != b"Server":
                super().setHeader(name, value)

    site = _BoundedSite(app.resource(), requestFactory=ConsoleRequest)
    site.noisy = False
    # Tabs ask all the time; what changes something is logged where it is done.
    site.log = lambda request: None  # type: ignore[method-assign]
    return site
