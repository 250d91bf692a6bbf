"""Mutated requests to all HTTP sites: each gets a response with an allowed status.

No bytes of a peer may raise an error, log a failure, or log without a rate limit.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from attrs import define
from prometheus_client.exposition import make_wsgi_app
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.web.resource import Resource

from tests.unit.bridge.test_webhook import KEY, SECRET, AnnouncementRecorder
from tests.unit.console.browsing import DEVICE, HOST, Browser, Server
from tests.unit.net.wires import Wire, errors
from tracker.bridge.webhook import Webhook
from tracker.net.http import BoundedSite
from tracker.net.metricspage import is_valid_accept
from tracker.net.probes import health_site
from tracker.net.reports import HTTPReports
from tracker.net.waits import IDLE_TIMEOUT, READ_TIMEOUT
from tracker.observe.health import Health
from tracker.observe.metrics import make_metrics_registry
from tracker.observe.ratelimit import MAX_LINES

#: Requests to each site.
ROUNDS: Final = 1500
ALLOWED: Final = {200, 202, 304, 400, 401, 403, 404, 405, 413, 421, 429, 503}
#: Bytes that are significant to a parser, and texts at which parsers may fail.
BITS: Final = (
    *(b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b";", b",", b"/", b"%", b"%ff", b"%00"),
    *(b"\xff", b"\x80", b"\x0b", b"\x85", b"\xc3\xa9", b"\xed\xa0\x80", b"?", b"&", b"=", b"=="),
    *(b"[", b"{", b'"', b"\\ud800", b"null", b"NaN", b"-1", b"1e999", b"0x10", b"9" * 30),
    *(b"9" * 5000, b"[" * 200, b"Host: x\r\n", b"Transfer-Encoding: chunked\r\n", b"..", b"//"),
    *(b"Content-Length: 7\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"*", b"+"),
    *(b"Content-Type: multipart/form-data\r\n", b"HTTP/1.0", b"HEAD", b"OPTIONS", b"\r\n\r\n"),
)


@define
class Target:
    """A site, and valid requests."""

    site: BoundedSite
    clock: Clock
    good: list[bytes]


def request(
    method: str, path: str, body: bytes = b"", *fields: str, chunked: bool = False
) -> bytes:
    head = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", *fields]
    if chunked:
        head.append("Transfer-Encoding: chunked")
        middle = len(body) // 2
        parts = (body[:middle], body[middle:], b"")
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    elif body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*head, "", "")).encode() + body


def health() -> Target:
    reports = HTTPReports(clock := Clock(), "health port", "health_port")
    site = health_site(clock, Health(), Resource(), reports)
    paths = ("/healthz", "/readyz?verbose=1", "/none", "/healthz/x")
    good = [request(method, path) for path in paths for method in ("GET", "HEAD", "POST")]
    return Target(site, clock, good)


def console() -> Target:
    server = Server()
    browser = Browser(server)
    browser.load_page()
    fields = [f"{name}: {value}" for name, value in browser.headers().items() if name != "Host"]
    paths = (
        *("/", "/static/index.html", "/api/session", "/api/devices?text=35&order=id&limit=5"),
        *(
            "/api/devices?after=17",
            f"/api/devices/{DEVICE}",
            f"/api/devices/{DEVICE}/track?hours=6",
        ),
        *("/api/commands/c1", f"/api/commands/c1?device_id={DEVICE}"),
    )
    sends = b'{"device_id":"356307042441013","text":"getinfo"}'
    good = [request("GET", path, b"", *fields, "Sec-Fetch-Site: none") for path in paths]
    for chunked in (False, True):
        good.append(request("POST", "/api/commands", sends, *fields, chunked=chunked))
        login = b'{"name":"anna","password":"correct horse battery"}'
        good.append(request("POST", "/api/login", login, *fields, chunked=chunked))
    return Target(server.site, server.clock, good)


def webhook() -> Target:
    receiver: Any = AnnouncementRecorder()
    clock = Clock()
    reports = HTTPReports(clock, "webhook", "bridge_webhook")
    site = Webhook(SECRET, receiver, receiver).site(clock, reports)
    secret, body = f"X-Tracker-Secret: {SECRET}", b'{"keys": ["%s"]}' % KEY.encode()
    good = [
        request("POST", path, body, secret, chunked=chunked)
        for path in ("/commands", "/devices")
        for chunked in (False, True)
    ]
    return Target(site, clock, good)


def mutated(good: bytes, chance: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.choice(BITS)
            case 1:
                bit = chance.choice(BITS)
                data[at : at + len(bit)] = bit
            case 2:
                del data[at : at + chance.randrange(1, 30)]
            case 3:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case _:  # duplicate a part
                end = min(len(data), at + chance.randrange(1, 60))
                data[at:at] = data[at:end]
    return bytes(data)


def in_parts(data: bytes, chance: random.Random) -> Iterator[bytes]:
    while data:
        size = chance.choice((1, 7, 100, len(data)))
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize("make", [health, console, webhook])
def test_mutated_request_gets_a_response_or_is_disconnected(make: Callable[[], Target]) -> None:
    chance = random.Random(make.__name__)
    target = make()
    statuses: set[int] = set()
    begun, there_before = target.clock.seconds(), target.site.connections
    gc.collect()  # failures that other tests left are reported when they are freed
    with capturedLogs() as logged:
        for _ in range(ROUNDS):
            data = mutated(chance.choice(target.good), chance)
            wire = Wire(target.site)
            for part in in_parts(data, chance):
                wire.send(part)
                wire.read()
            assert set(wire.statuses) - {100} <= ALLOWED, data
            statuses |= set(wire.statuses)
            if not wire.closed:
                target.clock.pump([IDLE_TIMEOUT, READ_TIMEOUT])
                wire.turn()
            assert wire.closed, data
    assert not errors(logged), errors(logged)[0]
    minutes = (target.clock.seconds() - begun) / 60 + 1
    warnings = [event for event in logged if event["log_namespace"].startswith("tracker.")]
    assert len(warnings) <= 3 * MAX_LINES * minutes
    assert target.site.connections == there_before
    # The mutations leave some requests valid.
    assert {400, 404} <= statuses
    assert statuses & {200, 202}


def test_metrics_are_served_for_every_accept_header_that_is_accepted() -> None:
    """An error of Prometheus' client would be logged with a traceback, by a thread."""
    app = make_wsgi_app(make_metrics_registry())
    chance = random.Random("metrics")
    good = (
        b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=1.0.0;escaping=dots"
    )
    refused = 0
    for _ in range(ROUNDS // 3):
        accept = mutated(good, chance).translate(None, b"\r\n\0")
        if not is_valid_accept(accept):
            refused += 1
            continue
        environment = {
            "HTTP_ACCEPT": accept.decode("latin-1"),
            "HTTP_ACCEPT_ENCODING": mutated(b"gzip;q=0.5, *", chance).decode("latin-1"),
            "QUERY_STRING": mutated(b"name[]=tracker_build_info", chance).decode("latin-1"),
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
        }
        statuses: list[str] = []
        app(environment, lambda status, headers, statuses=statuses: statuses.append(status))
        assert statuses == ["200 OK"]
    assert 0 < refused < ROUNDS // 3
