"""``/healthz`` (the event loop turns), ``/readyz`` (200 or 503, with the reasons), ``/metrics``."""

from __future__ import annotations

import json

from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tracker.observe.health import Health


def health_site(health: Health, metrics: Resource) -> Site:
    """A web site for probes, Prometheus and people; it changes nothing and asks nobody.

    Metrics are gathered and written by a thread of the reactor's pool, all else by the loop: an
    answer of ``/healthz`` shows that it turns.

    :param metrics: the page of metrics, see :class:`~tracker.observe.page.MetricsPage`.
    """
    root = Resource()
    root.putChild(b"healthz", _Alive())
    root.putChild(b"readyz", _Ready(health))
    root.putChild(b"metrics", metrics)
    site = Site(root)
    site.noisy = False
    # Probes come every few seconds; the log is for what happens.
    site.log = lambda request: None  # type: ignore[method-assign]
    return site


class _Alive(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return b"alive\n"


class _Ready(Resource):
    isLeaf = True

    def __init__(self, health: Health) -> None:
        super().__init__()
        self._health = health

    def render_GET(self, request: Request) -> bytes:
        if not self._health.ready:
            request.setResponseCode(SERVICE_UNAVAILABLE)
        request.setHeader(b"content-type", b"application/json")
        answer = {
            "ready": self._health.ready,
            "reasons": self._health.reasons,
            "details": self._health.details,
        }
        return json.dumps(answer).encode() + b"\n"
