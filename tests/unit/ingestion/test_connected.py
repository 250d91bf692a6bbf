"""Devices that reach an instance through the protocols of several vendors."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer

from tests.unit.fakes import FakeConnection, FakeRedis
from tests.unit.ingestion.test_gateway import connect, delivery, log_in, registration
from tests.unit.vendors.lines import LineDialect
from tests.unit.vendors.talk import Transport
from tracker.ingestion.admission import SHORT_LOGIN_TIMEOUT, ConnectionLimiter
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import Admission, IConnection, IDeviceAuthority, Rejection, Traffic
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition
from tracker.vendors.connection import ConnectionFactory

ADDRESS = IPv4Address("TCP", "192.0.2.3", 40_000)
DEVICE, OTHER, THIRD = "356307042441013", "356307042441021", "352093081452251"
SERVED, WAITING = Admission.SERVED, Admission.WAITING


@implementer(IDeviceAuthority)
@define
class Authority:
    """An authority whose decisions the test changes."""

    decisions: dict[str, Admission] = field(factory=dict)
    """Device → decision; others are served."""
    vendors: dict[str, str] = field(factory=dict)
    """Device → the vendor to which it is bound."""

    def admission(self, device_id: str, vendor: str) -> Admission:
        return self.review(device_id, vendor)

    def review(self, device_id: str, vendor: str) -> Admission:
        if self.vendors.get(device_id, vendor) != vendor:
            return Admission.OTHER_VENDOR
        return self.decisions.get(device_id, SERVED)


class Vendors:
    """The gateways of two vendors in one instance."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = Clock()
        redis: Any = FakeRedis()
        self.authority = Authority()
        self.limiter = ConnectionLimiter(self.clock, limits or Limits())
        self.registration = registration(self.clock, redis)
        self.registration.startService()
        self.delivery = delivery(self.clock, redis)
        self.connected = ConnectedDevices(self.registration, self.delivery)
        self.one, self.two = self._gateway("one", redis), self._gateway("two", redis)

    def _gateway(self, vendor: str, redis: Any) -> Gateway:
        publisher = StreamPublisher(
            self.clock, RedisWriter(redis, f"telemetry:{vendor}"), Condition()
        )
        publisher.startService()
        gateway = Gateway(
            self.clock,
            vendor,
            publisher,
            authority=self.authority,
            limiter=self.limiter,
            connected=self.connected,
            kept=KeptMemory(Limits().kept_memory),
        )
        gateway.startService()
        return gateway

    def log_in(self, gateway: Gateway, device_id: str = DEVICE, **how: Any) -> FakeConnection:
        connection = FakeConnection(gateway, **how)
        log_in(gateway, connection, device_id)
        return connection

    def join(self, connection: FakeConnection, device_id: str) -> Admission:
        """Log in a further device on a connection."""
        connection.others[device_id] = None
        admission = connection.gateway.login(connection, device_id)
        if admission not in (SERVED, WAITING):
            del connection.others[device_id]
        return admission

    def vendor(self, device_id: str = DEVICE) -> str | None:
        """Return the vendor under which a device is registered."""
        return self.registration._here.get(device_id)

    def receives_commands(self, connection: IConnection, device_id: str = DEVICE) -> bool:
        queue = self.delivery._queues.get(device_id)
        return queue is not None and queue.connection is connection

    def review(self) -> None:
        """Act on a change of the allow-list, as the role does."""
        self.one.logins.review()
        self.two.logins.review()
        self.connected.admit_waiting()


@pytest.fixture
def vendors() -> Vendors:
    return Vendors()


# One device ID, two vendors.


def test_device_that_is_alive_under_a_vendor_is_refused_under_another(vendors: Vendors) -> None:
    older = vendors.log_in(vendors.one)
    newer = FakeConnection(vendors.two)
    with capturedLogs() as events:
        assert log_in(vendors.two, newer, DEVICE) is Admission.OTHER_VENDOR
    assert not older.closed
    assert vendors.connected.ids() == [DEVICE]
    assert (vendors.vendor(), vendors.receives_commands(older)) == ("one", True)
    assert vendors.two.figures.rejections == {Rejection.OTHER_VENDOR: 1}
    (event,) = [one for one in events if one["log_level"] is LogLevel.warn]
    assert event["reason"] == "the device is connected as a device of one"


def test_end_of_a_refused_connection_leaves_the_device_of_the_other_vendor(
    vendors: Vendors,
) -> None:
    older, newer = vendors.log_in(vendors.one), vendors.log_in(vendors.two)
    newer.close()
    assert vendors.connected.ids("one") == [DEVICE]
    assert (vendors.vendor(), vendors.receives_commands(older)) == ("one", True)


def test_device_that_is_silent_under_a_vendor_is_served_under_another(vendors: Vendors) -> None:
    older = vendors.log_in(vendors.one)
    older.alive = False
    newer = FakeConnection(vendors.two)
    assert log_in(vendors.two, newer, DEVICE) is SERVED
    assert older.closed
    assert (vendors.connected.ids("one"), vendors.connected.ids("two")) == ([], [DEVICE])
    assert (vendors.one.serving, vendors.two.serving) == (0, 1)
    assert (vendors.vendor(), vendors.receives_commands(newer)) == ("two", True)
    newer.close()
    assert (len(vendors.connected), vendors.vendor()) == (0, None)
    assert (vendors.one.serving, vendors.two.serving) == (0, 0)


def test_datagram_of_a_device_that_is_alive_under_another_vendor_is_refused(
    vendors: Vendors,
) -> None:
    vendors.log_in(vendors.one)
    assert vendors.one.admission(DEVICE) is SERVED
    assert vendors.two.admission(DEVICE) is Admission.OTHER_VENDOR
    assert vendors.two.admission(OTHER) is SERVED


def test_device_that_is_bound_to_another_vendor_is_refused(vendors: Vendors) -> None:
    vendors.authority.vendors[DEVICE] = "two"
    refused = FakeConnection(vendors.one)
    with capturedLogs() as events:
        assert log_in(vendors.one, refused, DEVICE) is Admission.OTHER_VENDOR
    assert log_in(vendors.two, FakeConnection(vendors.two), DEVICE) is SERVED
    assert events[0]["reason"] == "the device is bound to another vendor"
    assert vendors.one.figures.rejections == {Rejection.OTHER_VENDOR: 1}


def test_connected_device_that_is_bound_to_another_vendor_leaves(vendors: Vendors) -> None:
    leaving, staying = vendors.log_in(vendors.one), vendors.log_in(vendors.two, OTHER)
    vendors.authority.vendors = {DEVICE: "two", OTHER: "two"}
    vendors.review()
    assert (leaving.closed, staying.closed) == (True, False)
    assert vendors.one.figures.rejections == {Rejection.OTHER_VENDOR: 1}


# Waiting.


def wait(vendors: Vendors, gateway: Gateway | None = None, **how: Any) -> FakeConnection:
    """Let a device log in that is refused and may stay."""
    vendors.authority.decisions[DEVICE] = Admission.REFUSED
    return vendors.log_in(gateway or vendors.one, may_stay=True, **how)


def test_refused_device_waits_if_it_may_stay(vendors: Vendors) -> None:
    with capturedLogs() as events:
        waiting = wait(vendors)
    assert not waiting.closed
    assert vendors.one.figures.logins == {WAITING: 1}
    assert vendors.one.figures.rejections == {Rejection.NOT_SERVED: 1}
    assert "it may stay connected, and waits" in events[-1]["reason"]
    assert (len(vendors.connected), vendors.vendor()) == (0, None)
    assert not vendors.receives_commands(waiting)
    assert (vendors.one.serving, vendors.one.waiting, vendors.two.waiting) == (0, 1, 0)
    waiting.close()
    assert vendors.one.waiting == 0


def test_waiting_device_is_admitted_when_the_allow_list_changes(vendors: Vendors) -> None:
    waiting = wait(vendors)
    vendors.review()
    assert waiting.served == []
    vendors.authority.decisions.clear()
    vendors.review()
    assert waiting.served == [DEVICE]
    assert (vendors.one.serving, vendors.one.waiting) == (1, 0)
    assert (vendors.vendor(), vendors.receives_commands(waiting)) == ("one", True)
    vendors.review()
    assert waiting.served == [DEVICE]


def test_newest_of_several_waiting_connections_is_admitted(vendors: Vendors) -> None:
    connections = [wait(vendors) for _ in range(3)]
    vendors.authority.decisions.clear()
    vendors.review()
    assert [connection.closed for connection in connections] == [True, True, False]
    found = vendors.connected.find(DEVICE)
    assert found is not None
    assert found.connection is connections[-1]


def test_withdrawn_device_waits_until_it_is_allowed_again(vendors: Vendors) -> None:
    connection = vendors.log_in(vendors.one, may_stay=True)
    vendors.authority.decisions[DEVICE] = Admission.REFUSED
    vendors.review()
    assert not connection.closed
    assert (vendors.one.serving, vendors.one.waiting, vendors.vendor()) == (0, 1, None)
    assert not vendors.receives_commands(connection)
    vendors.authority.decisions.clear()
    vendors.review()
    assert connection.served == [DEVICE]
    assert (vendors.one.serving, vendors.one.waiting, vendors.vendor()) == (1, 0, "one")


def test_undecided_device_waits_until_the_decision(vendors: Vendors) -> None:
    vendors.authority.decisions[DEVICE] = Admission.LATER
    waiting = vendors.log_in(vendors.one, may_stay=True)
    assert vendors.one.figures.rejections == {}
    vendors.authority.decisions.clear()
    vendors.review()
    assert waiting.served == [DEVICE]


def test_device_waits_until_the_connection_under_another_vendor_ends(vendors: Vendors) -> None:
    older = vendors.log_in(vendors.one)
    waiting = vendors.log_in(vendors.two, may_stay=True)
    vendors.review()
    assert waiting.served == []
    older.close()
    assert waiting.served == [DEVICE]
    assert (vendors.vendor(), vendors.receives_commands(waiting)) == ("two", True)


def test_connection_that_is_closing_is_not_admitted(vendors: Vendors) -> None:
    waiting = wait(vendors)
    waiting.alive = False
    vendors.authority.decisions.clear()
    vendors.review()
    assert (waiting.served, len(vendors.connected)) == ([], 0)


def test_waiting_connection_loses_its_slot_when_slots_are_short() -> None:
    vendors = Vendors(Limits(connections=2))
    waiting, device = wait(vendors), vendors.log_in(vendors.one, OTHER, host="192.0.2.2")
    vendors.clock.advance(SHORT_LOGIN_TIMEOUT)
    assert not vendors.one.admits(ADDRESS)
    assert (waiting.closed, device.closed) == (True, False)
    assert vendors.one.figures.rejections[Rejection.NOT_SERVED] == 2
    vendors.authority.decisions[OTHER] = Admission.REFUSED
    device.may_stay = True
    vendors.review()
    connect(vendors.one, FakeConnection(vendors.one))  # in the free slot
    vendors.clock.advance(SHORT_LOGIN_TIMEOUT)
    assert not vendors.one.admits(ADDRESS)
    assert device.closed


def test_waiting_connection_is_closed_by_a_drain_and_no_device_waits_then(
    vendors: Vendors,
) -> None:
    waiting = wait(vendors)
    late = FakeConnection(vendors.one, may_stay=True)
    connect(vendors.one, late)
    vendors.one.refuse_logins()
    assert waiting.closed
    late.device_id = OTHER
    assert vendors.one.login(late, OTHER) is Admission.LATER
    vendors.review()
    assert len(vendors.connected) == 0


# Devices that share a connection.


def test_end_of_a_shared_connection_unregisters_all_its_devices(vendors: Vendors) -> None:
    connection = vendors.log_in(vendors.one, may_stay=True)
    assert vendors.join(connection, OTHER) is SERVED
    vendors.authority.decisions[THIRD] = Admission.REFUSED
    assert vendors.join(connection, THIRD) is WAITING
    assert vendors.connected.ids() == [DEVICE, OTHER]
    assert (vendors.one.serving, vendors.one.waiting) == (1, 0)
    assert list(vendors.connected.connections) == [connection]
    assert (vendors.vendor(OTHER), vendors.vendor(THIRD)) == ("one", None)
    assert vendors.receives_commands(connection, OTHER)
    connection.close()
    assert (len(vendors.connected), vendors.one.serving) == (0, 0)
    assert [vendors.vendor(one) for one in (DEVICE, OTHER, THIRD)] == [None] * 3
    assert not vendors.connected._waiting


def test_device_that_reconnects_leaves_its_shared_connection_to_the_others(
    vendors: Vendors,
) -> None:
    shared = vendors.log_in(vendors.one)
    vendors.join(shared, OTHER)
    vendors.join(shared, THIRD)
    own = vendors.log_in(vendors.one, OTHER)
    assert (shared.closed, shared.device_ids) == (False, [DEVICE, THIRD])
    assert vendors.receives_commands(own, OTHER)
    assert vendors.receives_commands(shared, THIRD)
    shared.close()
    assert vendors.connected.ids() == [OTHER]
    assert vendors.vendor(OTHER) == "one"


def test_device_that_moved_leaves_its_shared_connection_to_the_others(vendors: Vendors) -> None:
    shared = vendors.log_in(vendors.one)
    vendors.join(shared, OTHER)
    vendors.join(shared, THIRD)
    vendors.connected.moved(OTHER, "two")
    assert not shared.closed
    assert vendors.connected.ids() == [DEVICE, THIRD]
    assert vendors.vendor(OTHER) is None


def test_number_of_devices_on_shared_connections_is_limited() -> None:
    vendors = Vendors(Limits(connections=3, connections_per_address=2))
    first = vendors.log_in(vendors.one)
    assert [vendors.join(first, f"a{number}") for number in range(3)] == [
        *(SERVED, SERVED),
        Admission.LATER,
    ]
    assert vendors.one.figures.rejections == {Rejection.ADDRESS_SHARE: 1}
    second = vendors.log_in(vendors.one, OTHER, host="192.0.2.2")
    assert [vendors.join(second, f"b{number}") for number in range(2)] == [SERVED, Admission.LATER]
    assert vendors.one.figures.rejections[Rejection.CONNECTION_LIMIT] == 1
    first.close()
    assert [vendors.join(second, f"b{number}") for number in range(1, 3)] == [
        SERVED,
        Admission.LATER,
    ]
    second.close()
    assert vendors.limiter._devices == 0


# Watchers.


def test_device_is_watched_while_it_waits_and_once_it_is_served(vendors: Vendors) -> None:
    events: list[tuple[str, Traffic, bytes]] = []
    vendors.connected.watch(DEVICE, lambda *what: events.append(what))
    waiting = wait(vendors)
    assert waiting.observer is not None
    waiting.observer(Traffic.RECEIVED, b"1")
    vendors.authority.decisions.clear()
    vendors.review()
    waiting.observer(Traffic.RECEIVED, b"2")
    waiting.close()
    assert [(vendor, kind) for vendor, kind, _ in events] == [
        ("one", Traffic.REJECTED),
        ("one", Traffic.RECEIVED),
        ("one", Traffic.CONNECTED),
        ("one", Traffic.RECEIVED),
        ("one", Traffic.DISCONNECTED),
    ]


def test_waiting_device_may_be_watched_later(vendors: Vendors) -> None:
    waiting = wait(vendors)
    vendors.connected.watch(DEVICE, lambda *what: None)
    assert waiting.observer is not None
    vendors.connected.watch(DEVICE, None)
    assert waiting.observer is None


def test_watchers_of_devices_on_a_shared_connection_are_all_notified(vendors: Vendors) -> None:
    shared = vendors.log_in(vendors.one)
    vendors.join(shared, OTHER)
    seen: dict[str, list[bytes]] = {DEVICE: [], OTHER: []}
    vendors.connected.watch(DEVICE, lambda _, __, data: seen[DEVICE].append(data))
    vendors.connected.watch(OTHER, lambda _, __, data: seen[OTHER].append(data))
    assert shared.observer is not None
    shared.observer(Traffic.RECEIVED, b"1")
    vendors.connected.watch(DEVICE, None)
    shared.observer(Traffic.RECEIVED, b"2")
    assert seen == {DEVICE: [b"1"], OTHER: [b"1", b"2"]}


def test_device_that_waits_on_a_real_connection_is_served_when_it_is_allowed(
    vendors: Vendors,
) -> None:
    protocol = ConnectionFactory(vendors.one, Limits(), vendors.clock, LineDialect).buildProtocol(
        ADDRESS
    )
    assert protocol is not None
    transport: Any = Transport(peerAddress=ADDRESS)
    transport.protocol = protocol
    protocol.makeConnection(transport)
    vendors.authority.decisions[DEVICE] = Admission.REFUSED
    protocol.dataReceived(f"stay {DEVICE}\nrecords A\n".encode())
    vendors.authority.decisions.clear()
    vendors.review()
    assert vendors.receives_commands(protocol)
    protocol.dataReceived(b"records B\n")
    assert vendors.one.publisher.waiting == 1
    vendors.authority.decisions[DEVICE] = Admission.REFUSED
    vendors.review()
    assert (vendors.one.waiting, transport.connected) == (1, True)
    transport.loseConnection()
    assert (vendors.one.waiting, vendors.one.connections, vendors.vendor()) == (0, 0, None)
