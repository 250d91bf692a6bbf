"""``/metrics``: the resource of Prometheus' client, which works in threads of the reactor's pool.

Such a thread waits for the event loop at each part of its answer, and a reactor that stops waits
for its threads without turning: each would wait for the other. So a stop first waits for the
answers that have begun, and no other answer is begun.
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

#: Seconds between two checks for unfinished answers, and for which a stop checks.
_LOOK: Final = 0.01
_PATIENCE: Final = 5.0
#: Stands for both ends of a connection to a Unix socket: WSGI requires a host and a port.
_NO_ADDRESS: Final = IPv4Address("TCP", "", 0)


class MetricsPage(Service):
    """Serves the page until it stops.

    :param reactor: the installed one: Prometheus' client uses no other.
    """

    def __init__(self, reactor: Reactor, metrics_registry: CollectorRegistry) -> None:
        # Imported here, since this installs a reactor.
        from prometheus_client.twisted import MetricsResource

        self._reactor = reactor
        self._under_way = 0
        self._looks_left = int(_PATIENCE / _LOOK)
        self.closed = False
        """True when nothing is answered any more."""
        self.resource: Resource = _Page(self, MetricsResource(metrics_registry))

    def begin(self, request: Request) -> None:
        """Note that an answer is begun."""
        self._under_way += 1
        request.notifyFinish().addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._under_way -= 1

    def stopService(self) -> Deferred[None]:
        """Begin no more answers; fires when no thread works on one."""
        super().stopService()
        self.closed = True
        if self._idle:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._look(idle)
        return idle

    @property
    def _idle(self) -> bool:
        # A peer that has left ends its request, and not the thread that works on it.
        return not (self._under_way or self._reactor.getThreadPool().working)

    def _look(self, idle: Deferred[None]) -> None:
        self._looks_left -= 1
        if self._idle or self._looks_left < 0:
            idle.callback(None)
        else:
            self._reactor.callLater(_LOOK, self._look, idle)


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
        if not can_be_read(accept):
            request.setResponseCode(BAD_REQUEST)
            request.setHeader(b"content-type", b"application/json")
            body = b'{"error":"the header accept is malformed"}\n'
            # Twisted logs a line if the answer to HEAD has a body.
            return b"" if request.method == b"HEAD" else body
        if isinstance(request.getHost(), UNIXAddress):
            request.client = request.host = _NO_ADDRESS
        self._page.begin(request)
        return self._metrics.render(request)


def can_be_read(accept: bytes) -> bool:
    """Return whether Prometheus' client can read an Accept header.

    For a version that is not a number it raises TypeError, which would be logged with a traceback
    at each request, since it is raised in a thread.
    """
    try:
        choose_encoder(accept.decode("latin-1"))
    except Exception:  # noqa: BLE001 - no list of its errors is documented
        return False
    return True
