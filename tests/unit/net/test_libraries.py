"""Private parts of libraries that this project uses."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool
from twisted.web.http import HTTPFactory, Request
from zope.interface import implementer

from tracker.net.libraries import CheckedChannel, QuietPool, RequestNotSent


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Connects at once, and starts and stops the factory like a connection."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        protocolFactory.doStart()
        protocol: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        protocol.makeConnection(StringTransport())
        protocolFactory.doStop()
        return succeed(protocol)


def connection(pool: type[HTTPConnectionPool]) -> Any:
    connections: list[Any] = []
    pool(MemoryReactorClock()).getConnection("key", Endpoint()).addCallback(connections.append)
    return connections[0]


@pytest.mark.parametrize(("pool", "lines"), [(HTTPConnectionPool, 2), (QuietPool, 0)])
def test_connection_pool_logs_nothing_about_its_connections(
    pool: type[HTTPConnectionPool], lines: int
) -> None:
    with capturedLogs() as logged:
        connection(pool)
    assert len(logged) == lines


def test_request_on_a_lost_connection_is_not_sent() -> None:
    lost = connection(QuietPool)
    lost.connectionLost(Failure(ConnectionDone()))
    failed: list[Failure] = []
    lost.request(None).addErrback(failed.append)
    assert failed[0].check(RequestNotSent)


class Channel(CheckedChannel):
    """Records the error of a malformed request."""

    error = ""

    def malformed(self, reason: str) -> None:
        self.error = reason
        self.loseConnection()


class WaitingRequest(Request):
    """A request without a response."""

    def process(self) -> None:
        pass


def connected_channel() -> Channel:
    channel = Channel()
    channel.factory = HTTPFactory(reactor=Clock())
    channel.requestFactory = WaitingRequest
    channel.makeConnection(StringTransport())
    return channel


@pytest.mark.parametrize(
    "data",
    [
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nno field\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_channel_reports_a_malformed_request(data: bytes) -> None:
    channel = connected_channel()
    channel.dataReceived(data)
    assert channel.error == "the request is malformed"
    assert isinstance(channel.transport, StringTransport)
    assert channel.transport.value() == b""


def test_channel_reports_a_line_that_is_too_long() -> None:
    channel = connected_channel()
    channel.dataReceived(b"GET /" + b"x" * channel.MAX_LENGTH)
    assert channel.error == "a line of the head is too long"


def test_unread_returns_the_bytes_after_a_request() -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    channel = connected_channel()
    channel.dataReceived(request)
    assert channel.unread() == b""
    channel.dataReceived(request + b"GET")
    assert channel.unread() == request + b"GET"
