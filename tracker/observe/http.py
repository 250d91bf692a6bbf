"""``/healthz`` (the event loop turns) and ``/readyz`` (200 or 503, with the reasons)."""

from __future__ import annotations

import json

from twisted.web.http import SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tracker.observe.health import Health


def health_site(health: Health) -> Site:
    """A web site for probes and people; it changes nothing and asks nobody."""
    root = Resource()
    root.putChild(b"healthz", _Alive())
    root.putChild(b"readyz", _Ready(health))
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
        answer = {"ready": self._health.ready, "reasons": self._health.reasons}
        return json.dumps(answer).encode() + b"\n"
