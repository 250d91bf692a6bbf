"""The gateway: its connections, detached entries, and log lines about peers."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeConnection, FakeRedis
from tracker.commands.delivery import CommandDelivery
from tracker.commands.ledger import CommandLedger
from tracker.commands.registration import DeviceRegistration
from tracker.commands.shared import Timing
from tracker.ingestion.admission import SHORT_LOGIN_TIMEOUT, ConnectionLimiter
from tracker.ingestion.authority import EveryDevice
from tracker.ingestion.confirmation import CHECK_INTERVAL
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import (
    Admission,
    IConnection,
    IDeviceAuthority,
    IGateway,
    NotAppended,
    Rejection,
)
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition
from tracker.observe.ratelimit import MAX_LINES
from tracker.position import Entry

ADDRESS = IPv4Address("TCP", "192.0.2.1", 40_000)


def registration(clock: Clock, redis: Any) -> DeviceRegistration:
    return DeviceRegistration(clock, redis, "one", lambda device_id, owner: None)


def delivery(clock: Clock, redis: Any) -> CommandDelivery:
    return CommandDelivery(
        clock,
        redis,
        CommandLedger(clock, redis, "one"),
        "one",
        timing=Timing(),
        waits=True,
        fetch=lambda device_id: None,
        condition=Condition(),
    )


def connected_devices(clock: Clock, redis: Any) -> ConnectedDevices:
    return ConnectedDevices(registration(clock, redis), delivery(clock, redis))


def connect(gateway: Gateway, connection: FakeConnection) -> None:
    """Admit and open a connection, as a factory and its protocol do."""
    assert gateway.admits(IPv4Address("TCP", connection.host, 40_000))
    gateway.opened(connection)


def log_in(gateway: Gateway, connection: FakeConnection, device_id: str) -> Admission:
    """Open a connection on which a device logs in."""
    connect(gateway, connection)
    connection.device_id = device_id
    return gateway.login(connection, device_id)


@implementer(IDeviceAuthority)
@define
class Changing:
    """An authority whose decisions the test changes."""

    refused: set[str] = field(factory=set)

    def admission(self, device_id: str, vendor: str) -> Admission:
        return self.review(device_id, vendor)

    def review(self, device_id: str, vendor: str) -> Admission:
        return Admission.REFUSED if device_id in self.refused else Admission.SERVED


class Publishing:
    """A gateway, its publisher and a Redis whose replies the test gives."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.redis = FakeRedis()
        redis: Any = self.redis
        self.publisher = StreamPublisher(
            clock, RedisWriter(redis, "telemetry:teltonika"), Condition()
        )
        self.publisher.startService()
        self.limiter = ConnectionLimiter(clock, Limits())
        self.authority = Changing()
        self.connected = connected_devices(clock, redis)
        self.gateway = Gateway(
            clock,
            "teltonika",
            self.publisher,
            authority=self.authority,
            limiter=self.limiter,
            connected=self.connected,
            kept=KeptMemory(Limits().kept_memory),
        )
        self.gateway.startService()

    def reply(self) -> None:
        """Confirm all appends that are under way."""
        commands, self.redis.commands = self.redis.commands, []
        for _, answer in commands:
            answer.callback(1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def publishing(clock: Clock) -> Publishing:
    return Publishing(clock)


@pytest.fixture
def gateway(publishing: Publishing) -> Gateway:
    return publishing.gateway


def test_gateway_provides_the_interface(gateway: Gateway) -> None:
    verifyObject(IGateway, gateway)
    verifyObject(IConnection, FakeConnection(gateway))


def test_gateway_counts_connections(gateway: Gateway) -> None:
    first, second = FakeConnection(gateway), FakeConnection(gateway)
    for connection in (first, second):
        connect(gateway, connection)
    assert gateway.connections == 2
    gateway.closed(first)
    assert gateway.connections == 1


def test_empty_frame_is_acknowledged_in_a_later_turn_without_redis(
    gateway: Gateway, clock: Clock
) -> None:
    appended = gateway.publish([])
    assert not appended.called
    clock.advance(0)
    assert appended.called


def test_log_lines_for_rejections_are_limited(gateway: Gateway, clock: Clock) -> None:
    connection = FakeConnection(gateway)
    with capturedLogs() as events:
        for _ in range(1000):
            gateway.rejected(connection, "bad CRC")
        clock.advance(60)
        gateway.rejected(connection, "bad CRC")
    lines = [event for event in events if event["log_level"] is LogLevel.warn]
    assert len(lines) == MAX_LINES + 1
    assert f"{1000 - MAX_LINES} more" in lines[-1]["more"]


def test_stop_of_the_gateway_closes_every_connection(gateway: Gateway) -> None:
    connections = [FakeConnection(gateway) for _ in range(3)]
    for connection in connections:
        connect(gateway, connection)
    stopped: list[object] = []
    gateway.stopService().addCallback(stopped.append)
    assert all(connection.closed for connection in connections)
    assert stopped == [None]


def test_connection_during_a_stop_is_not_admitted(gateway: Gateway) -> None:
    gateway.stopService()
    assert not gateway.admits(ADDRESS)
    assert gateway.admission("356307042441013") is Admission.LATER


def test_new_login_of_a_device_closes_its_older_connection(gateway: Gateway) -> None:
    older, newer = FakeConnection(gateway), FakeConnection(gateway)
    for connection in (older, newer):
        assert log_in(gateway, connection, "356307042441013") is Admission.SERVED
    assert (older.closed, newer.closed) == (True, False)
    log_in(gateway, FakeConnection(gateway), "356307042441013")
    assert newer.closed


def test_end_of_an_older_connection_does_not_affect_the_newer_one(
    gateway: Gateway,
) -> None:
    older, newer = FakeConnection(gateway), FakeConnection(gateway)
    for connection in (older, newer):
        log_in(gateway, connection, "356307042441013")
    log_in(gateway, FakeConnection(gateway), "356307042441013")
    assert newer.closed, "the gateway still had the newer connection"


def gateway_for(clock: Clock, limits: Limits) -> Gateway:
    redis: Any = FakeRedis()
    publisher = StreamPublisher(clock, RedisWriter(redis, "telemetry:teltonika"), Condition())
    gateway = Gateway(
        clock,
        "teltonika",
        publisher,
        authority=EveryDevice(),
        limiter=ConnectionLimiter(clock, limits),
        connected=connected_devices(clock, redis),
        kept=KeptMemory(Limits().kept_memory),
    )
    gateway.startService()
    return gateway


def test_silent_connection_loses_its_slot_and_a_device_keeps_its_own(clock: Clock) -> None:
    gateway = gateway_for(clock, Limits(connections=2))
    device, silent = FakeConnection(gateway), FakeConnection(gateway, host="192.0.2.2")
    log_in(gateway, device, "356307042441013")
    assert gateway.admits(IPv4Address("TCP", silent.host, 40_000))
    gateway.opened(silent)
    clock.advance(SHORT_LOGIN_TIMEOUT)
    assert not gateway.admits(ADDRESS)
    assert (device.closed, silent.closed) == (False, True)
    assert gateway.figures.rejections[Rejection.NO_LOGIN] == 1
    assert gateway.admits(IPv4Address("TCP", "192.0.2.3", 40_000))


def test_slot_reserved_by_a_proxied_port_is_used_until_released(clock: Clock) -> None:
    gateway = gateway_for(clock, Limits(connections=1))
    assert gateway.reserve(ADDRESS)
    assert not gateway.reserve(ADDRESS)
    assert not gateway.admits(ADDRESS)
    assert gateway.figures.rejections[Rejection.CONNECTION_LIMIT] == 2
    gateway.release()
    assert gateway.admits(ADDRESS)
    gateway.stopService()
    assert not gateway.reserve(ADDRESS)


def test_exceeded_connection_limit_is_reported_and_uses_no_slot(clock: Clock) -> None:
    gateway = gateway_for(clock, Limits(connections=1))
    first = FakeConnection(gateway)
    connect(gateway, first)
    with capturedLogs() as events:
        assert not gateway.admits(ADDRESS)
    assert "maximum number of connections (1)" in events[-1]["reason"]
    assert events[-1]["peer"] == "192.0.2.1:40000"
    assert not gateway.admits(ADDRESS)
    gateway.closed(first)
    assert gateway.admits(ADDRESS)


def test_detached_entries_use_memory_until_they_are_appended(publishing: Publishing) -> None:
    gateway = publishing.gateway
    entry = Entry("ts", "a", "12", "x" * 100, "y" * 50)
    for _ in range(3):
        assert gateway.publish_detached([entry, entry]) is not None
    assert gateway.kept.entries > 3 * 2 * 150
    publishing.clock.advance(0)
    publishing.reply()
    assert gateway.kept.entries == 0


def test_login_waits_while_the_log_does_not_confirm(publishing: Publishing) -> None:
    gateway = publishing.gateway
    assert gateway.when_log_confirms() is None
    publishing.redis.lose()
    waiting = gateway.when_log_confirms()
    assert waiting is not None
    assert gateway.withheld_logins == 1
    publishing.redis.reconnect()
    publishing.clock.advance(CHECK_INTERVAL)
    assert waiting.called
    assert gateway.withheld_logins == 0


def test_login_waits_while_the_memory_for_entries_is_used_up(publishing: Publishing) -> None:
    gateway = publishing.gateway
    gateway.kept.begin(gateway.kept.limit)
    waiting = gateway.when_log_confirms()
    assert waiting is not None
    publishing.clock.advance(60)
    assert not waiting.called
    gateway.kept.end(1)
    publishing.clock.advance(CHECK_INTERVAL)
    assert waiting.called


def test_detached_entries_lost_at_a_stop_are_logged(
    publishing: Publishing,
) -> None:
    gateway = publishing.gateway
    publishing.redis.lose()
    appended = gateway.publish_detached([Entry("ts", "a", "12", "x")])
    assert appended is not None
    publishing.publisher.stopService()
    assert appended.called
    failures: list[object] = []
    appended.addErrback(lambda failure: failures.append(failure.type))
    assert failures == [NotAppended]
    assert gateway.kept.entries == 0
    with capturedLogs() as events:
        gateway.stopService()
    assert [event["count"] for event in events] == [1]


def test_no_detached_entries_are_accepted_during_a_stop(publishing: Publishing) -> None:
    gateway = publishing.gateway
    gateway.stopService()
    # The protocols report such entries as lost.
    assert gateway.publish_detached([Entry("ts", "a", "12", "x")]) is None


def test_gateway_logs_lost_messages(gateway: Gateway) -> None:
    connection = FakeConnection(gateway, device_id="356307042441013")
    with capturedLogs() as events:
        for _ in range(1000):
            gateway.lost(connection, 3)
    assert len(events) == MAX_LINES
    assert (events[0]["count"], events[0]["device"]) == (3, "356307042441013")


def test_withdrawn_device_is_disconnected(publishing: Publishing) -> None:
    gateway, authority = publishing.gateway, publishing.authority
    staying, leaving = FakeConnection(gateway), FakeConnection(gateway)
    for connection, device_id in ((staying, "356307042441013"), (leaving, "352093081452251")):
        log_in(gateway, connection, device_id)
    gateway.logins.review()
    assert (staying.closed, leaving.closed) == (False, False)
    authority.refused.add("352093081452251")
    gateway.logins.review()
    assert (staying.closed, leaving.closed) == (False, True)


def test_device_that_moved_to_another_instance_is_disconnected(publishing: Publishing) -> None:
    connection = FakeConnection(publishing.gateway)
    log_in(publishing.gateway, connection, "356307042441013")
    publishing.connected.moved("352093081452251", "two")
    assert not connection.closed
    publishing.connected.moved("356307042441013", "two")
    assert connection.closed


def test_notice_gives_the_number_of_suppressed_notices(gateway: Gateway, clock: Clock) -> None:
    connection = FakeConnection(gateway)
    with capturedLogs() as events:
        for _ in range(MAX_LINES + 3):
            gateway.noticed(connection, "odd")
        clock.advance(60)
        gateway.noticed(connection, "odd")
    assert len(events) == MAX_LINES + 1
    assert "3 more" in events[-1]["more"]


# Sessions of devices that send datagrams.


def open_session(gateway: Gateway, device_id: str) -> FakeConnection:
    """Open a session, as a datagram port does."""
    session = FakeConnection(gateway, device_id)
    gateway.session_opened(session)
    assert gateway.login(session, device_id) is Admission.SERVED
    return session


def test_session_takes_no_slot(publishing: Publishing) -> None:
    gateway = publishing.gateway
    session = open_session(gateway, "a")
    assert (gateway.connections, publishing.limiter.used) == (1, 0)
    session.close()
    assert (gateway.connections, publishing.limiter.used) == (0, 0)


def test_session_and_connection_of_a_device_replace_each_other(gateway: Gateway) -> None:
    session = open_session(gateway, "a")
    connection = FakeConnection(gateway)
    assert log_in(gateway, connection, "a") is Admission.SERVED
    assert (session.closed, connection.closed) == (True, False)
    newer = open_session(gateway, "a")
    assert (connection.closed, newer.closed) == (True, False)
    assert gateway.connections == 1


def test_stop_closes_sessions(gateway: Gateway) -> None:
    session = open_session(gateway, "a")
    stopped = gateway.stopService()
    assert (session.closed, stopped.called) == (True, True)
