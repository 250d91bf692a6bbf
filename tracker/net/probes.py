"""``/healthz`` (the event loop turns), ``/readyz`` (200 or 503, with the reasons), ``/metrics``."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any, Final

from twisted.web.http import NOT_ALLOWED, NOT_FOUND, OK, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request

from tracker.net.http import BoundedSite, HTTPLimits
from tracker.net.refusals import Reports
from tracker.observe.health import Health

#: Prometheus and probes need a handful of connections, and send no bodies. In an ingest process
#: the files of these connections are reserved: see RESERVED_FILES in
#: ``tracker/ingestion/admission.py``.
HEALTH_LIMITS: Final = HTTPLimits(connections=64, per_address=32, body=0)


def health_site(reactor: Any, health: Health, metrics: Resource, reports: Reports) -> BoundedSite:
    """A web site for probes, Prometheus and people; it changes nothing and asks nobody.

    Metrics are gathered and written by a thread of the reactor's pool, all else by the loop: an
    answer of ``/healthz`` shows that it turns.

    :param metrics: the page of metrics, see :class:`~tracker.net.metricspage.MetricsPage`.
    """
    root = _Root()
    root.putChild(b"healthz", _Alive())
    root.putChild(b"readyz", _Ready(health))
    root.putChild(b"metrics", metrics)
    return BoundedSite(root, reactor, HEALTH_LIMITS, reports)


class _Page(Resource):
    """A read-only page."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """Return the page; for HEAD, return no body."""
        status, kind, body = OK, b"application/json", b""
        if request.method in (b"GET", b"HEAD"):
            status, kind, body = self.page()
        else:
            status, body = NOT_ALLOWED, b'{"error":"method not allowed"}\n'
            request.setHeader(b"allow", b"GET, HEAD")
        request.setResponseCode(status)
        request.setHeader(b"content-type", kind)
        request.setHeader(b"content-length", b"%d" % len(body))
        # Twisted logs a line if the answer to HEAD has a body.
        return b"" if request.method == b"HEAD" else body

    @abstractmethod
    def page(self) -> tuple[int, bytes, bytes]:
        """Return status, content type and body."""


class _Root(Resource):
    def getChild(self, path: bytes, request: Request) -> Resource:
        return _NotFound()


class _NotFound(_Page):
    def page(self) -> tuple[int, bytes, bytes]:
        return NOT_FOUND, b"application/json", b'{"error":"not found"}\n'


class _Alive(_Page):
    def page(self) -> tuple[int, bytes, bytes]:
        return OK, b"text/plain; charset=utf-8", b"alive\n"


class _Ready(_Page):
    def __init__(self, health: Health) -> None:
        super().__init__()
        self._health = health

    def page(self) -> tuple[int, bytes, bytes]:
        answer = {
            "ready": self._health.ready,
            "reasons": self._health.reasons,
            "details": self._health.details,
        }
        status = OK if self._health.ready else SERVICE_UNAVAILABLE
        return status, b"application/json", json.dumps(answer).encode() + b"\n"
