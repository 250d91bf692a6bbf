"""An ingest instance: its counts, observers and drops."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent
from zope.interface.verify import verifyObject

from tests.unit.ingestion.instancebench import (
    DEVICE,
    OTHER,
    THIRD,
    Bench,
    Connection,
    Events,
    Vendor,
)
from tests.unit.ingestion.test_gateway import connect
from tracker.command import Command
from tracker.interfaces import (
    ConnectionFacts,
    ConnectionFigures,
    IInstance,
    IVendor,
    Traffic,
)


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
