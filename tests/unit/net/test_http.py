"""Limits of an HTTP server: bytes, time and connections of peers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tests.unit.net.wires import FULL, Told, Wire, trouble
from tracker.net.http import MAX_FIELDS, MAX_HEAD, MAX_LINE, BoundedSite, HTTPLimits
from tracker.net.refusals import Refusal
from tracker.net.waits import BODY_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, READ_TIMEOUT

BODY = 1000
GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


class Page(Resource):
    """Answers as each test needs it."""

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
            raise RuntimeError("a fault of ours, at /var/lib")
        return b"x" * 50_000 if request.path == b"/large" else b"page\n"

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        self.bodies.append(request.content.read())
        return b"taken\n"


class Place:
    """A site, and connections to it."""

    def __init__(self, limits: HTTPLimits | None = None) -> None:
        self.clock = Clock()
        self.told = Told()
        self.page = Page()
        self.wires: list[Wire] = []
        self.site = BoundedSite(
            self.page, self.clock, limits or HTTPLimits(100, 100, BODY), self.told
        )

    def connect(self, host: str = "192.0.2.1") -> Wire:
        wire = Wire(self.site, host)
        self.turn()
        self.wires = [one for one in (*self.wires, wire) if not one.closed]
        return wire

    def pass_(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(2 * seconds))
        self.turn()

    def turn(self) -> None:
        for wire in self.wires:
            wire.turn()


@pytest.fixture
def place() -> Iterator[Place]:
    with capturedLogs() as logged:
        yield Place()
    assert not trouble(logged)


def post(*fields: str) -> bytes:
    return "\r\n".join(("POST / HTTP/1.1", "Host: here", *fields, "", "")).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# Bodies.


def test_body_up_to_the_limit_is_taken(place: Place) -> None:
    wire = place.connect().send(post(f"Content-Length: {BODY}") + b"x" * BODY)
    wire.send(post("Transfer-Encoding: chunked") + chunk(b"x" * BODY) + b"0\r\n\r\n")
    assert wire.statuses == [200, 200]
    assert place.page.bodies == [b"x" * BODY] * 2
    assert place.told.refusals == []


@pytest.mark.parametrize("length", [str(BODY + 1), str(10**15), "9" * 18, "9" * 19, "9" * 5000])
def test_announced_body_over_the_limit_is_refused_before_it_is_read(
    place: Place, length: str
) -> None:
    wire = place.connect().send(post(f"Content-Length: {length}", "Expect: 100-continue"))
    assert (wire.statuses, wire.closed) == ([413], True)
    assert wire.answer["error"]
    assert place.told.refusals == [Refusal.TOO_LARGE]


def test_chunked_body_over_the_limit_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(tempfile, "TemporaryFile")  # Twisted's place for bodies of 100 kB
    wire = place.connect().send(post("Transfer-Encoding: chunked"))
    for _ in range(5):
        wire.send(chunk(b"x" * (BODY // 5)))
    assert wire.statuses == []
    wire.send(chunk(b"x") * 3 + b"0\r\n\r\n" + GET)
    assert (wire.statuses, wire.closed) == ([413], True)
    assert place.page.bodies == []
    assert place.told.refusals == [Refusal.TOO_LARGE]


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
def test_malformed_request_is_answered_400_and_closed(
    place: Place, data: bytes, at_once: bool
) -> None:
    wire = place.connect()
    for part in [data] if at_once else [data[at : at + 1] for at in range(len(data))]:
        wire.send(part)
    assert (wire.statuses, wire.closed) == ([400], True)
    assert wire.answer["error"]
    assert place.told.refusals == [Refusal.MALFORMED]
    assert place.told.failures == []


@pytest.mark.parametrize("value", ["a\x0bb", "multipart/form-data", "a\x85b", "x" * 4000])
def test_type_of_a_body_is_not_parsed(place: Place, value: str) -> None:
    data = post("Content-Length: 2", f"Content-Type: {value}").decode().encode("latin-1")
    wire = place.connect().send(data + b"{}")
    assert wire.statuses == [200]


def test_fault_of_ours_is_reported_and_not_shown(place: Place) -> None:
    wire = place.connect().send(b"GET /fault HTTP/1.1\r\nHost: here\r\n\r\n")
    assert wire.statuses == [500]
    assert b"/var/lib" not in wire.text
    (failure,) = place.told.failures
    assert failure.check(RuntimeError)


def test_fault_while_a_request_is_parsed_is_reported_and_closes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(Request, "parseCookies", fails)
    wire = place.connect().send(GET)
    assert (wire.closed, len(place.told.failures)) == (True, 1)


def test_answers_name_no_software(place: Place) -> None:
    assert b"server:" not in place.connect().send(GET).text.lower()


def test_http_2_is_not_negotiated(place: Place) -> None:
    """HTTP/2 would have another channel, without these limits."""
    assert place.site.acceptableProtocols() == [b"http/1.1"]


# Time.


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nX: ", GET[:-1]])
def test_head_that_takes_too_long_is_cut_off_whatever_comes(place: Place, begun: bytes) -> None:
    wire = place.connect().send(begun)
    for _ in range(int(HEAD_TIMEOUT) - 1):
        place.pass_(1)
        wire.send(b"x")
        assert not wire.closed
    place.pass_(1)
    assert wire.closed
    assert place.told.refusals == [Refusal.OVERDUE]


def test_peer_that_sends_nothing_is_cut_off(place: Place) -> None:
    """A connection whose TLS handshake does not end is such a one."""
    wire = place.connect()
    place.pass_(HEAD_TIMEOUT)
    assert (wire.closed, wire.text) == (True, b"")
    assert place.told.refusals == []


@pytest.mark.parametrize("field", ["Content-Length: 500", "Transfer-Encoding: chunked"])
def test_body_that_takes_too_long_is_cut_off_whatever_comes(place: Place, field: str) -> None:
    wire = place.connect().send(post(field))
    for _ in range(int(BODY_TIMEOUT) - 1):
        place.pass_(1)
        wire.send(b"1\r\nx\r\n")
        assert not wire.closed
    place.pass_(1)
    assert (wire.closed, wire.text) == (True, b"")
    assert place.told.refusals == [Refusal.OVERDUE]


def test_body_has_a_deadline_of_its_own(place: Place) -> None:
    head, body = post("Content-Length: 5"), b"12345"
    wire = place.connect().send(head[:-1])
    place.pass_(HEAD_TIMEOUT - 1)
    wire.send(head[-1:] + body[:-1])
    place.pass_(BODY_TIMEOUT - 1)
    wire.send(body[-1:])
    assert wire.statuses == [200]
    assert place.page.bodies == [body]


def test_idle_connection_is_closed_and_the_next_request_has_a_deadline(place: Place) -> None:
    idle, slow = place.connect().send(GET), place.connect().send(GET)
    place.pass_(IDLE_TIMEOUT - 1)
    assert not idle.closed
    slow.send(GET[:5])
    place.pass_(1)
    assert (idle.closed, slow.closed) == (True, False)
    place.pass_(HEAD_TIMEOUT - 1)
    assert slow.closed
    assert place.told.refusals == [Refusal.OVERDUE]


def test_answer_may_take_us_any_time(place: Place) -> None:
    wire = place.connect().send(b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n")
    (request,) = place.page.later
    for _ in range(100):
        place.pass_(100)
        request.write(b"an event\n")
        wire.read()
    assert not wire.closed
    request.finish()
    place.pass_(IDLE_TIMEOUT)
    assert wire.closed


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("field", [b"", b"Connection: close\r\n"])
def test_peer_that_does_not_read_is_cut_off(place: Place, ends: bool, field: bytes) -> None:
    wire = place.connect()
    wire.send(b"GET /later HTTP/1.1\r\nHost: here\r\n" + field + b"\r\n")
    (request,) = place.page.later
    request.write(b"x" * (FULL + 1))
    if ends:
        request.finish()
    place.pass_(READ_TIMEOUT - 1)
    wire.turn()
    assert not wire.closed
    place.pass_(1)
    assert wire.closed


def test_peer_that_reads_now_and_then_is_not_cut_off(place: Place) -> None:
    wire = place.connect().send(b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n")
    (request,) = place.page.later
    for _ in range(5):
        request.write(b"x" * (FULL + 1))
        place.pass_(READ_TIMEOUT - 1)
        wire.read()
    assert not wire.closed


def test_requests_that_come_at_once_wait_until_answers_are_read(place: Place) -> None:
    """Otherwise a thousand requests in one read would put a thousand answers into memory."""
    wire = place.connect().send(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n" * 20)
    assert len(wire.text) < 2 * FULL
    before = 0
    while len(wire.statuses) > before:
        before = len(wire.statuses)
        wire.read()
        assert len(wire.statuses) <= before + 2
    assert wire.statuses == [200] * 20
    assert place.told.failures == []


def test_peer_that_sends_ahead_is_no_longer_read(place: Place) -> None:
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


def waiting(place: Place, count: int, host: str = "192.0.2.1") -> list[Wire]:
    return [place.connect(host).send(GET[:3]) for _ in range(count)]


def working(place: Place, count: int, host: str = "192.0.2.1") -> list[Wire]:
    request = b"GET /later HTTP/1.1\r\nHost: here\r\n\r\n"
    return [place.connect(host).send(request) for _ in range(count)]


def test_connections_in_all_are_bounded() -> None:
    place = Place(HTTPLimits(40, 40, 0))
    for number in range(8):
        working(place, 5, f"192.0.2.{number}")
    assert place.site.connections == 40
    assert place.connect("192.0.2.99").refused
    assert place.told.refusals == [Refusal.CONNECTIONS]
    place.page.later[0].finish()
    place.pass_(IDLE_TIMEOUT)
    assert place.connect("192.0.2.99").send(GET).statuses == [200]


@pytest.mark.parametrize(
    ("hosts", "other"),
    [
        (["192.0.2.1"], "192.0.2.2"),
        (["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::"], "2001:db8:0:1::1"),
        (["192.0.2.1", "::ffff:192.0.2.1"], "192.0.2.2"),
    ],
)
def test_share_of_an_address_is_bounded(hosts: list[str], other: str) -> None:
    place = Place(HTTPLimits(100, 10, 0))
    for number in range(10):
        working(place, 1, hosts[number % len(hosts)])
    assert place.connect(hosts[0]).refused
    assert place.told.refusals == [Refusal.ADDRESS]
    assert place.connect(other).send(GET).statuses == [200]
    place.page.later[0].finish()
    place.pass_(IDLE_TIMEOUT)
    assert not place.connect(hosts[0]).refused


def test_connection_that_waits_longest_makes_room_within_its_share() -> None:
    place = Place(HTTPLimits(100, 10, 0))
    elsewhere = waiting(place, 1, "192.0.2.2")
    busy = working(place, 5)
    first, *others = waiting(place, 5)
    place.pass_(1)
    late = place.connect().send(GET)
    assert late.statuses == [200]
    assert first.closed
    assert not any(wire.closed for wire in (*elsewhere, *busy, *others))
    assert place.told.refusals == []


def test_connection_that_waits_longest_makes_room_for_all() -> None:
    place = Place(HTTPLimits(40, 40, 0))
    first = waiting(place, 1)[0]
    for number in range(100):
        wire = place.connect(f"192.0.2.{number}").send(GET)
        assert wire.statuses == [200]
        assert place.site.connections <= 40
    assert first.closed
    assert place.told.refusals == []


def test_connections_that_come_in_one_turn_are_bounded_all_the_same() -> None:
    """A closed connection holds its file until the next turn of the reactor."""
    place = Place(HTTPLimits(64, 32, 0))
    wires = [Wire(place.site) for _ in range(500)]
    assert place.site.connections == 40
    # Those of one address leave room for others at the same time.
    assert place.connect("192.0.2.2").send(GET).statuses == [200]
    wires += [Wire(place.site, f"192.0.2.{number}") for number in range(200)]
    assert place.site.connections == 64
    for wire in wires:
        wire.turn()
    assert place.connect().send(GET).statuses == [200]


def test_nothing_is_kept_of_connections_that_are_gone() -> None:
    place = Place(HTTPLimits(40, 10, BODY))
    for number in range(300):
        wire = place.connect(f"192.0.2.{number % 7}")
        wire.send((GET, GET[:4], post("Content-Length: 5"), b"\r\n\r\n", b"")[number % 5])
    place.pass_(IDLE_TIMEOUT + READ_TIMEOUT)
    assert place.site.connections == 0
    assert not place.clock.getDelayedCalls()
    assert not place.site._waiting
    assert not place.site._leaving
    assert all(place.site._shares.take("192.0.2.1") for _ in range(10))


def test_only_one_request_is_served_where_none_may_follow() -> None:
    place = Place(HTTPLimits(40, 40, 0, persistent=False))
    wire = place.connect().send(GET + GET)
    assert (wire.statuses, wire.closed) == ([200], True)
    assert b"Connection: close" in wire.text
