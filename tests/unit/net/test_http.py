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
def served() -> Iterator[ServedSite]:
    with capturedLogs() as logged:
        yield ServedSite()
    assert not errors(logged)


def post(*fields: str) -> bytes:
    return "\r\n".join(("POST / HTTP/1.1", "Host: here", *fields, "", "")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# Bodies.


def test_body_up_to_the_limit_is_accepted(served: ServedSite) -> None:
    wire = served.connect().send(post(f"Content-Length: {BODY}") + b"x" * BODY)
    wire.send(post("Transfer-Encoding: chunked") + chunk(b"x" * BODY) + b"0\r\n\r\n")
    assert wire.statuses == [200, 200]
    assert served.page.bodies == [b"x" * BODY] * 2
    assert served.reports.refusals == []


@pytest.mark.parametrize("length", [str(BODY + 1), str(10**15), "9" * 18, "9" * 19, "9" * 5000])
def test_announced_body_over_the_limit_is_refused_before_it_is_read(
    served: ServedSite, length: str
) -> None:
    wire = served.connect().send(post(f"Content-Length: {length}", "Expect: 100-continue"))
    assert (wire.statuses, wire.closed) == ([413], True)
    assert wire.json["error"]
    assert served.reports.refusals == [Refusal.TOO_LARGE]


def test_chunked_body_over_the_limit_is_refused(
    served: ServedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tempfile, "TemporaryFile")  # Twisted would use one for 100 kB
    wire = served.connect().send(post("Transfer-Encoding: chunked"))
    for _ in range(5):
        wire.send(chunk(b"x" * (BODY // 5)))
    assert wire.statuses == []
    wire.send(chunk(b"x") * 3 + b"0\r\n\r\n" + GET)
    assert (wire.statuses, wire.closed) == ([413], True)
    assert served.page.bodies == []
    assert served.reports.refusals == [Refusal.TOO_LARGE]


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
    served: ServedSite, data: bytes, at_once: bool
) -> None:
    wire = served.connect()
    for part in [data] if at_once else [data[at : at + 1] for at in range(len(data))]:
        wire.send(part)
    assert (wire.statuses, wire.closed) == ([400], True)
    assert wire.json["error"]
    assert served.reports.refusals == [Refusal.MALFORMED]
    assert served.reports.failures == []


@pytest.mark.parametrize("value", ["a\x0bb", "multipart/form-data", "a\x85b", "x" * 4000])
def test_content_type_is_not_parsed(served: ServedSite, value: str) -> None:
    data = post("Content-Length: 2", f"Content-Type: {value}").decode().encode("latin-1")
    wire = served.connect().send(data + b"{}")
    assert wire.statuses == [200]


def test_internal_error_is_reported_and_not_sent_to_the_peer(served: ServedSite) -> None:
    wire = served.connect().send(b"GET /fault HTTP/1.1\r\nHost: here\r\n\r\n")
    assert wire.statuses == [500]
    assert b"/var/lib" not in wire.text
    (failure,) = served.reports.failures
    assert failure.check(RuntimeError)


def test_error_during_parsing_is_reported_and_closes_the_connection(
    served: ServedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Request, "parseCookies", fails)
    wire = served.connect().send(GET)
    assert (wire.closed, len(served.reports.failures)) == (True, 1)


def test_response_has_no_server_header(served: ServedSite) -> None:
    assert b"server:" not in served.connect().send(GET).text.lower()


def test_http_2_is_not_negotiated(served: ServedSite) -> None:
    """Twisted's channel for HTTP/2 has no such limits."""
    assert served.site.acceptableProtocols() == [b"http/1.1"]


# Time.


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nX: ", GET[:-1]])
def test_slow_head_is_closed_although_bytes_arrive(served: ServedSite, begun: bytes) -> None:
    wire = served.connect().send(begun)
    for _ in range(int(HEAD_TIMEOUT) - 1):
        served.advance(1)
        wire.send(b"x")
        assert not wire.closed
    served.advance(1)
    assert wire.closed
    assert served.reports.refusals == [Refusal.OVERDUE]


def test_silent_peer_is_disconnected(served: ServedSite) -> None:
    """A connection with an unfinished TLS handshake is such a peer."""
    wire = served.connect()
    served.advance(HEAD_TIMEOUT)
    assert (wire.closed, wire.text) == (True, b"")
    assert served.reports.refusals == []


@pytest.mark.parametrize("field", ["Content-Length: 500", "Transfer-Encoding: chunked"])
def test_slow_body_is_closed_although_bytes_arrive(served: ServedSite, field: str) -> None:
    wire = served.connect().send(post(field))
    for _ in range(int(BODY_TIMEOUT) - 1):
        served.advance(1)
        wire.send(b"1\r\nx\r\n")
        assert not wire.closed
    served.advance(1)
    assert (wire.closed, wire.text) == (True, b"")
    assert served.reports.refusals == [Refusal.OVERDUE]


def test_body_has_its_own_deadline(served: ServedSite) -> None:
    head, body = post("Content-Length: 5"), b"12345"
    wire = served.connect().send(head[:-1])
    served.advance(HEAD_TIMEOUT - 1)
    wire.send(head[-1:] + body[:-1])
    served.advance(BODY_TIMEOUT - 1)
    wire.send(body[-1:])
    assert wire.statuses == [200]
    assert served.page.bodies == [body]


def test_idle_connection_is_closed_and_the_next_request_has_a_deadline(served: ServedSite) -> None:
    idle, slow = served.connect().send(GET), served.connect().send(GET)
    served.advance(IDLE_TIMEOUT - 1)
    assert not idle.closed
    slow.send(GET[:5])
    served.advance(1)
    assert (idle.closed, slow.closed) == (True, False)
    served.advance(HEAD_TIMEOUT - 1)
    assert slow.closed
    assert served.reports.refusals == [Refusal.OVERDUE]


def test_response_has_no_deadline(served: ServedSite) -> None:
    wire = served.connect().send(b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n")
    (request,) = served.page.later
    for _ in range(100):
        served.advance(100)
        request.write(b"an event\n")
        wire.read()
    assert not wire.closed
    request.finish()
    served.advance(IDLE_TIMEOUT)
    assert wire.closed


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("field", [b"", b"Connection: close\r\n"])
def test_peer_that_does_not_read_is_disconnected(
    served: ServedSite, ends: bool, field: bytes
) -> None:
    wire = served.connect()
    wire.send(b"GET /later HTTP/1.1\r\nHost: here\r\n" + field + b"\r\n")
    (request,) = served.page.later
    request.write(b"x" * (FULL + 1))
    if ends:
        request.finish()
    served.advance(READ_TIMEOUT - 1)
    wire.turn()
    assert not wire.closed
    served.advance(1)
    assert wire.closed


def test_slowly_reading_peer_stays_connected(served: ServedSite) -> None:
    wire = served.connect().send(b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n")
    (request,) = served.page.later
    for _ in range(5):
        request.write(b"x" * (FULL + 1))
        served.advance(READ_TIMEOUT - 1)
        wire.read()
    assert not wire.closed


@pytest.mark.parametrize("method", [b"GET / ", b"GET /later ", b"POST / "])
def test_only_the_first_of_pipelined_requests_is_served(served: ServedSite, method: bytes) -> None:
    """Serving a thousand requests of one read would delay all other peers."""
    request = method + b"HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\n\r\nx"
    wire = served.connect().send(request * 1000)
    for later in served.page.later:
        later.finish()
    wire.turn()
    assert wire.statuses == [200]
    assert wire.closed
    assert served.reports.failures == []


def test_line_end_after_a_body_is_ignored(served: ServedSite) -> None:
    request = post("Content-Length: 1") + b"x\r\n"
    wire = served.connect()
    for _ in range(3):
        wire.send(request)
    assert (wire.statuses, wire.closed) == ([200] * 3, False)


def test_transport_is_paused_while_the_peer_does_not_read(served: ServedSite) -> None:
    """Otherwise its requests would be buffered until the deadline."""
    request = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n"
    wire = served.connect()
    sent = 0
    while wire.producerState == "producing":
        wire.send(request)
        sent += 1
        assert sent < 10
    wire.read()
    assert wire.producerState == "producing"
    assert wire.send(GET).statuses == [200] * (sent + 1)


def test_transport_is_paused_while_the_peer_pipelines(served: ServedSite) -> None:
    wire = served.connect().send(b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n")
    sent = 0
    while wire.producerState == "producing":
        wire.send(b"G")
        sent += 1
        assert sent < 100
    assert sent > 10
    served.page.later[0].finish()
    assert wire.producerState == "producing"


# Connections.


def waiting(served: ServedSite, count: int, host: str = "192.0.2.1") -> list[Wire]:
    return [served.connect(host).send(GET[:3]) for _ in range(count)]


def in_progress(served: ServedSite, count: int, host: str = "192.0.2.1") -> list[Wire]:
    request = b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n"
    return [served.connect(host).send(request) for _ in range(count)]


def test_total_number_of_connections_is_limited() -> None:
    served = ServedSite(HTTPLimits(40, 40, 0))
    for number in range(8):
        in_progress(served, 5, f"192.0.2.{number}")
    assert served.site.connections == 40
    assert served.connect("192.0.2.99").refused
    assert served.reports.refusals == [Refusal.CONNECTIONS]
    served.page.later[0].finish()
    served.advance(IDLE_TIMEOUT)
    assert served.connect("192.0.2.99").send(GET).statuses == [200]


@pytest.mark.parametrize(
    ("hosts", "other"),
    [
        (["192.0.2.1"], "192.0.2.2"),
        (["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"], "2001:db8:0:1::1"),
        (["192.0.2.1", "::ffff:192.0.2.1"], "192.0.2.2"),
    ],
)
def test_connections_of_an_address_are_limited(hosts: list[str], other: str) -> None:
    served = ServedSite(HTTPLimits(100, 10, 0))
    for number in range(10):
        in_progress(served, 1, hosts[number % len(hosts)])
    assert served.connect(hosts[0]).refused
    assert served.reports.refusals == [Refusal.ADDRESS]
    assert served.connect(other).send(GET).statuses == [200]
    served.page.later[0].finish()
    served.advance(IDLE_TIMEOUT)
    assert not served.connect(hosts[0]).refused


def test_longest_waiting_connection_of_an_address_makes_room_for_a_new_one() -> None:
    served = ServedSite(HTTPLimits(100, 10, 0))
    elsewhere = waiting(served, 1, "192.0.2.2")
    busy = in_progress(served, 5)
    first, *others = waiting(served, 5)
    served.advance(1)
    late = served.connect().send(GET)
    assert late.statuses == [200]
    assert first.closed
    assert not any(wire.closed for wire in (*elsewhere, *busy, *others))
    assert served.reports.refusals == []


def test_longest_waiting_connection_makes_room_for_a_new_one() -> None:
    served = ServedSite(HTTPLimits(40, 40, 0))
    first = waiting(served, 1)[0]
    for number in range(100):
        wire = served.connect(f"192.0.2.{number}").send(GET)
        assert wire.statuses == [200]
        assert served.site.connections <= 40
    assert first.closed
    assert served.reports.refusals == []


def test_connections_in_one_reactor_turn_are_limited() -> None:
    """A closed connection holds its file until the next reactor turn."""
    served = ServedSite(HTTPLimits(64, 32, 0))
    wires = [Wire(served.site) for _ in range(500)]
    assert served.site.connections == 40
    # The connections of one address leave slots for other addresses.
    assert served.connect("192.0.2.2").send(GET).statuses == [200]
    wires += [Wire(served.site, f"192.0.2.{number}") for number in range(200)]
    assert served.site.connections == 64
    for wire in wires:
        wire.turn()
    assert served.connect().send(GET).statuses == [200]


def test_closed_connections_leave_no_timers_and_no_entries() -> None:
    served = ServedSite(HTTPLimits(40, 10, BODY))
    for number in range(300):
        wire = served.connect(f"192.0.2.{number % 7}")
        wire.send((GET, GET[:4], post("Content-Length: 5"), b"\r\n\r\n", b"")[number % 5])
    served.advance(IDLE_TIMEOUT + READ_TIMEOUT)
    assert served.site.connections == 0
    assert not served.clock.getDelayedCalls()
    assert not served.site._waiting
    assert not served.site._leaving
    assert all(served.site._shares.take("192.0.2.1") for _ in range(10))


def test_connection_that_is_not_persistent_serves_one_request() -> None:
    served = ServedSite(HTTPLimits(40, 40, 0, persistent=False))
    wire = served.connect().send(GET + GET)
    assert (wire.statuses, wire.closed) == ([200], True)
    assert b"Connection: close" in wire.text
