"""Limits of an HTTP server for bytes, time and connections."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tests.unit.net.wires import FULL, FakeReports, Wire, errors
from tracker.net.http import MAX_FIELDS, MAX_HEAD, MAX_LINE, BoundedSite, HTTPLimits
from tracker.net.refusals import Refusal
from tracker.net.waits import BODY_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, READ_TIMEOUT

BODY = 1000
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Page(Resource):
    """Resource with the responses that the tests need."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Request] = []
        self.bodies: list[bytes] = []

    def render_GET(self, request: Request) -> Any:
        if request.path == b"/later":
            self.later.append(request)
            return NOT_DONE_YET
        if request.path == b"/fault":
            raise RuntimeError("an error at /var/lib")
        return b"x" * 50_000 if request.path == b"/large" else b"page\n"

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        self.bodies.append(request.content.read())
        return b"accepted\n"


class ServedSite:
    """A site on a fake clock, and connections to it."""

    def __init__(self, limits: HTTPLimits | None = None) -> None:
        self.clock = Clock()
        self.reports = FakeReports()
        self.page = Page()
        self.wires: list[Wire] = []
        self.site = BoundedSite(
            self.page, self.clock, limits or HTTPLimits(100, 100, BODY), self.reports
        )

    def connect(self, host: str = "192.0.2.1") -> Wire:
        wire = Wire(self.site, host)
        self.turn()
        self.wires = [one for one in (*self.wires, wire) if not one.closed]
        return wire

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(2 * seconds))
        self.turn()

    def turn(self) -> None:
        for wire in self.wires:
            wire.turn()


@pytest.fixture
def place() -> Iterator[ServedSite]:
    with capturedLogs() as logged:
        yield ServedSite()
    assert not errors(logged)


def post(*fields: str) -> bytes:
    return "\r\n".join(("POST / HTTP/1.1", "Host: here", *fields, "", "")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# Bodies.


def test_body_up_to_the_limit_is_accepted(place: ServedSite) -> None:
    wire = place.connect().send(post(f"Content-Length: {BODY}") + b"x" * BODY)
    wire.send(post("Transfer-Encoding: chunked") + chunk(b"x" * BODY) + b"0\r\n\r\n")
    assert wire.statuses == [200, 200]
    assert place.page.bodies == [b"x" * BODY] * 2
    assert place.reports.refusals == []


@pytest.mark.parametrize("length", [str(BODY + 1), str(10**15), "9" * 18, "9" * 19, "9" * 5000])
def test_announced_body_over_the_limit_is_refused_before_it_is_read(
    place: ServedSite, length: str
) -> None:
    wire = place.connect().send(post(f"Content-Length: {length}", "Expect: 100-continue"))
    assert (wire.statuses, wire.closed) == ([413], True)
    assert wire.json["error"]
    assert place.reports.refusals == [Refusal.TOO_LARGE]


def test_chunked_body_over_the_limit_is_refused(
    place: ServedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tempfile, "TemporaryFile")  # Twisted would use one for 100 kB
    wire = place.connect().send(post("Transfer-Encoding: chunked"))
    for _ in range(5):
        wire.send(chunk(b"x" * (BODY // 5)))
    assert wire.statuses == []
    wire.send(chunk(b"x") * 3 + b"0\r\n\r\n" + GET)
    assert (wire.statuses, wire.closed) == ([413], True)
    assert place.page.bodies == []
    assert place.reports.refusals == [Refusal.TOO_LARGE]


# Heads.


@pytest.mark.parametrize(
    "data",
    [
        *(b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"\x16\x03\x01\0\xff\r\n"),
        b"GET /\xff HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET /\x80 HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET /?q=%ff HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET http://here/ HTTP/1.1\r\nHost: here\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n",
        b"CONNECT here:80 HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nHost: there\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nhost: here\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : here\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nX: a\0b\r\n\r\n",
        post("Content-Length: -1"),
        post("Content-Length: 0x10"),
        post("Content-Length: 1", "Content-Length: 2"),
        post("Content-Length: 5", "Transfer-Encoding: chunked"),
        post("Transfer-Encoding: gzip"),
        post("Transfer-Encoding: chunked") + b"-1\r\n",
        post("Transfer-Encoding: chunked") + b"1\r\nab\r\n",
        post("Transfer-Encoding: chunked") + b"1" * 2000,
        b"GET /" + b"x" * MAX_LINE + b" HTTP/1.1\r\n",
        b"x" * (MAX_LINE + 3),
        b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * MAX_LINE + b"\r\n",
        b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * 1000 + b"\r\n") * (MAX_HEAD // 1000 + 1),
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_malformed_request_gets_400_and_is_closed(
    place: ServedSite, data: bytes, at_once: bool
) -> None:
    wire = place.connect()
    for part in [data] if at_once else [data[at : at + 1] for at in range(len(data))]:
        wire.send(part)
    assert (wire.statuses, wire.closed) == ([400], True)
    assert wire.json["error"]
    assert place.reports.refusals == [Refusal.MALFORMED]
    assert place.reports.failures == []


@pytest.mark.parametrize("value", ["a\x0bb", "multipart/form-data", "a\x85b", "x" * 4000])
def test_type_of_a_body_is_not_parsed(place: ServedSite, value: str) -> None:
    data = post("Content-Length: 2", f"Content-Type: {value}").decode().encode("latin-1")
    wire = place.connect().send(data + b"{}")
    assert wire.statuses == [200]


def test_internal_error_is_reported_and_not_sent_to_the_peer(place: ServedSite) -> None:
    wire = place.connect().send(b"GET /fault HTTP/1.1\r\nHost: here\r\n\r\n")
    assert wire.statuses == [500]
    assert b"/var/lib" not in wire.text
    (failure,) = place.reports.failures
    assert failure.check(RuntimeError)


def test_error_during_parsing_is_reported_and_closes_the_connection(
    place: ServedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Request, "parseCookies", fails)
    wire = place.connect().send(GET)
    assert (wire.closed, len(place.reports.failures)) == (True, 1)


def test_response_has_no_server_header(place: ServedSite) -> None:
    assert b"server:" not in place.connect().send(GET).text.lower()


def test_http_2_is_not_negotiated(place: ServedSite) -> None:
    """Twisted's channel for HTTP/2 has no such limits."""
    assert place.site.acceptableProtocols() == [b"http/1.1"]


# Time.


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nX: ", GET[:-1]])
def test_slow_head_is_closed_although_bytes_arrive(place: ServedSite, begun: bytes) -> None:
    wire = place.connect().send(begun)
    for _ in range(int(HEAD_TIMEOUT) - 1):
        place.advance(1)
        wire.send(b"x")
        assert not wire.closed
    place.advance(1)
    assert wire.closed
    assert place.reports.refusals == [Refusal.OVERDUE]


def test_silent_peer_is_disconnected(place: ServedSite) -> None:
    """A connection with an unfinished TLS handshake is such a peer."""
    wire = place.connect()
    place.advance(HEAD_TIMEOUT)
    assert (wire.closed, wire.text) == (True, b"")
    assert place.reports.refusals == []


@pytest.mark.parametrize("field", ["Content-Length: 500", "Transfer-Encoding: chunked"])
def test_slow_body_is_closed_although_bytes_arrive(place: ServedSite, field: str) -> None:
    wire = place.connect().send(post(field))
    for _ in range(int(BODY_TIMEOUT) - 1):
        place.advance(1)
        wire.send(b"1\r\nx\r\n")
        assert not wire.closed
    place.advance(1)
    assert (wire.closed, wire.text) == (True, b"")
    assert place.reports.refusals == [Refusal.OVERDUE]


def test_body_has_its_own_deadline(place: ServedSite) -> None:
    head, body = post("Content-Length: 5"), b"12345"
    wire = place.connect().send(head[:-1])
    place.advance(HEAD_TIMEOUT - 1)
    wire.send(head[-1:] + body[:-1])
    place.advance(BODY_TIMEOUT - 1)
    wire.send(body[-1:])
    assert wire.statuses == [200]
    assert place.page.bodies == [body]


def test_idle_connection_is_closed_and_the_next_request_has_a_deadline(place: ServedSite) -> None:
    idle, slow = place.connect().send(GET), place.connect().send(GET)
    place.advance(IDLE_TIMEOUT - 1)
    assert not idle.closed
    slow.send(GET[:5])
    place.advance(1)
    assert (idle.closed, slow.closed) == (True, False)
    place.advance(HEAD_TIMEOUT - 1)
    assert slow.closed
    assert place.reports.refusals == [Refusal.OVERDUE]


def test_response_has_no_deadline(place: ServedSite) -> None:
    wire = place.connect().send(b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n")
    (request,) = place.page.later
    for _ in range(100):
        place.advance(100)
        request.write(b"an event\n")
        wire.read()
    assert not wire.closed
    request.finish()
    place.advance(IDLE_TIMEOUT)
    assert wire.closed


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("field", [b"", b"Connection: close\r\n"])
def test_peer_that_does_not_read_is_disconnected(
    place: ServedSite, ends: bool, field: bytes
) -> None:
    wire = place.connect()
    wire.send(b"GET /later HTTP/1.1\r\nHost: here\r\n" + field + b"\r\n")
    (request,) = place.page.later
    request.write(b"x" * (FULL + 1))
    if ends:
        request.finish()
    place.advance(READ_TIMEOUT - 1)
    wire.turn()
    assert not wire.closed
    place.advance(1)
    assert wire.closed


def test_slowly_reading_peer_stays_connected(place: ServedSite) -> None:
    wire = place.connect().send(b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n")
    (request,) = place.page.later
    for _ in range(5):
        request.write(b"x" * (FULL + 1))
        place.advance(READ_TIMEOUT - 1)
        wire.read()
    assert not wire.closed


@pytest.mark.parametrize("method", [b"GET / ", b"GET /later ", b"POST / "])
def test_only_the_first_of_pipelined_requests_is_served(place: ServedSite, method: bytes) -> None:
    """Serving a thousand requests of one read would delay all other peers."""
    request = method + b"HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\nx"
    wire = place.connect().send(request * 1000)
    for later in place.page.later:
        later.finish()
    wire.turn()
    assert wire.statuses == [200]
    assert wire.closed
    assert place.reports.failures == []


def test_line_end_after_a_body_is_ignored(place: ServedSite) -> None:
    request = post("Content-Length: 1") + b"x\r\n"
    wire = place.connect()
    for _ in range(3):
        wire.send(request)
    assert (wire.statuses, wire.closed) == ([200] * 3, False)


def test_transport_is_paused_while_the_peer_does_not_read(place: ServedSite) -> None:
    """Otherwise its requests would be buffered until the deadline."""
    request = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n"
    wire = place.connect()
    sent = 0
    while wire.producerState == "producing":
        wire.send(request)
        sent += 1
        assert sent < 10
    wire.read()
    assert wire.producerState == "producing"
    assert wire.send(GET).statuses == [200] * (sent + 1)


def test_transport_is_paused_while_the_peer_pipelines(place: ServedSite) -> None:
    wire = place.connect().send(b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n")
    sent = 0
    while wire.producerState == "producing":
        wire.send(b"G")
        sent += 1
        assert sent < 100
    assert sent > 10
    place.page.later[0].finish()
    assert wire.producerState == "producing"


# Connections.


def waiting(place: ServedSite, count: int, host: str = "192.0.2.1") -> list[Wire]:
    return [place.connect(host).send(GET[:3]) for _ in range(count)]


def in_progress(place: ServedSite, count: int, host: str = "192.0.2.1") -> list[Wire]:
    request = b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n"
    return [place.connect(host).send(request) for _ in range(count)]


def test_total_number_of_connections_is_limited() -> None:
    place = ServedSite(HTTPLimits(40, 40, 0))
    for number in range(8):
        in_progress(place, 5, f"192.0.2.{number}")
    assert place.site.connections == 40
    assert place.connect("192.0.2.99").refused
    assert place.reports.refusals == [Refusal.CONNECTIONS]
    place.page.later[0].finish()
    place.advance(IDLE_TIMEOUT)
    assert place.connect("192.0.2.99").send(GET).statuses == [200]


@pytest.mark.parametrize(
    ("hosts", "other"),
    [
        (["192.0.2.1"], "192.0.2.2"),
        (["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"], "2001:db8:0:1::1"),
        (["192.0.2.1", "::ffff:192.0.2.1"], "192.0.2.2"),
    ],
)
def test_connections_of_an_address_are_limited(hosts: list[str], other: str) -> None:
    place = ServedSite(HTTPLimits(100, 10, 0))
    for number in range(10):
        in_progress(place, 1, hosts[number % len(hosts)])
    assert place.connect(hosts[0]).refused
    assert place.reports.refusals == [Refusal.ADDRESS]
    assert place.connect(other).send(GET).statuses == [200]
    place.page.later[0].finish()
    place.advance(IDLE_TIMEOUT)
    assert not place.connect(hosts[0]).refused


def test_longest_wait_of_an_address_is_closed_for_a_new_connection() -> None:
    place = ServedSite(HTTPLimits(100, 10, 0))
    elsewhere = waiting(place, 1, "192.0.2.2")
    busy = in_progress(place, 5)
    first, *others = waiting(place, 5)
    place.advance(1)
    late = place.connect().send(GET)
    assert late.statuses == [200]
    assert first.closed
    assert not any(wire.closed for wire in (*elsewhere, *busy, *others))
    assert place.reports.refusals == []


def test_longest_wait_is_closed_for_a_new_connection() -> None:
    place = ServedSite(HTTPLimits(40, 40, 0))
    first = waiting(place, 1)[0]
    for number in range(100):
        wire = place.connect(f"192.0.2.{number}").send(GET)
        assert wire.statuses == [200]
        assert place.site.connections <= 40
    assert first.closed
    assert place.reports.refusals == []


def test_connections_in_one_reactor_turn_are_limited() -> None:
    """A closed connection holds its file until the next reactor turn."""
    place = ServedSite(HTTPLimits(64, 32, 0))
    wires = [Wire(place.site) for _ in range(500)]
    assert place.site.connections == 40
    # The connections of one address leave slots for other addresses.
    assert place.connect("192.0.2.2").send(GET).statuses == [200]
    wires += [Wire(place.site, f"192.0.2.{number}") for number in range(200)]
    assert place.site.connections == 64
    for wire in wires:
        wire.turn()
    assert place.connect().send(GET).statuses == [200]


def test_closed_connections_leave_nothing_behind() -> None:
    place = ServedSite(HTTPLimits(40, 10, BODY))
    for number in range(300):
        wire = place.connect(f"192.0.2.{number % 7}")
        wire.send((GET, GET[:4], post("Content-Length: 5"), b"\r\n\r\n", b"")[number % 5])
    place.advance(IDLE_TIMEOUT + READ_TIMEOUT)
    assert place.site.connections == 0
    assert not place.clock.getDelayedCalls()
    assert not place.site._waiting
    assert not place.site._leaving
    assert all(place.site._shares.take("192.0.2.1") for _ in range(10))


def test_only_one_request_is_served_without_persistence() -> None:
    place = ServedSite(HTTPLimits(40, 40, 0, persistent=False))
    wire = place.connect().send(GET + GET)
    assert (wire.statuses, wire.closed) == ([200], True)
    assert b"Connection: close" in wire.text
