"""The private parts of libraries that are used are as they were."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool
from zope.interface import implementer

from tracker.net.libraries import QuietPool, RequestNotSent


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
