"""Reply timeouts of the Redis protocol."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.python.failure import Failure

from tracker.errors import Refused, Unanswered, Unavailable
from tracker.redis.protocol import MAX_REPLY_TIME, READ_ONLY, RedisProtocol

TIMEOUT = 4.0


class Transport(StringTransport):
    """A transport whose connection is lost at once when it is aborted."""

    protocol: RedisProtocol

    def abortConnection(self) -> None:
        super().abortConnection()
        self.protocol.connectionLost(Failure(ConnectionAborted()))


class Conversation:
    """A protocol on a transport without a socket."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.protocol = RedisProtocol(self.clock, TIMEOUT)
        self.transport.protocol = self.protocol
        self.protocol.factory = None
        self.protocol.makeConnection(self.transport)
        self.failures: list[str] = []

    def ping(self) -> Deferred[Any]:
        reply: Deferred[Any] = self.protocol.execute_command("PING")
        return reply.addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        failure.trap(Unanswered)
        self.failures.append(failure.getErrorMessage())

    def trickle(self, data: bytes, every: float, seconds: float) -> None:
        """Deliver the same bytes repeatedly."""
        for _ in range(int(seconds / every)):
            self.clock.advance(every)
            self.protocol.dataReceived(data)


@pytest.fixture
def conversation() -> Conversation:
    return Conversation()


def test_connection_without_a_reply_is_closed(conversation: Conversation) -> None:
    conversation.ping()
    conversation.ping()
    conversation.clock.advance(TIMEOUT - 0.1)
    assert not conversation.failures
    conversation.clock.advance(0.1)
    assert conversation.failures == ["no reply within 4s"] * 2
    assert conversation.transport.disconnected
    assert not conversation.clock.getDelayedCalls()


def test_connection_with_an_incomplete_reply_is_closed(conversation: Conversation) -> None:
    conversation.ping()
    conversation.clock.advance(3)
    conversation.protocol.dataReceived(b"$100\r\nabc")
    conversation.clock.advance(TIMEOUT - 0.1)
    assert not conversation.failures
    conversation.clock.advance(0.2)
    assert conversation.failures == ["no reply within 4s"]


def test_slow_but_steady_reply_is_accepted(conversation: Conversation) -> None:
    replies: list[bytes] = []
    conversation.ping().addCallback(replies.append)
    conversation.protocol.dataReceived(b"$10\r\n")
    conversation.trickle(b"x", 3, 30)
    conversation.protocol.dataReceived(b"\r\n")
    assert replies == [b"x" * 10]
    assert not conversation.failures


def test_endless_reply_closes_the_connection(conversation: Conversation) -> None:
    conversation.ping()
    conversation.protocol.dataReceived(b"$1000000\r\n")
    conversation.trickle(b"x", 3, MAX_REPLY_TIME)
    assert not conversation.failures
    conversation.trickle(b"x", 1, TIMEOUT)
    assert conversation.failures == ["no complete reply within 64s"]


def test_complete_reply_restarts_the_timeout_of_the_next_one(conversation: Conversation) -> None:
    replies: list[bytes] = []
    for _ in range(50):
        conversation.ping().addCallback(replies.append)
    conversation.trickle(b"+PONG\r\n", 3, 150)
    assert replies == [b"PONG"] * 50
    assert not conversation.failures


def test_one_timer_serves_all_commands(conversation: Conversation) -> None:
    for _ in range(100):
        conversation.ping()
        conversation.protocol.dataReceived(b"+PONG\r\n")
    assert len(conversation.clock.getDelayedCalls()) == 1


def test_command_after_a_pause_has_the_full_timeout(conversation: Conversation) -> None:
    conversation.ping()
    conversation.protocol.dataReceived(b"+PONG\r\n")
    conversation.clock.advance(3)
    conversation.ping()  # the timer of the first one runs
    conversation.clock.advance(3.9)
    assert not conversation.failures
    conversation.clock.advance(0.2)
    assert conversation.failures == ["no reply within 4s"]


def test_idle_connection_to_redis_stays_open(conversation: Conversation) -> None:
    conversation.ping()
    conversation.protocol.dataReceived(b"+PONG\r\n")
    conversation.clock.advance(3600)
    assert not conversation.transport.disconnecting
    assert not conversation.clock.getDelayedCalls()


def test_lost_connection_cancels_the_timer(conversation: Conversation) -> None:
    reply: Deferred[Any] = conversation.protocol.execute_command("PING")
    lost = []
    reply.addErrback(lambda failure: lost.append(failure.type))
    conversation.protocol.connectionLost(Failure(ConnectionLost()))
    assert lost == [Unavailable]
    assert not conversation.clock.getDelayedCalls()


def test_command_is_written_in_the_same_reactor_turn() -> None:
    # Twisted's transports write in the next reactor turn. The protocol calls doWrite, which is
    # an interface between a transport and its reactor; this test fails if Twisted changes it.
    ours, theirs = socket.socketpair()
    protocol = RedisProtocol(Clock(), None)
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        transport = Connection(ours, protocol, MemoryReactor())
        transport.connected = True
        protocol.makeConnection(transport)
        protocol.execute_command("PING")
        assert theirs.recv(100) == b"*1\r\n$4\r\nPING\r\n"


def test_refusal_has_no_final_period(conversation: Conversation) -> None:
    reply: Deferred[Any] = conversation.protocol.execute_command("SET", "a", "b")
    refusals = []
    reply.addErrback(lambda failure: refusals.append(failure.value))
    conversation.protocol.dataReceived(b"-OOM command not allowed.\r\n")
    (refusal,) = refusals
    assert isinstance(refusal, Refused)
    assert str(refusal) == "OOM command not allowed"


def test_read_only_server_is_disconnected(conversation: Conversation) -> None:
    reply: Deferred[Any] = conversation.protocol.execute_command("SET", "a", "b")
    lost = []
    reply.addErrback(lambda failure: lost.append(failure.type))
    conversation.protocol.dataReceived(b"-READONLY You can't write against a replica.\r\n")
    assert lost == [Unavailable]
    assert conversation.transport.disconnecting
    assert conversation.protocol.close_reason == READ_ONLY
