"""The gateway: who is connected, and what is said of peers that misbehave."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeRedis, FakeSession
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.authority import EveryDevice
from tracker.ingestion.gateway import REJECTION_LINES, Gateway
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import Admission, IGateway, ISession
from tracker.limits import Limits

HOST = "192.0.2.1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gateway(clock: Clock) -> Gateway:
    redis: Any = FakeRedis()
    publisher = StreamPublisher(clock, redis, "telemetry:teltonika", lambda reason: None)
    publisher.startService()
    limiter = ConnectionLimiter(clock, Limits())
    gateway = Gateway(clock, "teltonika", publisher, EveryDevice(), limiter)
    gateway.startService()
    return gateway


def test_it_keeps_to_the_interface(gateway: Gateway) -> None:
    verifyObject(IGateway, gateway)
    verifyObject(ISession, FakeSession(gateway))


def test_it_counts_connections(gateway: Gateway) -> None:
    first, second = FakeSession(gateway), FakeSession(gateway)
    gateway.opened(first, HOST)
    gateway.opened(second, HOST)
    assert gateway.connections == 2
    gateway.closed(first)
    assert gateway.connections == 1


def test_an_empty_packet_needs_no_redis_and_leaves_room_for_others(
    gateway: Gateway, clock: Clock
) -> None:
    confirmed = gateway.publish([])
    assert not confirmed.called
    clock.advance(0)
    assert confirmed.called


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
        gateway.opened(session, HOST)
    stopped: list[object] = []
    gateway.stopService().addCallback(stopped.append)
    assert all(session.closed for session in sessions)
    assert stopped == [None]


def test_a_connection_that_comes_during_a_stop_is_not_let_in(gateway: Gateway) -> None:
    gateway.stopService()
    assert not gateway.opened(FakeSession(gateway), HOST)
    assert gateway.admission("356307042441013") is Admission.LATER


def test_a_newer_login_of_a_device_ends_the_older_connection(gateway: Gateway) -> None:
    older, newer = FakeSession(gateway), FakeSession(gateway)
    for session in (older, newer):
        gateway.opened(session, HOST)
        assert gateway.login(session, "356307042441013") is Admission.SERVED
        session.device_id = "356307042441013"
    assert (older.closed, newer.closed) == (True, False)
    newest = FakeSession(gateway)
    gateway.opened(newest, HOST)
    gateway.login(newest, "356307042441013")
    assert newer.closed


def test_a_connection_that_was_superseded_does_not_take_the_newer_one_along(
    gateway: Gateway,
) -> None:
    older, newer = FakeSession(gateway), FakeSession(gateway)
    for session in (older, newer):
        gateway.opened(session, HOST)
        gateway.login(session, "356307042441013")
        session.device_id = "356307042441013"
    third = FakeSession(gateway)
    gateway.opened(third, HOST)
    gateway.login(third, "356307042441013")
    assert newer.closed, "the gateway still knew that the newer one was the live one"


def test_a_limit_is_told_and_counts_only_what_was_let_in(clock: Clock) -> None:
    redis: Any = FakeRedis()
    publisher = StreamPublisher(clock, redis, "telemetry:teltonika", lambda reason: None)
    limiter = ConnectionLimiter(clock, Limits(connections=1))
    gateway = Gateway(clock, "teltonika", publisher, EveryDevice(), limiter)
    gateway.startService()
    first, second = FakeSession(gateway), FakeSession(gateway)
    assert gateway.opened(first, HOST)
    with capturedLogs() as events:
        assert not gateway.opened(second, HOST)
    assert "1 connections already" in events[-1]["reason"]
    gateway.closed(second)
    assert not gateway.opened(second, HOST)
    gateway.closed(first)
    assert gateway.opened(second, HOST)
