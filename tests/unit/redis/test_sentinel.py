"""Votes of several Sentinels, without sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tracker.redis.sentinel import (
    AGREEMENT_TIMEOUT,
    SENTINEL_TIMEOUT,
    MasterNotFound,
    SentinelEndpoint,
)

OLD = b"*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n"
NEW = b"*2\r\n$8\r\n10.0.0.2\r\n$4\r\n6380\r\n"
UNKNOWN = b"*-1\r\n"


@implementer(IStreamClientEndpoint)
@define
class FakeSentinel:
    """A Sentinel whose replies the test sends; with a failure it accepts no connection."""

    failure: Exception | None = None
    protocol: Any = None
    transport: StringTransport = field(factory=StringTransport)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        if self.failure is not None:
            return fail(self.failure)
        self.protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "10.0.0.9", 26_379))
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)

    def reply(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    @property
    def disconnected(self) -> bool:
        return self.transport.disconnecting or self.transport.disconnected


@implementer(IStreamClientEndpoint)
@define
class FakeServer:
    failure: Exception | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        return succeed("connected") if self.failure is None else fail(self.failure)


class SentinelBench:
    """Three Sentinels, and the servers that were connected to."""

    def __init__(self, password: str | None = None) -> None:
        self.clock = Clock()
        self.sentinels = [FakeSentinel() for _ in range(3)]
        self.server = FakeServer()
        self.connected_to: list[tuple[str, int]] = []
        named = {f"s{number}": one for number, one in enumerate(self.sentinels, 1)}
        self.endpoint = SentinelEndpoint(
            self.clock, "main", named, server=self._server, password=password
        )
        self.results: list[Any] = []

    def _server(self, host: str, port: int) -> FakeServer:
        self.connected_to.append((host, port))
        return self.server

    def connect(self) -> Deferred[Any]:
        return self.endpoint.connect(Factory()).addBoth(self.results.append)

    @property
    def reason(self) -> str:
        (failure,) = self.results
        assert isinstance(failure, Failure)
        assert failure.check(MasterNotFound)
        return failure.getErrorMessage()


@pytest.fixture
def bench() -> SentinelBench:
    return SentinelBench()


def test_sentinel_endpoint_provides_its_interface(bench: SentinelBench) -> None:
    assert verifyObject(IStreamClientEndpoint, bench.endpoint)


def test_two_agreeing_sentinels_of_three_determine_the_master(bench: SentinelBench) -> None:
    bench.connect()
    assert bench.sentinels[0].transport.value() == (
        b"*3\r\n$8\r\nSENTINEL\r\n$23\r\nGET-MASTER-ADDR-BY-NAME\r\n$4\r\nmain\r\n"
    )
    bench.sentinels[2].reply(NEW)
    assert bench.connected_to == []
    bench.sentinels[0].reply(NEW)
    assert bench.connected_to == [("10.0.0.2", 6380)]
    assert bench.results == ["connected"]
    assert all(sentinel.disconnected for sentinel in bench.sentinels)
    assert not bench.clock.getDelayedCalls()


def test_sentinel_that_missed_the_failover_is_outvoted(bench: SentinelBench) -> None:
    bench.connect()
    for sentinel, reply in zip(bench.sentinels, (OLD, NEW, NEW), strict=True):
        sentinel.reply(reply)
    assert bench.connected_to == [("10.0.0.2", 6380)]


def test_hanging_sentinels_delay_the_decision_by_half_a_second(bench: SentinelBench) -> None:
    bench.connect()
    bench.sentinels[1].reply(NEW)
    bench.clock.advance(AGREEMENT_TIMEOUT - 0.01)
    assert bench.connected_to == []
    bench.clock.advance(0.01)
    assert bench.connected_to == [("10.0.0.2", 6380)]
    assert not bench.clock.getDelayedCalls()


def test_refusing_sentinels_do_not_delay_the_decision(bench: SentinelBench) -> None:
    bench.sentinels[0].failure = bench.sentinels[2].failure = ConnectError()
    bench.connect()
    bench.sentinels[1].reply(NEW)
    assert bench.results == ["connected"]
    assert not bench.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (UNKNOWN, "unknown master main"),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH Authentication required"),
        (b"+OK\r\n", "not a Sentinel"),
        (b"*1\r\n$1\r\nx\r\n", "not a Sentinel"),
        (b"-ERR unknown command 'SENTINEL'\r\n", "ERR unknown command 'SENTINEL'"),
    ],
)
def test_missing_master_is_reported_in_one_line(
    bench: SentinelBench, reply: bytes, reason: str
) -> None:
    bench.sentinels[0].failure = ConnectTimeout()
    bench.connect()
    bench.sentinels[2].reply(reply)
    bench.clock.advance(SENTINEL_TIMEOUT)
    assert bench.reason == (
        "no Sentinel names the master: s1: the connection timed out; "
        f"s2: no reply within 2s; s3: {reason}"
    )
    assert not bench.clock.getDelayedCalls()
    assert all(sentinel.disconnected for sentinel in bench.sentinels[1:])


def test_lost_connection_to_a_sentinel_is_reported(bench: SentinelBench) -> None:
    bench.sentinels[0].failure = bench.sentinels[1].failure = ConnectError()
    bench.connect()
    bench.sentinels[2].protocol.connectionLost(Failure(ConnectionDone()))
    assert bench.reason.endswith("s3: connection lost: Connection was closed cleanly.")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(ConnectTimeout(), "the connection timed out"), (ValueError("broken"), "broken")],
)
def test_error_names_a_master_that_cannot_be_reached(
    bench: SentinelBench, failure: Exception, reason: str
) -> None:
    bench.server.failure = failure
    bench.connect()
    for sentinel in bench.sentinels[:2]:
        sentinel.reply(OLD)
    assert bench.reason == f"the master 10.0.0.1:6379: {reason}"


def test_password_is_sent_before_the_query() -> None:
    bench = SentinelBench(password="s3cret")
    bench.connect()
    (first, second, third) = bench.sentinels
    assert first.transport.value() == b"*2\r\n$4\r\nAUTH\r\n$6\r\ns3cret\r\n"
    first.reply(b"-WRONGPASS invalid username-password pair\r\n")
    for sentinel in (second, third):
        sentinel.reply(b"+OK\r\n")
        sentinel.reply(NEW)
    assert bench.results == ["connected"]


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ((OLD, OLD), None),
        ((NEW, NEW), "replaced; the master is now 10.0.0.2:6380"),
        ((UNKNOWN, UNKNOWN, UNKNOWN), None),
    ],
)
def test_master_is_confirmed_unless_sentinels_name_another_one(
    bench: SentinelBench, replies: tuple[bytes, ...], reason: str | None
) -> None:
    bench.connect()
    for sentinel in bench.sentinels[:2]:
        sentinel.reply(OLD)
    confirmed: list[Any] = []
    Deferred.fromCoroutine(bench.endpoint.confirm()).addBoth(confirmed.append)
    for sentinel, reply in zip(bench.sentinels, replies, strict=False):
        sentinel.reply(reply)
    (result,) = confirmed
    assert (result and result.getErrorMessage()) == reason
    assert not bench.clock.getDelayedCalls()


def immediately(bench: SentinelBench) -> None:
    pass


def after_one_reply(bench: SentinelBench) -> None:
    bench.sentinels[0].reply(NEW)


@pytest.mark.parametrize("before", [immediately, after_one_reply])
def test_connecting_is_cancellable(
    bench: SentinelBench, before: Callable[[SentinelBench], None]
) -> None:
    connecting = bench.connect()
    before(bench)
    connecting.cancel()
    assert isinstance(bench.results[0], Failure)
    assert bench.connected_to == []
    assert all(sentinel.disconnected for sentinel in bench.sentinels)
    assert not bench.clock.getDelayedCalls()
