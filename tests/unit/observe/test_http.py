"""What is served for probes and for Prometheus, byte by byte but without a socket."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport

from tracker.observe.health import Health
from tracker.observe.http import health_site
from tracker.observe.metrics import make_registry


def get(
    path: str, health: Health, registry: CollectorRegistry, accept: str = "*/*"
) -> tuple[int, str, str]:
    """Status, content type and body."""
    channel = health_site(health, registry).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    assert channel is not None
    transport = StringTransport()
    channel.makeConnection(transport)
    channel.dataReceived(f"GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n".encode())
    head, _, body = transport.value().decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers.get("content-type", ""), body


def test_it_is_alive() -> None:
    assert get("/healthz", Health(), CollectorRegistry())[::2] == (200, "alive\n")


def test_details_stand_beside_the_reasons() -> None:
    health = Health()
    report = health.condition("redis")
    health.detail("lag", lambda: {"teltonika": 7})
    status, content_type, body = get("/readyz", health, CollectorRegistry())
    assert (status, content_type) == (503, "application/json")
    assert json.loads(body) == {
        "ready": False,
        "reasons": {"redis": "starting"},
        "details": {"lag": {"teltonika": 7}},
    }
    report(None)
    status, _, body = get("/readyz", health, CollectorRegistry())
    assert status == 200
    assert json.loads(body)["details"] == {"lag": {"teltonika": 7}}


def test_metrics_are_served_in_prometheus_format() -> None:
    registry = CollectorRegistry()
    Gauge("some", "Something.", ["where"], registry=registry).labels("here").set(3)
    Counter("things", "Things.", registry=registry).inc()
    status, content_type, body = get("/metrics", Health(), registry)
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert 'some{where="here"} 3.0' in body.splitlines()
    assert "things_total 1.0" in body.splitlines()
    assert list(text_string_to_metric_families(body))


def test_metrics_are_served_as_openmetrics_where_that_is_asked_for() -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    _, content_type, body = get("/metrics", Health(), CollectorRegistry(), accept)
    assert content_type.startswith("application/openmetrics-text")
    assert body == "# EOF\n"


def test_two_registries_are_apart_and_tell_of_the_process() -> None:
    one, other = make_registry(), make_registry()
    Gauge("some", "Something.", registry=one)
    _, _, body = get("/metrics", Health(), other)
    assert "\nsome " not in body
    assert "\nprocess_resident_memory_bytes " in body
    assert 'tracker_build_info{version="' in body
