"""Dispatch of requests by a table of paths and methods."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.web.http import NOT_FOUND, OK
from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.unit.net.wires import FakeReports, Wire, errors
from tracker.net.http import BoundedSite, HTTPLimits
from tracker.net.routes import Routes, respond


class RoutedSite:
    """A site with some routes."""

    def __init__(self) -> None:
        self.reports = FakeReports()
        self.later: Deferred[Any] = Deferred(self._cancel)
        self.cancelled = 0
        self.result_of_cancel: bytes | None = None
        routes = Routes(
            {
                "/": {b"GET": lambda request: respond(request, OK, b"root")},
                "/a/([^/]+)": {b"GET": self.name, b"POST": self.name},
                "/b": {b"POST": self.wait},
                "/fault": {b"GET": self.fault},
            },
            lambda request, status, name: respond(request, status, f"{status} {name}".encode()),
        )
        routes.putChild(b"child", Child())
        limits = HTTPLimits(connections=8, per_address=8, body=100)
        self.site = BoundedSite(routes, Clock(), limits, self.reports)

    def name(self, request: Request, name: str) -> bytes:
        return respond(request, OK, name.encode(), b"text/plain")

    async def wait(self, request: Request) -> bytes | None:
        body = await self.later
        return None if body is None else respond(request, OK, body)

    def fault(self, request: Request) -> bytes:
        raise RuntimeError("an error")

    def _cancel(self, later: Deferred[Any]) -> None:
        self.cancelled += 1
        if self.result_of_cancel is not None:
            later.callback(self.result_of_cancel)

    def request(self, path: str, method: str = "GET") -> Wire:
        return Wire(self.site).send(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())


class Child(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        return b"child"


@pytest.fixture
def served() -> Iterator[RoutedSite]:
    with capturedLogs() as logged:
        yield RoutedSite()
        gc.collect()  # unhandled errors are logged when their Deferred is freed
    assert not errors(logged)


def body(wire: Wire) -> bytes:
    return wire.text.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", b"root"),
        ("//", b"root"),
        ("/a/b", b"b"),
        ("//a/b", b"b"),
        ("/%61/b%20c", b"b c"),
        ("/a/%E2%82%AC?x=1", "€".encode()),
        ("/child/x/y", b"child"),
    ],
)
def test_path_is_matched_after_decoding(served: RoutedSite, path: str, expected: bytes) -> None:
    wire = served.request(path)
    assert wire.statuses == [200]
    assert body(wire) == expected


@pytest.mark.parametrize("path", ["/a", "/a/", "/a//b", "/a/b/", "/a/b%2fc", "/a/b/c", "/b/"])
def test_path_without_a_route_is_not_found(served: RoutedSite, path: str) -> None:
    wire = served.request(path)
    assert wire.statuses == [NOT_FOUND]
    assert body(wire) == b"404 not found"


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [("/a/b", "PUT", b"GET, POST, HEAD"), ("/b", "GET", b"POST"), ("/b", "post", b"POST")],
)
def test_response_405_lists_the_allowed_methods(
    served: RoutedSite, path: str, method: str, allowed: bytes
) -> None:
    wire = served.request(path, method)
    assert wire.statuses == [405]
    assert b"\r\nAllow: " + allowed + b"\r\n" in wire.value()
    assert body(wire) == b"405 method not allowed"


def test_head_gets_the_response_of_get_without_a_body(served: RoutedSite) -> None:
    wire = served.request("/a/b", "HEAD")
    assert wire.statuses == [200]
    assert b"Content-Length: 1\r\n" in wire.value()
    assert body(wire) == b""


def test_handler_may_return_a_deferred(served: RoutedSite) -> None:
    wire = served.request("/b", "POST")
    assert wire.value() == b""
    served.later.callback(b"at last")
    assert body(wire) == b"at last"
    assert not served.reports.failures


@pytest.mark.parametrize("anyway", [None, b"too late"])
def test_handler_is_cancelled_if_the_peer_disconnects(
    served: RoutedSite, anyway: bytes | None
) -> None:
    served.result_of_cancel = anyway
    wire = served.request("/b", "POST")
    wire.lose()
    assert served.cancelled == 1
    assert wire.value() == b""
    assert not served.reports.failures


def test_error_is_reported_and_not_sent_to_the_peer(served: RoutedSite) -> None:
    wire = served.request("/fault")
    assert wire.statuses == [500]
    assert b"an error" not in wire.value()
    (failure,) = served.reports.failures
    assert failure.check(RuntimeError)


def test_error_of_a_deferred_response_is_reported(served: RoutedSite) -> None:
    wire = served.request("/b", "POST")
    served.later.errback(RuntimeError("an error"))
    assert wire.statuses == [500]
    assert len(served.reports.failures) == 1
