"""Devices that reach an instance through the protocols of several vendors."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface import implementer

from tests.unit.fakes import FakeConnection, FakeRedis
from tests.unit.ingestion.test_gateway import delivery, log_in, registration
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.connected import ConnectedDevices
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import Admission, IDeviceAuthority, Rejection
from tracker.limits import Limits
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition

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
        gateway = Gateway(
            self.clock,
            vendor,
            StreamPublisher(self.clock, RedisWriter(redis, f"telemetry:{vendor}"), Condition()),
            authority=self.authority,
            limiter=self.limiter,
            connected=self.connected,
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

    def receives_commands(self, connection: FakeConnection, device_id: str = DEVICE) -> bool:
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
