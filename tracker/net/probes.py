"""``/healthz`` (the event loop runs), ``/readyz`` (200 or 503, with reasons) and ``/metrics``."""

from __future__ import annotations

import json
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.http import NOT_FOUND, OK, SERVICE_UNAVAILABLE
from twisted.web.resource import Resource
from twisted.web.server import Request

from tracker.net.http import BoundedSite, HTTPLimits
from tracker.net.refusals import Reports
from tracker.net.routes import Handler, Routes, respond
from tracker.observe.health import Health

#: Prometheus and probes need few connections, and send no bodies. An ingest process reserves the
#: files of these connections: see RESERVED_FILES in ``tracker/ingestion/admission.py``.
HEALTH_LIMITS: Final = HTTPLimits(connections=64, per_address=32, body=0)


def health_site(
    reactor: IReactorTime, health: Health, metrics: Resource, reports: Reports
) -> BoundedSite:
    """Return the web site for probes and Prometheus. It is read-only, and needs no login.

    A thread of the reactor's pool collects and writes the metrics. The event loop serves the
    other paths, so a response of ``/healthz`` shows that the loop runs.

    :param metrics: the page of metrics, see :class:`~tracker.net.metricspage.MetricsPage`.
    """

    def ready(request: Request) -> bytes:
        report = {"ready": health.ready, "reasons": health.reasons, "details": health.details}
        status = OK if health.ready else SERVICE_UNAVAILABLE
        return respond(request, status, json.dumps(report).encode() + b"\n")

    root = _page(_no_page)
    root.putChild(b"healthz", _page(_alive).leaf)
    root.putChild(b"readyz", _page(ready).leaf)
    root.putChild(b"metrics", metrics)
    return BoundedSite(root, reactor, HEALTH_LIMITS, reports)


def _page(handler: Handler) -> Routes:
    return Routes({"(?s:.*)": {b"GET": handler}}, _refuse)


def _alive(request: Request) -> bytes:
    return respond(request, OK, b"alive\n", b"text/plain; charset=utf-8")


def _no_page(request: Request) -> bytes:
    # All pages accept only GET and HEAD; Routes refuses other methods before this.
    return _refuse(request, NOT_FOUND, "not found")


def _refuse(request: Request, status: int, name: str) -> bytes:
    return respond(request, status, b'{"error":"%s"}\n' % name.encode())
