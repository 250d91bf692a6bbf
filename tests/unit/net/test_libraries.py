"""The private parts of libraries that are used are as they were."""

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
    """Connects at once, and starts and stops the factory as a connection does."""

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        protocolFactory.doStart()
        protocol: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        protocol.makeConnection(StringTransport())
        protocolFactory.doStop()
        return succeed(protocol)


def connection(pool: type[HTTPConnectionPool]) -> Any:
    made: list[Any] = []
    pool(MemoryReactorClock()).getConnection("key", Endpoint()).addCallback(made.append)
    return made[0]


@pytest.mark.parametrize(("pool", "lines"), [(HTTPConnectionPool, 2), (QuietPool, 0)])
def test_pool_logs_nothing_about_its_connections(
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


class Told(CheckedChannel):
    """Notes that a request was malformed."""

    told = ""

    def malformed(self, why: str) -> None:
        self.told = why
        self.loseConnection()


class Waiting(Request):
    """A request that is not answered."""

    def process(self) -> None:
        pass


def channel() -> Told:
    made = Told()
    made.factory = HTTPFactory(reactor=Clock())
    made.requestFactory = Waiting
    made.makeConnection(StringTransport())
    return made


@pytest.mark.parametrize(
    "data",
    [
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nno field\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    ],
)
def test_what_cannot_be_parsed_is_told(data: bytes) -> None:
    made = channel()
    made.dataReceived(data)
    assert made.told == "the request is malformed"
    assert isinstance(made.transport, StringTransport)
    assert made.transport.value() == b""


def test_a_line_that_is_too_long_is_told() -> None:
    made = channel()
    made.dataReceived(b"GET /" + b"x" * made.MAX_LENGTH)
    assert made.told == "a line of the head is too long"


def test_what_comes_behind_a_request_is_unread() -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    made = channel()
    made.dataReceived(request)
    assert made.unread() == b""
    made.dataReceived(request + b"GET")
    assert made.unread() == request + b"GET"
