"""Retransmission, reconnects, parking and switching off of a simulated device."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.error import ConnectError

from tests.unit.simulator.bench import INTERVAL, switch_on, timestamps
from tracker.simulator.device import FIRST_RETRY, LAST_RETRY, Counters

# Losing the connection.


def test_unacknowledged_packet_is_retransmitted_unchanged_after_a_reconnect() -> None:
    bench = switch_on(records=2)
    connection = bench.log_in()
    bench.record(3)
    sent = connection.received()
    connection.lose()
    bench.record(4)  # new records are not added to the packet that was sent
    connection = bench.log_in()
    assert connection.received() == sent
    assert bench.counters.retransmitted == 2
    connection.acknowledge(2)
    assert len(connection.packet().records) == 2
    assert bench.counters.retransmitted == 2


def test_packet_is_retransmitted_until_it_is_acknowledged() -> None:
    bench = switch_on()
    bench.record()
    connection = bench.log_in()
    sent = connection.received()
    for times in range(1, 4):
        connection.lose()
        bench.wait_for_attempt()
        connection = bench.log_in()
        assert connection.received() == sent
        assert bench.counters.retransmitted == times
    connection.acknowledge(1)
    assert bench.counters.acknowledged == 1


def test_acknowledged_record_is_not_retransmitted() -> None:
    bench = switch_on()
    connection = bench.log_in()
    bench.record(2)
    (first,) = timestamps(connection)
    connection.acknowledge(1)
    (second,) = timestamps(connection)
    connection.lose()
    bench.wait_for_attempt()
    assert timestamps(bench.log_in()) == [second]
    assert first != second


def test_partial_acknowledgement_is_discarded_with_its_connection() -> None:
    bench = switch_on()
    bench.record()
    connection = bench.log_in()
    sent = connection.received()
    connection.send(b"\x00\x00")
    connection.lose()
    bench.wait_for_attempt()
    connection = bench.log_in()
    assert connection.received() == sent
    connection.send(b"\x00\x01")
    assert bench.counters.acknowledged == 0
    connection.send(b"\x00\x01")
    assert connection.received() == sent  # the device has read 0x00010001 records


def test_recording_continues_without_a_connection() -> None:
    bench = switch_on()
    bench.endpoint.refuse()
    bench.record(10)
    assert bench.device.unacknowledged == 10
    assert isinstance(bench.counters.failure, ConnectError)
    assert evolve(bench.counters, failure=None) == Counters(recorded=10)


def test_response_timeout_aborts_the_connection() -> None:
    bench = switch_on(response_timeout=5, records=100)
    bench.record(100)
    connection = bench.log_in()
    connection.received()
    bench.clock.advance(4.99)
    assert not connection.closing
    bench.clock.advance(0.01)
    assert connection.aborted
    assert bench.counters.acknowledged == 0


def test_acknowledgement_stops_the_response_timeout() -> None:
    bench = switch_on(response_timeout=5, records=100)
    bench.record(100)
    connection = bench.log_in()
    connection.received()
    bench.clock.advance(4.99)
    connection.acknowledge(100)
    bench.clock.advance(20)
    assert not connection.closing


def test_response_timeout_starts_again_with_each_packet() -> None:
    bench = switch_on(response_timeout=5, records=100)
    bench.record(200)
    connection = bench.log_in()
    bench.clock.advance(4)
    connection.acknowledge(100)
    bench.clock.advance(4.99)
    assert not connection.closing
    bench.clock.advance(0.02)
    assert connection.aborted


def test_response_timeout_of_a_lost_connection_does_not_abort_the_next() -> None:
    bench = switch_on(response_timeout=5)
    bench.record()
    bench.log_in().lose()
    bench.wait_for_attempt()
    connection = bench.log_in()
    connection.acknowledge(1)
    for _ in range(20):
        connection.received()
        bench.clock.advance(INTERVAL)
        connection.acknowledge(1)
    assert not connection.closing


def test_delay_between_attempts_to_connect_grows_up_to_a_limit() -> None:
    bench = switch_on()
    due = FIRST_RETRY
    for _ in range(8):
        bench.endpoint.refuse()
        waited = bench.wait_for_attempt()
        assert due / 2 - 0.02 <= waited <= due + 0.02
        due = min(2 * due, LAST_RETRY)
    assert due == LAST_RETRY
    assert bench.endpoint.attempts == 9


def test_login_resets_the_delay_between_attempts_to_connect() -> None:
    bench = switch_on()
    for _ in range(6):
        bench.endpoint.refuse()
        bench.wait_for_attempt()
    bench.log_in().lose()
    assert bench.wait_for_attempt() <= FIRST_RETRY + 0.02


def test_connection_without_a_login_does_not_reset_the_delay() -> None:
    bench = switch_on()
    for _ in range(5):
        bench.endpoint.accept().lose()
        waited = bench.wait_for_attempt()
    assert waited >= 2.0
    assert bench.counters.connected == 0


def test_device_has_one_connection_at_a_time() -> None:
    bench = switch_on()
    bench.log_in()
    for _ in range(60):
        bench.clock.advance(INTERVAL / 2)
    assert bench.endpoint.attempts == 1


def test_counter_connected_is_the_number_of_devices_logged_in() -> None:
    bench = switch_on()
    assert bench.counters.connected == 0
    connection = bench.log_in()
    assert bench.counters.connected == 1
    connection.lose()
    assert bench.counters.connected == 0
    bench.wait_for_attempt()
    bench.log_in()
    assert bench.counters.connected == 1


# Parking and switching off.


def test_parked_device_sends_a_last_packet_that_is_not_full() -> None:
    bench = switch_on(records=5)
    connection = bench.log_in()
    bench.record(7)
    assert len(timestamps(connection)) == 5
    bench.device.stop_recording()
    assert connection.received() == b""  # the acknowledgement is still pending
    connection.acknowledge(5)
    assert len(timestamps(connection)) == 2
    connection.acknowledge(2)
    assert bench.device.unacknowledged == 0
    assert bench.counters == Counters(
        connected=1, recorded=7, sent=7, acknowledged=7, accepted_connections=1
    )


def test_device_that_is_parked_sends_its_saved_records_at_once() -> None:
    bench = switch_on(records=5)
    connection = bench.log_in()
    bench.record(2)
    bench.device.stop_recording()
    assert len(timestamps(connection)) == 2


def test_parked_device_does_not_record() -> None:
    bench = switch_on()
    bench.record(2)
    bench.device.stop_recording()
    bench.clock.pump([INTERVAL] * 5)
    assert bench.counters.recorded == 2


def test_device_parked_before_its_first_record_does_not_record() -> None:
    bench = switch_on()
    connection = bench.log_in()
    bench.device.stop_recording()
    bench.clock.pump([INTERVAL] * 5)
    assert bench.counters.recorded == 0
    assert connection.received() == b""


def test_parked_device_retransmits_after_a_lost_connection() -> None:
    bench = switch_on(records=5)
    connection = bench.log_in()
    bench.record(2)
    bench.device.stop_recording()
    sent = connection.received()
    connection.lose()
    bench.wait_for_attempt()
    connection = bench.log_in()
    assert connection.received() == sent
    connection.acknowledge(2)
    assert bench.device.unacknowledged == 0


def test_switching_off_closes_the_connection_and_waits_for_its_end() -> None:
    bench = switch_on()
    connection = bench.log_in()
    stopped = bench.device.stopService()
    assert connection.closing
    assert not connection.aborted
    assert not stopped.called
    connection.lose()
    assert stopped.called
    assert bench.counters.connected == 0
    assert bench.clock.getDelayedCalls() == []
    assert bench.endpoint.attempts == 1


def test_switching_off_cancels_the_response_timeout() -> None:
    bench = switch_on()
    bench.record()
    connection = bench.log_in()
    bench.device.stopService()
    connection.lose()
    assert bench.clock.getDelayedCalls() == []


def test_switching_off_cancels_an_attempt_to_connect() -> None:
    bench = switch_on()
    stopped = bench.device.stopService()
    assert bench.endpoint.cancelled == 1
    assert stopped.called
    assert bench.clock.getDelayedCalls() == []


def test_switching_off_cancels_the_next_attempt_to_connect() -> None:
    bench = switch_on()
    bench.endpoint.refuse()
    stopped = bench.device.stopService()
    assert stopped.called
    assert bench.clock.getDelayedCalls() == []
    bench.clock.advance(2 * LAST_RETRY)
    assert bench.endpoint.attempts == 1
