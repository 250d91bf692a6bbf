"""The gateway: who is connected, and what is said of peers that misbehave."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeRedis, FakeSession
from tracker.ingestion.gateway import REJECTION_LINES, Gateway
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import IGateway, ISession


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway(clock: Clock) -> Gateway:
    redis: Any = FakeRedis()
    publisher = StreamPublisher(clock, redis, "telemetry:teltonika", lambda reason: None)
    publisher.startService()
    gateway = Gateway(clock, "teltonika", publisher)
    gateway.startService()
    return gateway


def test_it_keeps_to_the_interface(gateway: Gateway) -> None:
    verifyObject(IGateway, gateway)
    verifyObject(ISession, FakeSession(gateway))


def test_it_counts_connections(gateway: Gateway) -> None:
    first, second = FakeSession(gateway), FakeSession(gateway)
    gateway.opened(first)
    gateway.opened(second)
    assert gateway.connections == 2
    gateway.closed(first)
    assert gateway.connections == 1


def test_an_empty_packet_needs_no_redis(gateway: Gateway) -> None:
    assert gateway.publish([]).called


def test_a_flood_of_rejections_makes_few_lines(gateway: Gateway, clock: Clock) -> None:
    session = FakeSession(gateway)
    with capturedLogs() as events:
        for _ in range(1000):
            gateway.rejected(session, "bad CRC")
        clock.advance(60)
        gateway.rejected(session, "bad CRC")
    lines = [event for event in events if event["log_level"] is LogLevel.warn]
    assert len(lines) == REJECTION_LINES + 1
    assert f"{1000 - REJECTION_LINES} more" in lines[-1]["more"]


def test_a_stop_closes_every_connection(gateway: Gateway) -> None:
    sessions = [FakeSession(gateway) for _ in range(3)]
    for session in sessions:
        gateway.opened(session)
    stopped: list[object] = []
    gateway.stopService().addCallback(stopped.append)
    assert all(session.closed for session in sessions)
    assert stopped == [None]


def test_a_connection_that_comes_during_a_stop_is_closed(gateway: Gateway) -> None:
    gateway.stopService()
    late = FakeSession(gateway)
    gateway.opened(late)
    assert late.closed
