"""What is made of what several Sentinels say, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tracker.redis.sentinel import AGREEMENT_TIMEOUT, ASK_TIMEOUT, NotFound, SentinelEndpoint

OLD = b"*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n"
NEW = b"*2\r\n$8\r\n10.0.0.2\r\n$4\r\n6380\r\n"
UNKNOWN = b"*-1\r\n"


@implementer(IStreamClientEndpoint)
@define
class FakeSentinel:
    """A Sentinel that the test lets answer; or nobody, when there is a failure."""

    failure: Exception | None = None
    protocol: Any = None
    transport: StringTransport = field(factory=StringTransport)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        if self.failure is not None:
            return fail(self.failure)
        self.protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "10.0.0.9", 26_379))
        self.protocol.makeConnection(self.transport)
        return succeed(self.protocol)

    def says(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    @property
    def left(self) -> bool:
        return self.transport.disconnecting or self.transport.disconnected


@implementer(IStreamClientEndpoint)
@define
class FakeServer:
    failure: Exception | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:  # noqa: N803
        return succeed("connected") if self.failure is None else fail(self.failure)


class Bench:
    """Three Sentinels, and the places that somebody connected to."""

    def __init__(self, password: str | None = None) -> None:
        self.clock = Clock()
        self.sentinels = [FakeSentinel() for _ in range(3)]
        self.server = FakeServer()
        self.places: list[tuple[str, int]] = []
        named = {f"s{number}": one for number, one in enumerate(self.sentinels, 1)}
        self.endpoint = SentinelEndpoint(
            self.clock, "main", named, server=self._server, password=password
        )
        self.results: list[Any] = []

    def _server(self, host: str, port: int) -> FakeServer:
        self.places.append((host, port))
        return self.server

    def connect(self) -> Deferred[Any]:
        return self.endpoint.connect(Factory()).addBoth(self.results.append)

    @property
    def reason(self) -> str:
        (failure,) = self.results
        assert isinstance(failure, Failure)
        assert failure.check(NotFound)
        return failure.getErrorMessage()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_is_an_endpoint(bench: Bench) -> None:
    assert verifyObject(IStreamClientEndpoint, bench.endpoint)


def test_two_of_three_that_agree_decide(bench: Bench) -> None:
    bench.connect()
    assert bench.sentinels[0].transport.value() == (
        b"*3\r\n$8\r\nSENTINEL\r\n$23\r\nGET-MASTER-ADDR-BY-NAME\r\n$4\r\nmain\r\n"
    )
    bench.sentinels[2].says(NEW)
    assert bench.places == []
    bench.sentinels[0].says(NEW)
    assert bench.places == [("10.0.0.2", 6380)]
    assert bench.results == ["connected"]
    assert all(sentinel.left for sentinel in bench.sentinels)
    assert not bench.clock.getDelayedCalls()


def test_one_that_missed_the_failover_is_outvoted(bench: Bench) -> None:
    bench.connect()
    for sentinel, answer in zip(bench.sentinels, (OLD, NEW, NEW), strict=True):
        sentinel.says(answer)
    assert bench.places == [("10.0.0.2", 6380)]


def test_those_that_are_gone_cost_half_a_second(bench: Bench) -> None:
    bench.connect()
    bench.sentinels[1].says(NEW)
    bench.clock.advance(AGREEMENT_TIMEOUT - 0.01)
    assert bench.places == []
    bench.clock.advance(0.01)
    assert bench.places == [("10.0.0.2", 6380)]
    assert not bench.clock.getDelayedCalls()


def test_those_that_refuse_cost_nothing(bench: Bench) -> None:
    bench.sentinels[0].failure = bench.sentinels[2].failure = ConnectError()
    bench.connect()
    bench.sentinels[1].says(NEW)
    assert bench.results == ["connected"]
    assert not bench.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (UNKNOWN, "knows no master main"),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH Authentication required."),
        (b"+OK\r\n", "is no Sentinel"),
        (b"*1\r\n$1\r\nx\r\n", "is no Sentinel"),
        (b"-ERR unknown command 'SENTINEL'\r\n", "ERR unknown command 'SENTINEL'"),
    ],
)
def test_why_there_is_no_master_is_one_line(bench: Bench, answer: bytes, told: str) -> None:
    bench.sentinels[0].failure = ConnectTimeout()
    bench.connect()
    bench.sentinels[2].says(answer)
    bench.clock.advance(ASK_TIMEOUT)
    assert bench.reason == (
        "no Sentinel names the master: s1: the connection timed out; "
        f"s2: no answer within 2 s; s3: {told}"
    )
    assert not bench.clock.getDelayedCalls()
    assert all(sentinel.left for sentinel in bench.sentinels[1:])


def test_a_connection_that_ends_is_told(bench: Bench) -> None:
    bench.sentinels[0].failure = bench.sentinels[1].failure = ConnectError()
    bench.connect()
    bench.sentinels[2].protocol.connectionLost(Failure(ConnectionDone()))
    assert bench.reason.endswith("s3: connection lost: Connection was closed cleanly.")


@pytest.mark.parametrize(
    ("failure", "told"),
    [(ConnectTimeout(), "the connection timed out"), (ValueError("so"), "so")],
)
def test_a_master_that_cannot_be_reached_is_named(
    bench: Bench, failure: Exception, told: str
) -> None:
    bench.server.failure = failure
    bench.connect()
    for sentinel in bench.sentinels[:2]:
        sentinel.says(OLD)
    assert bench.reason == f"the master 10.0.0.1:6379: {told}"


def test_the_password_goes_before_the_question() -> None:
    bench = Bench(password="s3cret")
    bench.connect()
    (first, second, third) = bench.sentinels
    assert first.transport.value() == b"*2\r\n$4\r\nAUTH\r\n$6\r\ns3cret\r\n"
    first.says(b"-WRONGPASS invalid username-password pair\r\n")
    for sentinel in (second, third):
        sentinel.says(b"+OK\r\n")
        sentinel.says(NEW)
    assert bench.results == ["connected"]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ((OLD, OLD), None),
        ((NEW, NEW), "replaced, the master is 10.0.0.2:6380 now"),
        ((UNKNOWN, UNKNOWN, UNKNOWN), None),
    ],
)
def test_a_master_is_confirmed_unless_another_is_named(
    bench: Bench, answers: tuple[bytes, ...], told: str | None
) -> None:
    bench.connect()
    for sentinel in bench.sentinels[:2]:
        sentinel.says(OLD)
    confirmed: list[Any] = []
    Deferred.fromCoroutine(bench.endpoint.confirm()).addBoth(confirmed.append)
    for sentinel, answer in zip(bench.sentinels, answers, strict=False):
        sentinel.says(answer)
    (result,) = confirmed
    assert (result and result.getErrorMessage()) == told
    assert not bench.clock.getDelayedCalls()


def cancel_at_once(bench: Bench) -> None:
    pass


def cancel_after_an_answer(bench: Bench) -> None:
    bench.sentinels[0].says(NEW)


@pytest.mark.parametrize("before", [cancel_at_once, cancel_after_an_answer])
def test_it_can_be_cancelled(bench: Bench, before: Callable[[Bench], None]) -> None:
    connecting = bench.connect()
    before(bench)
    connecting.cancel()
    assert isinstance(bench.results[0], Failure)
    assert bench.places == []
    assert all(sentinel.left for sentinel in bench.sentinels)
    assert not bench.clock.getDelayedCalls()
