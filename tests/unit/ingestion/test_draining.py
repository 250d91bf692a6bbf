"""Draining an ingest instance."""

from __future__ import annotations

import gc
from typing import Any

from twisted.logger import LogLevel, capturedLogs

from tests.unit.ingestion.instancebench import (
    DEVICE,
    OTHER,
    THIRD,
    Bench,
    Connection,
)
from tests.unit.ingestion.test_gateway import connect
from tracker.ingestion.draining import RETIRE_TIMEOUT
from tracker.interfaces import (
    Admission,
)


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
