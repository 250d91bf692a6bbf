"""What a connection asks of a server before it is used, and how an attempt ends."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from tracker.observe.health import Condition
from tracker.redis.address import CONNECT_TIMEOUT, RedisAddress
from tracker.redis.connection import CHECK_INTERVAL, FIRST_RETRY, RedisConnection

MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
REPLICA = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:0\r\n"


class Transport(StringTransport):
    """One whose connection is lost at once when it is aborted."""

    protocol: Any = None

    def abortConnection(self) -> None:
        super().abortConnection()
        self.protocol.connectionLost(Failure(ConnectionLost()))


class Server:
    """A server that the test plays."""

    def __init__(self, **address: Any) -> None:
        self.reactor = cast("Any", MemoryReactorClock())
        self.reports: list[str | None] = []
        self.connection = RedisConnection(
            self.reactor,
            RedisAddress(path="/run/redis.sock", **address),
            Condition(self.reports.append),
        )
        self.connection.startService()
        self.accept()

    def accept(self) -> None:
        """Accept the latest attempt to connect."""
        factory = self.reactor.unixClients[-1][1]
        self.protocol = factory.buildProtocol(None)
        self.transport = Transport()
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    def asked(self) -> list[bytes]:
        """Return the words that were sent, and forget them."""
        words = self.transport.value().split(b"\r\n")
        self.transport.clear()
        return [word for word in words if word and word[:1] not in b"*$"]

    def say(self, *replies: bytes) -> None:
        for reply in replies:
            self.protocol.dataReceived(reply)


def test_it_logs_in_then_selects_the_database_then_looks_whether_it_is_the_master() -> None:
    server = Server(username="ingest", password="secret", database=3)
    assert server.asked() == [b"AUTH", b"ingest", b"secret"]
    server.say(b"+OK\r\n")
    assert server.asked() == [b"SELECT", b"3"]
    server.say(b"+OK\r\n", b"+PONG\r\n")
    assert server.asked() == [b"PING", b"ROLE"]
    assert not server.connection.connected
    server.say(MASTER)
    assert server.connection.connected
    assert server.reports == [None]


@pytest.mark.parametrize(
    ("address", "replies", "reason"),
    [
        ({"password": "x"}, [b"-WRONGPASS invalid\r\n"], "Redis error: could not auth: WRONGPASS"),
        ({"database": 99}, [b"-ERR DB index is out of range\r\n"], "could not set dbid=99: ERR DB"),
        ({}, [b"-NOAUTH Authentication required.\r\n"], "NOAUTH"),
        ({}, [b"-LOADING Redis is loading\r\n"], "LOADING"),
        ({}, [b"+PONG\r\n", REPLICA], "a read-only replica"),
        ({}, [b"+PONG\r\n", b"*2\r\n$8\r\nsentinel\r\n*0\r\n"], "a sentinel, no server"),
        ({}, [b"+PONG\r\n", b"$-1\r\n"], "no server"),
        ({}, [b"+PONG\r\n", b"*0\r\n"], "no server"),
        ({}, [b"+PONG\r\n", b":1\r\n"], "no server"),
        ({}, [b"+PONG\r\n", b"*1\r\n$2\r\n\xff\n\r\n"], "no server"),
    ],
)
def test_a_server_that_cannot_be_used_is_left_and_tried_again(
    address: dict[str, Any], replies: list[bytes], reason: str
) -> None:
    server = Server(**address)
    server.say(*replies)
    (told,) = server.reports
    assert told is not None
    assert reason in told
    assert not server.connection.connected
    assert server.transport.disconnecting
    server.reactor.advance(FIRST_RETRY)
    assert len(server.reactor.unixClients) == 2


def test_a_connection_that_is_lost_during_the_login_is_made_again() -> None:
    server = Server(password="secret")
    server.protocol.connectionLost(Failure(ConnectionLost()))
    assert len(server.reports) == 1
    server.reactor.advance(FIRST_RETRY)
    server.accept()
    server.say(b"+OK\r\n", b"+PONG\r\n", MASTER)
    assert server.connection.connected


def test_a_server_that_does_not_answer_is_left() -> None:
    server = Server()
    server.reactor.advance(CONNECT_TIMEOUT)
    assert server.transport.disconnecting
    assert "no answer within 3 s" in (server.reports[0] or "")


def test_a_master_that_becomes_a_replica_is_left() -> None:
    server = Server()
    server.say(b"+PONG\r\n", MASTER)
    server.reactor.advance(CHECK_INTERVAL)
    server.say(b"+PONG\r\n", REPLICA)
    assert not server.connection.connected
    assert "a read-only replica" in (server.reports[-1] or "")


def test_a_stop_ends_everything() -> None:
    server = Server()
    server.say(b"+PONG\r\n", MASTER)
    stopped = server.connection.stopService()
    assert stopped.called
    assert not server.connection.connected
    assert not server.reactor.getDelayedCalls()
