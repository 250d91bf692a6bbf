"""Malformed requests to the console: their status, and the lines in the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from twisted.logger import LogEvent, capturedLogs, eventAsText

from tests.unit.console.browsing import DEVICE, HOST, Browser, Server
from tests.unit.net.wires import Wire, errors
from tracker.console.requests import CONSOLE_LIMITS, TEXT_HEADERS
from tracker.observe.ratelimit import MAX_LINES

HEAD = f"GET /api/session HTTP/1.1\r\nHost: {HOST}\r\n".encode()
COMMAND = b'{"device_id":"356307042441013","text":"getinfo"}'


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture(autouse=True)
def logged() -> Iterator[Sequence[LogEvent]]:
    """Collect logged events, and check that none is a failure."""
    with capturedLogs() as events:
        yield events
    assert not errors(events)


def ask(server: Server, data: bytes) -> tuple[int, str]:
    """Send a request; return the status and error of the response."""
    wire = Wire(server.site).send(data)
    (status,) = wire.statuses
    return status, wire.json["error"]


def lines(logged: Sequence[LogEvent]) -> list[str]:
    return [text for event in logged if (text := eventAsText(event)).count("console: refused")]


BAD = [
    *(HEAD + name + b": \xff\xfe\r\n\r\n" for name in TEXT_HEADERS if name != b"host"),
    *(HEAD + name + b": a\r\n" + name + b": a\r\n\r\n" for name in TEXT_HEADERS),
    b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
    HEAD + b"Content-Type: application/json\rX: y\r\n\r\n",
    HEAD + b"Content-Type: application/json\n X: y\r\n\r\n",
    HEAD.replace(b"session", b"devices?text=%ff") + b"\r\n",
    HEAD.replace(b"session", b"devices/%ff%fe") + b"\r\n",
    HEAD.replace(b"session", b"commands/c1?device_id=%c3") + b"\r\n",
]


@pytest.mark.parametrize("data", BAD)
def test_malformed_head_is_answered_400(
    server: Server, logged: Sequence[LogEvent], data: bytes
) -> None:
    assert ask(server, data)[0] == 400
    assert len(lines(logged)) == 1


def test_chunked_body_is_accepted(server: Server) -> None:
    browser = Browser(server)
    browser.load_page()
    head = "".join(f"{name}: {value}\r\n" for name, value in browser.headers().items())
    start = f"POST /api/commands HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    wire = Wire(server.site).send(start + b"%x\r\n%s\r\n0\r\n\r\n" % (len(COMMAND), COMMAND))
    assert wire.statuses == [200]
    assert server.ports.sent == [(DEVICE, "getinfo")]
    limit = CONSOLE_LIMITS.body
    assert ask(server, start + b"%x\r\n%s\r\n" % (limit + 1, b" " * (limit + 1)))[0] == 413


@pytest.mark.parametrize(
    "path",
    [
        *("devices?limit=x", "devices?limit=-1", "devices?limit=1&limit=2", "devices?text=a&text="),
        *("devices?limit=%D9%A3", "devices?order=speed", "devices?text=%00", "devices?after=x"),
        *('devices?after=["x","y"]', "devices?after=-1", "devices?after=99999999999999999999"),
        *(f"devices/{DEVICE}/track?hours={one}" for one in ("", "x", "1e3", "inf", "-1", "1_0")),
        *("commands/%80", "commands/%C3%A9", f"commands/{'x' * 65}", "commands/c1?device_id=x"),
        *("devices/%E2%82%AC", "devices/1", f"devices/{DEVICE}0", "devices/1/frames"),
    ],
)
def test_malformed_parameter_is_answered_400(
    server: Server, logged: Sequence[LogEvent], path: str
) -> None:
    data = f"GET /api/{path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    assert ask(server, data)[0] == 400
    assert len(lines(logged)) == 1


@pytest.mark.parametrize("host", ["evil.example", "", "a..b", "x" * 70, "[::1", HOST + "/x", "é"])
def test_host_of_another_name_is_answered_421(
    server: Server, logged: Sequence[LogEvent], host: str
) -> None:
    status, error = ask(server, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert status == 421
    assert "--host-name" in error
    assert len(lines(logged)) == 1


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "-", "xn--\N{LATIN SMALL LETTER A}"])
def test_host_that_is_not_a_domain_name_causes_no_internal_error(host: str) -> None:
    """Check names that are not domain names; over TLS the console accepts all names."""
    wire = Wire(Server(names=(host,)).site)
    wire.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert wire.statuses == [200]


@pytest.mark.parametrize("path", ["/api//devices", "/static", "/api/devices/"])
def test_unknown_path_is_refused_without_a_redirect(server: Server, path: str) -> None:
    assert ask(server, f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())[0] == 404


def test_foreign_cookie_is_not_a_login(server: Server) -> None:
    for value in (b"\xff", b"a.b", b"\xff.\xff", b".", b"=" * 5000):
        wire = Wire(server.site).send(HEAD + b"Cookie: tracker-9120=" + value + b"\r\n\r\n")
        assert wire.statuses == [200]
        assert b"Set-Cookie: tracker-9120=" in wire.text


def test_log_lines_that_peers_cause_are_bounded(server: Server, logged: Sequence[LogEvent]) -> None:
    for _ in range(MAX_LINES):
        for data in BAD:
            ask(server, data)
    assert len(lines(logged)) == MAX_LINES
    server.clock.advance(61)
    ask(server, BAD[0])
    suppressed = MAX_LINES * (len(BAD) - 1)
    assert str(suppressed) in lines(logged)[-1]
    assert not any("\xff" in line or "x" * 30 in line for line in lines(logged))
