"""``/metrics``: the resource of Prometheus' client, which runs in threads of the reactor's pool.

Such a thread waits for the event loop at each part of its response, and a reactor that stops
waits for its threads without running the loop: a deadlock. A stop therefore waits for the
responses in progress, and refuses new requests.
"""

from __future__ import annotations

from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.web.http import BAD_REQUEST, SERVICE_UNAVAILABLE
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from tracker.reactor import Reactor

#: Seconds between two checks for responses in progress, and after which a stop proceeds anyway.
_CHECK_INTERVAL: Final = 0.01
_STOP_TIMEOUT: Final = 5.0
#: Stands for both ends of a connection to a Unix socket: WSGI requires a host and a port.
_NO_ADDRESS: Final = IPv4Address("TCP", "", 0)


class MetricsPage(Service):
    """Serves the page until it stops.

    :param reactor: the installed reactor, which Prometheus' client uses.
    """

    def __init__(self, reactor: Reactor, metrics_registry: CollectorRegistry) -> None:
        # Imported here, since this installs a reactor.
        from prometheus_client.twisted import MetricsResource

        self._reactor = reactor
        self._in_progress = 0
        self._checks_left = int(_STOP_TIMEOUT / _CHECK_INTERVAL)
        self.closed = False
        """True if requests are refused."""
        self.resource: Resource = _Page(self, MetricsResource(metrics_registry))

    def begin(self, request: Request) -> None:
        """Note that a response begins."""
        self._in_progress += 1
        request.notifyFinish().addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._in_progress -= 1

    def stopService(self) -> Deferred[None]:
        """Refuse new requests; fires when no thread works on a response."""
        super().stopService()
        self.closed = True
        if self._idle:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._check(idle)
        return idle

    @property
    def _idle(self) -> bool:
        # A peer that disconnects ends its request, but not the thread that works on it.
        return not (self._in_progress or self._reactor.getThreadPool().working)

    def _check(self, idle: Deferred[None]) -> None:
        self._checks_left -= 1
        if self._idle or self._checks_left < 0:
            idle.callback(None)
        else:
            self._reactor.callLater(_CHECK_INTERVAL, self._check, idle)


class _Page(Resource):
    isLeaf = True

    def __init__(self, page: MetricsPage, metrics: IResource) -> None:
        super().__init__()
        self._page = page
        self._metrics = metrics

    def render(self, request: Request) -> Any:
        if self._page.closed:
            request.setResponseCode(SERVICE_UNAVAILABLE)
            return b"stopping\n"
        accept = b",".join(request.requestHeaders.getRawHeaders(b"accept") or ())
        if not is_valid_accept(accept):
            request.setResponseCode(BAD_REQUEST)
            request.setHeader(b"content-type", b"application/json")
            body = b'{"error":"the header accept is malformed"}\n'
            # Twisted logs a line if the response to HEAD has a body.
            return b"" if request.method == b"HEAD" else body
        if isinstance(request.getHost(), UNIXAddress):
            request.client = request.host = _NO_ADDRESS
        self._page.begin(request)
        return self._metrics.render(request)


def is_valid_accept(accept: bytes) -> bool:
    """Return True if Prometheus' client can parse an Accept header.

    It raises TypeError for a version that is not a number. Since that happens in a thread, it
    would be logged with a traceback at each request.
    """
    try:
        choose_encoder(accept.decode("latin-1"))
    except Exception:  # noqa: BLE001 - its errors are not documented
        return False
    return True
