"""Login of a connection and the checks that make it usable."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from tracker.observe.health import Condition
from tracker.redis.address import RedisAddress
from tracker.redis.connection import CHECK_INTERVAL, MIN_RETRY_DELAY, RedisConnection
from tracker.redis.endpoint import CONNECT_TIMEOUT

MASTER = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
REPLICA = b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:0\r\n"


class Transport(StringTransport):
    """A transport whose connection is lost at once when it is aborted."""

    protocol: Any = None

    def abortConnection(self) -> None:
        super().abortConnection()
        self.protocol.connectionLost(Failure(ConnectionLost()))


class Server:
    """A server whose replies the test sends."""

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
        """Accept the last attempt to connect."""
        factory = self.reactor.unixClients[-1][1]
        self.protocol = factory.buildProtocol(None)
        self.transport = Transport()
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    def pop_sent(self) -> list[bytes]:
        """Return and clear the words of the commands sent."""
        words = self.transport.value().split(b"\r\n")
        self.transport.clear()
        return [word for word in words if word and word[:1] not in b"*$"]

    def reply(self, *replies: bytes) -> None:
        for one in replies:
            self.protocol.dataReceived(one)


def test_login_database_and_role_check_precede_the_first_command() -> None:
    server = Server(username="ingest", password="secret", database=3)
    assert server.pop_sent() == [b"AUTH", b"ingest", b"secret"]
    server.reply(b"+OK\r\n")
    assert server.pop_sent() == [b"SELECT", b"3"]
    server.reply(b"+OK\r\n", b"+PONG\r\n")
    assert server.pop_sent() == [b"PING", b"ROLE"]
    assert not server.connection.connected
    server.reply(MASTER)
    assert server.connection.connected
    assert server.reports == [None]


@pytest.mark.parametrize(
    ("address", "replies", "reason"),
    [
        ({"password": "x"}, [b"-WRONGPASS invalid\r\n"], "login failed: WRONGPASS"),
        (
            {"database": 99},
            [b"-ERR DB index is out of range\r\n"],
            "cannot select database 99: ERR DB",
        ),
        ({}, [b"-NOAUTH Authentication required.\r\n"], "NOAUTH"),
        ({}, [b"-LOADING Redis is loading\r\n"], "LOADING"),
        ({}, [b"+PONG\r\n", REPLICA], "a read-only replica"),
        (
            {},
            [b"+PONG\r\n", b"*2\r\n$8\r\nsentinel\r\n*0\r\n"],
            "not a Redis server: its role is sentinel",
        ),
        ({}, [b"+PONG\r\n", b"$-1\r\n"], "not a Redis server"),
        ({}, [b"+PONG\r\n", b"*0\r\n"], "not a Redis server"),
        ({}, [b"+PONG\r\n", b":1\r\n"], "not a Redis server"),
        ({}, [b"+PONG\r\n", b"*1\r\n$2\r\n\xff\n\r\n"], "not a Redis server"),
    ],
)
def test_unusable_server_is_reported_and_retried(
    address: dict[str, Any], replies: list[bytes], reason: str
) -> None:
    server = Server(**address)
    server.reply(*replies)
    (report,) = server.reports
    assert report is not None
    assert reason in report
    assert not server.connection.connected
    assert server.transport.disconnecting
    server.reactor.advance(MIN_RETRY_DELAY)
    assert len(server.reactor.unixClients) == 2


def test_connection_lost_during_login_reconnects() -> None:
    server = Server(password="secret")
    server.protocol.connectionLost(Failure(ConnectionLost()))
    assert len(server.reports) == 1
    server.reactor.advance(MIN_RETRY_DELAY)
    server.accept()
    server.reply(b"+OK\r\n", b"+PONG\r\n", MASTER)
    assert server.connection.connected


def test_server_that_does_not_reply_to_the_login_is_disconnected() -> None:
    server = Server()
    server.reactor.advance(CONNECT_TIMEOUT)
    assert server.transport.disconnecting
    assert "no reply within 3s" in (server.reports[0] or "")


def test_demoted_master_is_disconnected() -> None:
    server = Server()
    server.reply(b"+PONG\r\n", MASTER)
    server.reactor.advance(CHECK_INTERVAL)
    server.reply(b"+PONG\r\n", REPLICA)
    assert not server.connection.connected
    assert "a read-only replica" in (server.reports[-1] or "")


def test_stop_disconnects_and_cancels_all_timers() -> None:
    server = Server()
    server.reply(b"+PONG\r\n", MASTER)
    stopped = server.connection.stopService()
    assert stopped.called
    assert not server.connection.connected
    assert not server.reactor.getDelayedCalls()
