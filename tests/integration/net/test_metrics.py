"""Metrics over a socket, written by a thread while the event loop runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import treq
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as installed_reactor
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tracker.net.metricspage import MetricsPage
from tracker.net.probes import health_site
from tracker.net.reports import HTTPReports
from tracker.observe.health import Health
from tracker.observe.metrics import HealthMetrics, make_metrics_registry

reactor: Any = installed_reactor

Fetch = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest_twisted.async_yield_fixture
async def metrics_registry() -> AsyncIterator[CollectorRegistry]:
    yield make_metrics_registry()


@implementer(IAgentEndpointFactory)
class _UnixSocketFactory:
    """Connects to a Unix socket for every URI."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def endpointForURI(self, uri: URI) -> UNIXClientEndpoint:
        return UNIXClientEndpoint(reactor, str(self._path))


@pytest_twisted.async_yield_fixture(params=["tcp", "unix"])
async def fetch(
    request: pytest.FixtureRequest, metrics_registry: CollectorRegistry, tmp_path: Path
) -> AsyncIterator[Fetch]:
    """Yield a function that fetches a path and returns status, content type and body."""
    page = MetricsPage(reactor, metrics_registry)
    reports = HTTPReports(reactor, "health port", "health_port")
    site = health_site(reactor, Health(), page.resource, reports)
    agent: Any
    if request.param == "unix":
        path = tmp_path / "health.sock"
        port = reactor.listenUNIX(str(path), site)
        agent, host = Agent.usingEndpointFactory(reactor, _UnixSocketFactory(path)), "localhost"
    else:
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        agent, host = Agent(reactor), f"127.0.0.1:{port.getHost().port}"

    async def get(path: str = "/metrics", accept: str = "*/*") -> tuple[int, str, str]:
        headers = Headers({"accept": [accept]})
        response = await treq.get(f"http://{host}{path}", headers=headers, agent=agent)
        (content_type,) = response.headers.getRawHeaders("content-type")
        return response.code, content_type, await response.text()

    yield get
    await page.stopService()
    status, _, _ = await get()
    assert status == 503
    await port.stopListening()


@ensureDeferred
async def test_metrics_are_served_in_prometheus_format(
    metrics_registry: CollectorRegistry, fetch: Fetch
) -> None:
    Gauge("some", "Something.", ["where"], registry=metrics_registry).labels("here").set(3)
    Counter("things", "Things.", registry=metrics_registry).inc()
    status, content_type, body = await fetch()
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert 'some{where="here"} 3.0' in body.splitlines()
    assert "things_total 1.0" in body.splitlines()
    assert list(text_string_to_metric_families(body))


@ensureDeferred
async def test_metrics_are_served_as_openmetrics_on_request(fetch: Fetch) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    _, content_type, body = await fetch(accept=accept)
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    "accept", ["text/plain;version=x", "application/openmetrics-text;version=x"]
)
@ensureDeferred
async def test_malformed_version_in_accept_is_refused(fetch: Fetch, accept: str) -> None:
    with capturedLogs() as logged:
        status, _, _ = await fetch(accept=accept)
    assert status == 400
    assert not [event for event in logged if "log_failure" in event]


@ensureDeferred
async def test_metrics_can_be_selected_by_name(
    metrics_registry: CollectorRegistry, fetch: Fetch
) -> None:
    _, _, body = await fetch("/metrics?name[]=tracker_build_info")
    assert [line for line in body.splitlines() if not line.startswith("#")] == [
        line for line in body.splitlines() if line.startswith("tracker_build_info{")
    ]


@ensureDeferred
async def test_process_and_build_metrics_are_served(fetch: Fetch) -> None:
    _, _, body = await fetch()
    assert "\nprocess_resident_memory_bytes " in body
    assert 'tracker_build_info{python="3.' in body
    assert "_created" not in body


@ensureDeferred
async def test_metrics_of_another_registry_are_not_served(fetch: Fetch) -> None:
    Gauge("elsewhere", "Something.", registry=make_metrics_registry())
    _, _, body = await fetch()
    assert "elsewhere" not in body


@ensureDeferred
async def test_readiness_conditions_are_metrics(
    metrics_registry: CollectorRegistry, fetch: Fetch
) -> None:
    health = Health()
    HealthMetrics(health, metrics_registry)
    condition, _ = health.condition("redis"), health.condition("sink")
    condition.met()
    _, _, body = await fetch()
    assert "tracker_ready 0.0" in body.splitlines()
    assert 'tracker_condition_met{condition="redis"} 1.0' in body.splitlines()
    assert 'tracker_condition_met{condition="sink"} 0.0' in body.splitlines()


@ensureDeferred
async def test_stuck_process_is_not_ready_in_the_metrics(
    metrics_registry: CollectorRegistry, fetch: Fetch
) -> None:
    clock = Clock()
    health = Health(clock.seconds)
    HealthMetrics(health, metrics_registry)
    health.condition("redis").met()
    health.watchdog("consumer", 60).reset()
    _, _, body = await fetch()
    assert "tracker_ready 1.0" in body.splitlines()
    clock.advance(61)
    _, _, body = await fetch()
    assert "tracker_ready 0.0" in body.splitlines()
    assert 'tracker_condition_met{condition="redis"} 1.0' in body.splitlines()
