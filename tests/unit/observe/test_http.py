"""What is served for probes, byte by byte but without a socket."""

from __future__ import annotations

import json

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.web.resource import Resource

from tracker.observe.health import Health
from tracker.observe.http import health_site
from tracker.observe.refusals import HTTPReports


def get(path: str, health: Health) -> tuple[int, str, str]:
    """Status, content type and body."""
    reports = HTTPReports(clock := Clock(), "health port", "health_port")
    site = health_site(clock, health, Resource(), reports)
    channel = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
    assert channel is not None
    transport = StringTransport()
    channel.makeConnection(transport)
    channel.dataReceived(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    head, _, body = transport.value().decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers.get("content-type", ""), body


def test_it_is_alive() -> None:
    assert get("/healthz", Health())[::2] == (200, "alive\n")


def test_details_stand_beside_the_reasons() -> None:
    health = Health()
    report = health.condition("redis")
    health.detail("lag", lambda: {"teltonika": 7})
    status, content_type, body = get("/readyz", health)
    assert (status, content_type) == (503, "application/json")
    assert json.loads(body) == {
        "ready": False,
        "reasons": {"redis": "starting"},
        "details": {"lag": {"teltonika": 7}},
    }
    report(None)
    status, _, body = get("/readyz", health)
    assert status == 200
    assert json.loads(body)["details"] == {"lag": {"teltonika": 7}}
