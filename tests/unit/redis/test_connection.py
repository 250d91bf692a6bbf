"""What a connection to Redis promises to those who use it, and that its double keeps it."""

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
from tracker.redis.connection import FIRST_RETRY, RedisConnection


class Doubled:
    """The double."""

    def __init__(self) -> None:
        self.redis: Any = FakeRedis(connected=False)

    def connect(self) -> None:
        self.redis.return_()

    def lose(self) -> None:
        self.redis.lose()

    def answer(self, value: bytes) -> None:
        _, deferred = self.redis.commands.pop(0)
        deferred.callback(value)

    def refuse(self, why: str) -> None:
        _, deferred = self.redis.commands.pop(0)
        deferred.errback(Refused(why))


class Real:
    """The connection itself, with a server that the test plays."""

    def __init__(self) -> None:
        self._reactor = cast("Any", MemoryReactorClock())
        self.redis: Any = RedisConnection(
            self._reactor, RedisAddress(path="/run/redis.sock"), Condition()
        )
        self.redis.startService()
        self._clients = 0

    def connect(self) -> None:
        self._reactor.advance(FIRST_RETRY)
        self._clients += 1
        (_, factory, *_) = self._reactor.unixClients[self._clients - 1]
        self._transport = StringTransport()
        self._protocol = factory.buildProtocol(None)
        self._protocol.makeConnection(self._transport)
        self._protocol.dataReceived(b"+PONG\r\n")
        self._protocol.dataReceived(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")

    def lose(self) -> None:
        self._protocol.connectionLost(Failure(ConnectionLost()))

    def answer(self, value: bytes) -> None:
        self._protocol.dataReceived(b"$%d\r\n%s\r\n" % (len(value), value))

    def refuse(self, why: str) -> None:
        self._protocol.dataReceived(f"-{why}\r\n".encode())


Subject = Doubled | Real


@pytest.fixture(params=[Doubled, Real])
def subject(request: pytest.FixtureRequest) -> Subject:
    make: Callable[[], Subject] = request.param
    return make()


class Outcome:
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


def test_without_a_connection_a_command_fails_at_once(subject: Subject) -> None:
    assert not subject.redis.connected
    assert isinstance(Outcome(subject.redis.execute("GET", "a")).error, Unavailable)
    subject.connect()
    assert subject.redis.connected


def test_each_connection_is_counted(subject: Subject) -> None:
    counts = [subject.redis.connections]
    for _ in range(2):
        subject.connect()
        counts.append(subject.redis.connections)
        subject.lose()
    assert counts == [0, 1, 2]


def test_commands_are_answered_in_order(subject: Subject) -> None:
    subject.connect()
    outcomes = [Outcome(subject.redis.execute("GET", key)) for key in "abc"]
    assert not any(one.fired for one in outcomes)
    for value in (b"1", b"2", b"3"):
        subject.answer(value)
    assert [one.value for one in outcomes] == [b"1", b"2", b"3"]


def test_a_refused_command_does_not_end_the_connection(subject: Subject) -> None:
    subject.connect()
    refused, answered = (Outcome(subject.redis.execute("GET", key)) for key in "ab")
    subject.refuse("WRONGTYPE Operation against a key")
    subject.answer(b"1")
    assert isinstance(refused.error, Refused)
    assert answered.value == b"1"
    assert subject.redis.connected


def test_commands_under_way_fail_with_the_connection(subject: Subject) -> None:
    subject.connect()
    outcomes = [Outcome(subject.redis.execute("GET", key)) for key in "ab"]
    subject.lose()
    assert all(isinstance(one.error, Unavailable) for one in outcomes)
    assert not subject.redis.connected


def test_all_who_wait_for_a_connection_learn_of_the_next_one(subject: Subject) -> None:
    waiting = [Outcome(subject.redis.when_connected()) for _ in range(2)]
    assert not any(one.fired for one in waiting)
    subject.connect()
    assert all(one.fired for one in waiting)
    assert Outcome(subject.redis.when_connected()).fired
    subject.lose()
    assert not Outcome(subject.redis.when_connected()).fired


def test_waiting_for_a_connection_can_be_cancelled(subject: Subject) -> None:
    deferred = subject.redis.when_connected()
    outcome = Outcome(deferred)
    deferred.cancel()
    assert isinstance(outcome.error, CancelledError)
    subject.connect()


def test_who_waits_for_a_connection_may_cancel_the_others(subject: Subject) -> None:
    waiting = [subject.redis.when_connected() for _ in range(3)]
    waiting[0].addCallback(lambda _: waiting[1].cancel())
    outcomes = [Outcome(one) for one in waiting]
    subject.connect()
    assert [type(one.error) for one in outcomes] == [type(None), CancelledError, type(None)]
    assert all(one.fired for one in outcomes)
