"""The interface of RedisConnection, tested with the real class and its test double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from tests.unit.fakes import FakeRedis
from tracker.errors import Refused, Unavailable
from tracker.observe.health import Condition
from tracker.redis.address import RedisAddress
from tracker.redis.connection import MIN_RETRY_DELAY, RedisConnection


class DoubleSubject:
    """The test double."""

    def __init__(self) -> None:
        self.redis: Any = FakeRedis(connected=False)

    def connect(self) -> None:
        self.redis.reconnect()

    def lose(self) -> None:
        self.redis.lose()

    def reply(self, value: bytes) -> None:
        _, deferred = self.redis.commands.pop(0)
        deferred.callback(value)

    def refuse(self, error: str) -> None:
        _, deferred = self.redis.commands.pop(0)
        deferred.errback(Refused(error))


class RealSubject:
    """The real connection, with a server whose replies the test sends."""

    def __init__(self) -> None:
        self._reactor = cast("Any", MemoryReactorClock())
        self.redis: Any = RedisConnection(
            self._reactor, RedisAddress(path="/run/redis.sock"), Condition()
        )
        self.redis.startService()
        self._clients = 0

    def connect(self) -> None:
        self._reactor.advance(MIN_RETRY_DELAY)
        self._clients += 1
        (_, factory, *_) = self._reactor.unixClients[self._clients - 1]
        self._transport = StringTransport()
        self._protocol = factory.buildProtocol(None)
        self._protocol.makeConnection(self._transport)
        self._protocol.dataReceived(b"+PONG\r\n")
        self._protocol.dataReceived(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")

    def lose(self) -> None:
        self._protocol.connectionLost(Failure(ConnectionLost()))

    def reply(self, value: bytes) -> None:
        self._protocol.dataReceived(b"$%d\r\n%s\r\n" % (len(value), value))

    def refuse(self, error: str) -> None:
        self._protocol.dataReceived(f"-{error}\r\n".encode())


Subject = DoubleSubject | RealSubject


@pytest.fixture(params=[DoubleSubject, RealSubject])
def subject(request: pytest.FixtureRequest) -> Subject:
    make: Callable[[], Subject] = request.param
    return make()


class Captured:
    """Result or error of a Deferred."""

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.fired = False
        deferred.addBoth(self._fire)

    def _fire(self, result: Any) -> None:
        self.fired = True
        if isinstance(result, Failure):
            self.error = result.value
        else:
            self.value = result


def test_command_without_connection_fails_at_once(subject: Subject) -> None:
    assert not subject.redis.connected
    assert isinstance(Captured(subject.redis.execute("GET", "a")).error, Unavailable)
    subject.connect()
    assert subject.redis.connected


def test_connection_counts_its_connects(subject: Subject) -> None:
    counts = [subject.redis.connections]
    for _ in range(2):
        subject.connect()
        counts.append(subject.redis.connections)
        subject.lose()
    assert counts == [0, 1, 2]


def test_replies_are_matched_in_order(subject: Subject) -> None:
    subject.connect()
    results = [Captured(subject.redis.execute("GET", key)) for key in "abc"]
    assert not any(one.fired for one in results)
    for value in (b"1", b"2", b"3"):
        subject.reply(value)
    assert [one.value for one in results] == [b"1", b"2", b"3"]


def test_refused_command_keeps_the_connection(subject: Subject) -> None:
    subject.connect()
    refused, answered = (Captured(subject.redis.execute("GET", key)) for key in "ab")
    subject.refuse("WRONGTYPE Operation against a key")
    subject.reply(b"1")
    assert isinstance(refused.error, Refused)
    assert answered.value == b"1"
    assert subject.redis.connected


def test_lost_connection_fails_commands_under_way(subject: Subject) -> None:
    subject.connect()
    results = [Captured(subject.redis.execute("GET", key)) for key in "ab"]
    subject.lose()
    assert all(isinstance(one.error, Unavailable) for one in results)
    assert not subject.redis.connected


def test_next_connection_fires_all_waiting_deferreds(subject: Subject) -> None:
    waiting = [Captured(subject.redis.when_connected()) for _ in range(2)]
    assert not any(one.fired for one in waiting)
    subject.connect()
    assert all(one.fired for one in waiting)
    assert Captured(subject.redis.when_connected()).fired
    subject.lose()
    assert not Captured(subject.redis.when_connected()).fired


def test_wait_for_a_connection_is_cancellable(subject: Subject) -> None:
    deferred = subject.redis.when_connected()
    result = Captured(deferred)
    deferred.cancel()
    assert isinstance(result.error, CancelledError)
    subject.connect()


def test_callback_of_one_wait_may_cancel_another_wait(subject: Subject) -> None:
    waiting = [subject.redis.when_connected() for _ in range(3)]
    waiting[0].addCallback(lambda _: waiting[1].cancel())
    results = [Captured(one) for one in waiting]
    subject.connect()
    assert [type(one.error) for one in results] == [type(None), CancelledError, type(None)]
    assert all(one.fired for one in results)
