"""Responses of the health port, without sockets."""

from __future__ import annotations

import json

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.web.resource import Resource

from tests.unit.net.wires import Wire
from tracker.net.probes import health_site
from tracker.net.reports import HTTPReports
from tracker.observe.health import Health


def connect(health: Health | None = None) -> Wire:
    reports = HTTPReports(clock := Clock(), "health port", "health_port")
    return Wire(health_site(clock, health or Health(), Resource(), reports))


def get(path: str, health: Health) -> tuple[int, str, str]:
    """Return status, content type and body."""
    wire = connect(health).send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert wire.closed
    head, _, body = wire.text.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers.get("content-type", ""), body


def test_healthz_answers_200_while_the_process_runs() -> None:
    assert get("/healthz", Health())[::2] == (200, "alive\n")


def test_readyz_has_reasons_and_details() -> None:
    health = Health()
    condition = health.condition("redis")
    health.detail("lag", lambda: {"teltonika": 7})
    status, content_type, body = get("/readyz", health)
    assert (status, content_type) == (503, "application/json")
    assert json.loads(body) == {
        "ready": False,
        "reasons": {"redis": "starting"},
        "details": {"lag": {"teltonika": 7}},
    }
    condition.met()
    status, _, body = get("/readyz", health)
    assert status == 200
    assert json.loads(body)["details"] == {"lag": {"teltonika": 7}}


@pytest.mark.parametrize(
    "path", ["/", "/none", "/none/healthz", "//", "/../readyz", "//healthz", "/healthz%2Fx"]
)
def test_unknown_path_gets_404(path: str) -> None:
    wire = connect().send(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert wire.statuses == [404]
    assert wire.json["error"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/none"])
def test_head_gets_the_headers_of_get_and_logs_nothing(path: str) -> None:
    with capturedLogs() as logged:
        heads = [
            connect().send(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            for method in ("GET", "HEAD")
        ]
    whole, head = (wire.text.partition(b"\r\n\r\n") for wire in heads)
    assert head[2] == b""
    assert f"Content-Length: {len(whole[2])}".encode() in head[0]
    assert not logged


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "TRACE", "NONE"])
def test_methods_other_than_get_and_head_are_refused(method: str) -> None:
    wire = connect().send(f"{method} /healthz HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert wire.statuses == [405]
    assert b"Allow: GET, HEAD" in wire.text


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 1\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n200000\r\n" + b"x" * 100],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_request_with_a_body_is_refused(method: bytes, body: bytes) -> None:
    wire = connect().send(method + b" /healthz HTTP/1.1\r\nHost: here\r\n" + body)
    assert (wire.statuses, wire.closed) == ([413], True)
