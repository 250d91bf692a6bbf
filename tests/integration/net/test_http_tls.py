"""Deadlines of TLS handshakes and closings of a bounded HTTP site."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from attrs import frozen
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.web.resource import Resource

from tests.certificates import certify, key_of
from tests.unit.net.wires import FakeReports, errors
from tests.waiting import until
from tracker.net import waits
from tracker.net.http import BoundedSite, HTTPLimits
from tracker.net.refusals import Refusal
from tracker.net.waits import Stage
from tracker.tap.role import loopback_endpoint

GET = b"GET /x HTTP/1.1\r\nHost: here\r\n\r\n"


@frozen
class Served:
    """A site on a port."""

    port: int
    site: BoundedSite
    reports: FakeReports
    context: ssl.SSLContext

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 20)

    def request(self) -> bytes:
        """Send a request; return the first bytes of the response."""
        with self.context.wrap_socket(self.connect(), server_hostname="127.0.0.1") as connection:
            connection.sendall(GET)
            return connection.recv(12)


@pytest_twisted.async_yield_fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """Yield a site with short deadlines, which the tests wait for."""
    from twisted.internet import reactor

    for stage in (Stage.NEW, Stage.CLOSE):
        monkeypatch.setitem(waits.STAGE_TIMEOUTS, stage, 1.0)
    certificate = certify(tmp_path, "127.0.0.1")
    reports = FakeReports()
    site = BoundedSite(Resource(), reactor, HTTPLimits(4, 2, 0), reports)
    description = f"ssl:0:privateKey={key_of(certificate)}:certKey={certificate}"
    with capturedLogs() as logged:
        port = await loopback_endpoint(reactor, "--http", description).listen(site)
        context = ssl.create_default_context(cafile=str(certificate))
        address: Any = port.getHost()
        yield Served(address.port, site, reports, context)
        stopped = port.stopListening()
        if stopped is not None:
            await stopped
        await until(lambda: site.connections == 0, "all connections are closed")
    assert not errors(logged)


def in_thread(function: Any, *arguments: Any) -> Deferred[Any]:
    return deferToThread(function, *arguments)


@ensureDeferred
async def test_request_over_tls_gets_a_response(served: Served) -> None:
    assert await in_thread(served.request) == b"HTTP/1.1 404"


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01", GET])
@ensureDeferred
async def test_unfinished_handshake_is_disconnected(served: Served, begun: bytes) -> None:
    with await in_thread(served.connect) as connection:
        connection.sendall(begun)
        await until(lambda: served.site.connections == 1 or begun == GET, "connected")
        await until(lambda: served.site.connections == 0, "disconnected")


@ensureDeferred
async def test_oldest_handshake_is_closed_for_a_new_connection(served: Served) -> None:
    silent = [await in_thread(served.connect) for _ in range(2)]
    await until(lambda: served.site.connections == 2, "both connected")
    assert await in_thread(served.request) == b"HTTP/1.1 404"
    assert served.reports.refusals == []
    for connection in silent:
        connection.close()


@ensureDeferred
async def test_connection_without_a_free_slot_is_closed_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.site, "_close_longest_wait", lambda group: False)
    silent = [await in_thread(served.connect) for _ in range(2)]
    await until(lambda: served.site.connections == 2, "both connected")
    with pytest.raises(OSError):  # noqa: PT011 - a reset, or the end during the handshake
        await in_thread(served.request)
    assert served.reports.refusals == [Refusal.ADDRESS]
    for connection in silent:
        connection.close()


@ensureDeferred
async def test_peer_that_does_not_close_its_side_is_disconnected(served: Served) -> None:
    def request() -> socket.socket:
        connection = served.context.wrap_socket(served.connect(), server_hostname="127.0.0.1")
        connection.sendall(b"GET /x HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 404"
        return connection

    with await in_thread(request):
        await until(lambda: served.site.connections == 0, "disconnected")
