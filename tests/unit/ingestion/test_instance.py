"""An ingest instance: its counts, observers, drops and drains."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.unit.fakes import FakeConnection, FakeRedis
from tests.unit.ingestion.test_gateway import Changing, connect, connected_devices, log_in
from tracker.command import Command
from tracker.ingestion.admission import ConnectionLimiter
from tracker.ingestion.draining import RETIRE_TIMEOUT
from tracker.ingestion.gateway import Gateway
from tracker.ingestion.instance import Instance
from tracker.ingestion.publisher import StreamPublisher
from tracker.interfaces import (
    Admission,
    ConnectionFacts,
    ConnectionFigures,
    IGateway,
    IInstance,
    IVendor,
    Traffic,
)
from tracker.kept import KeptMemory
from tracker.limits import Limits
from tracker.log.redis.writer import RedisWriter
from tracker.observe.health import Condition

DEVICE, OTHER, THIRD = "356307042441013", "356307042441021", "352093081452251"
Events = list[tuple[Traffic, bytes]]


@implementer(IVendor)
@define(eq=False)
class Vendor:
    """A vendor that describes traffic by its name and the bytes."""

    name: str
    settings = None
    codecs = frozenset({"8"})
    command_codecs = ("12",)
    transports = frozenset({"tcp"})
    device_id_pattern = "[0-9]{15}"
    device_id_form = "a device ID"

    def device_id(self, text: str) -> str:
        return text

    def buildFactory(self, gateway: IGateway, limits: Limits, clock: Any, settings: Any) -> Any:
        raise NotImplementedError

    def buildDatagramProtocol(
        self, gateway: IGateway, limits: Limits, clock: Any, settings: Any
    ) -> Any:
        raise NotImplementedError

    def describe(self, data: bytes, kind: Traffic) -> dict[str, Any]:
        return {self.name: data.hex(), "kind": kind.value}

    def buildNaming(self, models: Mapping[str, Path], default_model: str | None = None) -> None:
        return None


@define(eq=False)
class Connection(FakeConnection):
    """A connection on which a frame may be under way, or that does not close."""

    under_way: bool = False
    """True while a frame waits for its ACK, so that the connection does not retire."""
    lingers: bool = False
    """True to stay open after it is closed, like a connection whose peer does not read."""
    asked: list[str] = field(factory=list)

    def close(self) -> None:
        self.asked.append("close")
        if not (self.closed or self.lingers):
            super().close()

    def retire(self) -> None:
        self.asked.append("retire")
        if not self.under_way:
            self.close()

    def settle(self) -> None:
        """End the frame that is under way."""
        self.under_way = False
        if "retire" in self.asked:
            self.close()


@define(eq=False)
class Delivery:
    """A double of CommandDelivery."""

    loads: dict[str, tuple[int, bool]] = field(factory=dict)
    commands: dict[str, Command] = field(factory=dict)

    def backlog(self, device_id: str) -> tuple[int, bool]:
        return self.loads.get(device_id, (0, False))

    @property
    def held(self) -> int:
        return len(self.commands)

    def command(self, command_id: str) -> Command | None:
        return self.commands.get(command_id)


class Port(Service):
    """A listening service whose stop ends when the test says so."""

    def __init__(self) -> None:
        self.stopped: Deferred[None] = Deferred()
        self.stops = 0

    def stopService(self) -> Deferred[None]:
        self.stops += 1
        return self.stopped


class Bench:
    """An instance with two vendors' gateways."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        redis: Any = FakeRedis()
        self.authority = Changing()
        self.limiter = ConnectionLimiter(self.clock, Limits())
        self.connected = connected_devices(self.clock, redis)
        self.gateways = {
            Vendor(name): Gateway(
                self.clock,
                name,
                StreamPublisher(self.clock, RedisWriter(redis, f"telemetry:{name}"), Condition()),
                authority=self.authority,
                limiter=self.limiter,
                connected=self.connected,
                kept=KeptMemory(Limits().kept_memory),
            )
            for name in ("teltonika", "other")
        }
        for gateway in self.gateways.values():
            gateway.startService()
        self.delivery = Delivery()
        self.ports = [Port(), Port()]
        double: Any = self.delivery
        gateways: Any = self.gateways
        self.instance = Instance(
            self.clock,
            "one",
            gateways=gateways,
            connected=self.connected,
            streams=["telemetry:teltonika"],
            delivery=double,
            ports=self.ports,
        )
        self.instance.startService()

    def gateway(self, vendor: str = "teltonika") -> Gateway:
        return next(one for key, one in self.gateways.items() if key.name == vendor)

    def login(self, device_id: str, vendor: str = "teltonika", **how: Any) -> Connection:
        connection = Connection(self.gateway(vendor), **how)
        assert log_in(self.gateway(vendor), connection, device_id) is Admission.SERVED
        return connection

    def drain(self, seconds: float = 0.0) -> list[Any]:
        """Start a drain; return a list that receives its result."""
        results: list[Any] = []
        self.instance.drain(seconds).addBoth(results.append)
        return results

    def stop_listening(self) -> None:
        for port in self.ports:
            port.stopped.callback(None)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    @property
    def timers(self) -> int:
        return len(self.clock.getDelayedCalls())


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.clock.advance(0)
    for call in bench.clock.getDelayedCalls():
        call.cancel()  # the timer of the device registry
    return bench


@pytest.fixture
def drained(bench: Bench) -> Bench:
    """Provide a bench whose ports stop at once."""
    bench.stop_listening()
    return bench


def test_instance_provides_the_interface(bench: Bench) -> None:
    assert verifyObject(IInstance, bench.instance)
    assert verifyObject(IVendor, Vendor("x"))


def test_instance_reports_id_start_time_streams_and_draining(bench: Bench) -> None:
    assert bench.instance.instance_id == "one"
    assert bench.instance.started_at == "2023-11-14T22:13:20.000Z"
    assert bench.instance.streams == ["telemetry:teltonika"]
    assert bench.instance.draining is False


def test_instance_counts_connections_devices_and_commands(bench: Bench) -> None:
    connect(bench.gateway(), Connection(bench.gateway()))  # not logged in
    bench.login(DEVICE)
    leaving = bench.login(OTHER, "other")
    command = Command("c1", DEVICE, "getinfo", 0)
    bench.delivery.commands = dict.fromkeys(("c1", "c2", "c3"), command)
    assert bench.instance.counts() == {"connections": 3, "devices": 2, "commands_held": 3}
    leaving.close()
    assert bench.instance.counts() == {"connections": 2, "devices": 1, "commands_held": 3}


def test_instance_lists_its_devices(bench: Bench) -> None:
    bench.login(DEVICE)
    bench.login(OTHER, "other")
    assert set(bench.instance.devices(None)) == {DEVICE, OTHER}
    assert list(bench.instance.devices("other")) == [OTHER]
    assert list(bench.instance.devices("unknown")) == []
    facts = ConnectionFigures(0.0, 0.0, "8", 0, 0)
    assert bench.instance.connection(OTHER) == ConnectionFacts(
        OTHER, "other", "192.0.2.1:40000", facts
    )
    assert bench.instance.connection(THIRD) is None


def test_instance_reports_the_commands_that_it_holds(bench: Bench) -> None:
    bench.delivery.loads[DEVICE] = (3, True)
    bench.delivery.commands["c1"] = command = Command("c1", DEVICE, "getinfo", 0)
    assert bench.instance.commands(DEVICE) == (3, True)
    assert bench.instance.commands(OTHER) == (0, False)
    assert bench.instance.held_command("c1") is command
    assert bench.instance.held_command("c2") is None


def test_traffic_is_described_by_the_vendor_of_the_device(bench: Bench) -> None:
    bench.login(OTHER, "other")
    describe = bench.instance.describe
    assert describe(OTHER, b"\x01", Traffic.SENT) == {"other": "01", "kind": "sent"}
    # The vendor of a device that never connected is not known.
    assert describe(THIRD, b"\x01", Traffic.SENT) == {"hex": "01"}


def test_traffic_of_a_device_that_has_left_is_described_by_its_vendor(bench: Bench) -> None:
    described: list[dict[str, Any]] = []

    def observe(kind: Traffic, data: bytes) -> None:
        described.append(bench.instance.describe(OTHER, data, kind))

    bench.instance.watch(OTHER, observe)
    connection = bench.login(OTHER, "other")
    assert connection.observer is not None
    connection.close()
    connection.observer(Traffic.SENT, b"\x01")
    assert described[-1] == {"other": "01", "kind": "sent"}
    bench.instance.unwatch(OTHER, observe)
    assert bench.instance.describe(OTHER, b"\x01", Traffic.SENT) == {"hex": "01"}


def test_instance_drops_the_connection_of_a_device(bench: Bench) -> None:
    connection, staying = bench.login(DEVICE), bench.login(OTHER)
    assert bench.instance.drop(DEVICE) == "192.0.2.1:40000"
    assert (connection.closed, staying.closed) == (True, False)
    assert bench.instance.drop(DEVICE) is None
    assert bench.instance.drop(THIRD) is None


# Observers.


def test_device_is_watched_across_connections(bench: Bench) -> None:
    events: Events = []
    assert bench.instance.watch(DEVICE, lambda *what: events.append(what)) is False
    connection = bench.login(DEVICE)
    assert connection.observer is not None
    connection.observer(Traffic.RECEIVED, b"1")
    bench.gateway().rejected(connection, "bad CRC")
    connection.close()
    again = bench.login(DEVICE, "other")
    assert again.observer is not None
    again.observer(Traffic.SENT, b"2")
    bench.login(OTHER)
    assert events == [
        (Traffic.CONNECTED, b"192.0.2.1:40000"),
        (Traffic.RECEIVED, b"1"),
        (Traffic.REJECTED, b"bad CRC"),
        (Traffic.DISCONNECTED, b"192.0.2.1:40000"),
        (Traffic.CONNECTED, b"192.0.2.1:40000"),
        (Traffic.SENT, b"2"),
    ]


def test_connected_device_is_watched_at_once(bench: Bench) -> None:
    connection = bench.login(DEVICE)
    events: Events = []
    assert bench.instance.watch(DEVICE, lambda *what: events.append(what)) is True
    assert connection.observer is not None
    connection.observer(Traffic.SENT, b"1")
    assert events == [(Traffic.SENT, b"1")]


def test_each_observer_is_notified_until_it_is_removed(bench: Bench) -> None:
    connection = bench.login(DEVICE)
    first: Events = []
    second: Events = []

    def one(*what: Any) -> None:
        first.append(what)

    def two(*what: Any) -> None:
        second.append(what)

    bench.instance.watch(DEVICE, one)
    bench.instance.watch(DEVICE, two)
    assert connection.observer is not None
    connection.observer(Traffic.SENT, b"1")
    bench.instance.unwatch(DEVICE, one)
    connection.observer(Traffic.SENT, b"2")
    bench.instance.unwatch(DEVICE, two)
    assert connection.observer is None
    bench.instance.unwatch(DEVICE, two)
    bench.instance.unwatch(OTHER, two)
    connection.close()
    bench.login(DEVICE)
    assert [data for _, data in first] == [b"1"]
    assert [data for _, data in second] == [b"1", b"2"]
    assert not bench.instance._observers


def test_observer_may_be_removed_during_a_notification(bench: Bench) -> None:
    connection = bench.login(DEVICE)
    events: list[str] = []

    def once(kind: Traffic, data: bytes) -> None:
        events.append("once")
        bench.instance.unwatch(DEVICE, once)

    bench.instance.watch(DEVICE, once)
    bench.instance.watch(DEVICE, lambda *_: events.append("always"))
    assert connection.observer is not None
    connection.observer(Traffic.SENT, b"1")
    connection.observer(Traffic.SENT, b"2")
    assert events == ["once", "always", "always"]


def test_failing_observer_affects_neither_the_device_nor_other_observers(bench: Bench) -> None:
    connection = bench.login(DEVICE)
    events: Events = []

    def fails(*_: object) -> None:
        raise RuntimeError("failure")

    bench.instance.watch(DEVICE, fails)
    bench.instance.watch(DEVICE, lambda *what: events.append(what))
    assert connection.observer is not None
    with capturedLogs() as logged:
        connection.observer(Traffic.SENT, b"1")
    assert events == [(Traffic.SENT, b"1")]
    assert not connection.closed
    (event,) = logged
    assert formatEvent(event) == f"observer of {DEVICE} failed"
    assert event["log_level"] is LogLevel.critical


# Draining.


def test_drain_closes_connections_one_after_another(drained: Bench) -> None:
    connections = [drained.login(f"{number:015}") for number in range(4)]
    results = drained.drain(2.0)
    assert drained.instance.draining
    closed = []
    for _ in range(4):
        drained.pass_time(0.25)
        closed.append(sum(connection.closed for connection in connections))
        drained.pass_time(0.25)
    assert closed == [1, 2, 3, 4]
    drained.pass_time(0.1)
    assert results == [(4, 0)]
    assert drained.timers == 0


def test_drain_starts_after_the_ports_are_closed(bench: Bench) -> None:
    connection = bench.login(DEVICE)
    results = bench.drain()
    bench.pass_time(1)
    assert not connection.closed
    bench.stop_listening()
    bench.pass_time(0.2)
    assert connection.closed
    assert results == [(1, 0)]


def test_drain_without_devices_ends_at_once(drained: Bench) -> None:
    assert drained.drain(60) == [(0, 0)]


def test_login_during_a_drain_is_refused(drained: Bench) -> None:
    late = Connection(drained.gateway())
    connect(drained.gateway(), late)
    drained.drain(60)
    # Closed without a reply, so that the device reconnects to another instance.
    assert drained.gateway().login(late, DEVICE) is Admission.LATER
    assert drained.instance.counts()["devices"] == 0


def test_drain_waits_for_a_frame_under_way(drained: Bench) -> None:
    connection = drained.login(DEVICE, under_way=True)
    results = drained.drain()
    drained.pass_time(1)
    assert (connection.asked, connection.closed) == (["retire"], False)
    connection.settle()
    assert connection.closed
    drained.pass_time(0.2)
    assert results == [(1, 0)]


def test_drain_closes_a_busy_connection_after_a_timeout(drained: Bench) -> None:
    connection = drained.login(DEVICE, under_way=True)
    results = drained.drain()
    drained.pass_time(RETIRE_TIMEOUT - 0.1)
    assert not connection.closed
    drained.pass_time(0.3)
    assert connection.closed
    assert results == [(1, 0)]
    assert drained.timers == 0


def test_drain_waits_for_an_outstanding_command(drained: Bench) -> None:
    connection = drained.login(DEVICE)
    drained.delivery.loads[DEVICE] = (1, True)
    results = drained.drain()
    drained.pass_time(1)
    assert connection.asked == []
    drained.delivery.loads[DEVICE] = (1, False)  # the queued command is passed on
    drained.pass_time(0.2)
    assert connection.closed
    assert results == [(1, 0)]


def test_drain_waits_for_an_outstanding_command_only_for_a_timeout(drained: Bench) -> None:
    connection = drained.login(DEVICE)
    drained.delivery.loads[DEVICE] = (0, True)
    results = drained.drain()
    drained.pass_time(RETIRE_TIMEOUT + 0.2)
    assert connection.closed
    assert results == [(1, 0)]


def test_drain_reports_a_connection_that_does_not_close(drained: Bench) -> None:
    drained.login(DEVICE, lingers=True)
    drained.login(OTHER)
    results = drained.drain()
    drained.pass_time(2 * RETIRE_TIMEOUT + 0.3)
    assert results == [(1, 1)]
    assert drained.timers == 0


def test_drain_does_not_close_a_device_that_has_disconnected(drained: Bench) -> None:
    connection = drained.login(DEVICE)
    drained.login(OTHER)
    results = drained.drain(2.0)
    connection.close()
    drained.pass_time(2.2)
    assert results == [(2, 0)]


def test_drain_continues_when_its_caller_cancels(drained: Bench) -> None:
    connections = [drained.login(one) for one in (DEVICE, OTHER)]
    asked = drained.instance.drain(1.0)
    results: list[Any] = []
    asked.addErrback(results.append)
    asked.cancel()
    assert len(results) == 1
    drained.pass_time(1.2)
    assert all(connection.closed for connection in connections)
    assert drained.timers == 0


def test_stop_during_a_drain_logs_no_error(drained: Bench) -> None:
    for device_id in (DEVICE, OTHER):
        drained.login(device_id)
    with capturedLogs() as logged:
        results = drained.drain(1.0)
        drained.instance.stopService()
        assert len(results) == 1
        results.clear()
        gc.collect()  # Twisted reports an unhandled failure when its Deferred is freed
    assert [event for event in logged if event["log_level"] >= LogLevel.warn] == []


def test_second_drain_may_be_shorter_than_the_first(drained: Bench) -> None:
    connections = [drained.login(one) for one in (DEVICE, OTHER, THIRD)]
    first, second = drained.drain(60), drained.drain(0)
    drained.pass_time(0.2)
    assert all(connection.closed for connection in connections)
    assert second == [(3, 0)]
    drained.pass_time(60)
    assert first == [(3, 0)]


def test_stop_ends_a_drain(drained: Bench) -> None:
    drained.login(DEVICE)
    drained.login(OTHER)
    results = drained.drain(60)
    stopped: list[object] = []
    drained.instance.stopService().addCallback(stopped.append)
    assert stopped == [None]
    assert len(results) == 1
    assert drained.timers == 0
