"""Simulated devices whose protocols have heartbeats, no ACKs, or no login."""

from __future__ import annotations

import pytest

from tests.unit.simulator.bench import Bench, switch_on
from tests.unit.simulator.fakes import FakeConnection
from tracker.outcomes import Decoded
from tracker.vendors.concox.content import HEARTBEAT, POSITION, read_content
from tracker.vendors.concox.frames import Frame, acknowledgement, decode_frame
from tracker.vendors.concox.simulation import ConcoxSimulation
from tracker.vendors.queclink.simulation import QueclinkSimulation

BEAT = ConcoxSimulation.heartbeat_interval
TIMEOUT = ConcoxSimulation.response_timeout


def frames(connection: FakeConnection) -> list[Frame]:
    """Return the Concox frames that the device has sent since the last call."""
    data, found = connection.received(), []
    while data:
        outcome = decode_frame(data)
        assert isinstance(outcome, Decoded)
        found.append(outcome.value)
        data = data[outcome.used :]
    return found


def numbers(connection: FakeConnection) -> list[int]:
    return [frame.number for frame in frames(connection)]


def buffered(connection: FakeConnection) -> list[bool]:
    """Return the marks of a re-upload of the positions that the device has sent."""
    readings = map(read_content, frames(connection))
    return [reading.buffered for reading in readings if reading is not None]


def log_in(bench: Bench) -> FakeConnection:
    """Accept the pending connection of a Concox device and its login."""
    connection = bench.endpoint.accept()
    (login,) = frames(connection)
    connection.send(acknowledgement(login))
    return connection


def answer_heartbeat(bench: Bench, connection: FakeConnection) -> int:
    """Answer the heartbeat that the device sends next; return the number of its positions."""
    bench.clock.advance(BEAT)
    *positions, beat = frames(connection)
    assert beat.number == HEARTBEAT
    connection.send(acknowledgement(beat))
    return len(positions)


# Without ACKs.


@pytest.fixture
def concox() -> Bench:
    return switch_on(simulation=ConcoxSimulation())


def test_device_without_acks_sends_each_record_at_once(concox: Bench) -> None:
    connection = log_in(concox)
    concox.record(3)
    assert numbers(connection) == [POSITION] * 3
    assert concox.counters.acknowledged == 0
    assert concox.device.unacknowledged == 3


def test_answer_to_a_heartbeat_acknowledges_the_records_that_were_sent(concox: Bench) -> None:
    connection = log_in(concox)
    sent = answer_heartbeat(concox, connection)
    assert concox.counters.acknowledged == sent > 0
    assert len(concox.acknowledged) == sent


def test_heartbeat_without_an_answer_aborts_the_connection(concox: Bench) -> None:
    connection = log_in(concox)
    concox.clock.advance(BEAT)
    concox.clock.advance(TIMEOUT - 0.01)
    assert not connection.aborted
    concox.clock.advance(0.01)
    assert connection.aborted


def test_record_that_was_sent_without_an_answer_is_not_kept(concox: Bench) -> None:
    connection = log_in(concox)
    concox.record(2)
    connection.lose()
    assert concox.counters.unconfirmed == 2
    assert concox.device.unacknowledged == 0
    concox.wait_for_attempt()
    connection = log_in(concox)
    assert frames(connection) == []


def test_record_is_kept_while_the_login_is_unanswered(concox: Bench) -> None:
    connection = concox.endpoint.accept()
    concox.record(4)
    assert len(frames(connection)) == 1  # the login
    concox.clock.advance(TIMEOUT)
    assert connection.aborted
    connection.lose()
    concox.wait_for_attempt()
    kept = concox.device.unacknowledged
    connection = log_in(concox)
    assert buffered(connection) == [True] * kept
    concox.record()
    assert buffered(connection) == [False]
    assert concox.counters.unconfirmed == 0


def test_parked_device_asks_for_the_confirmation_of_its_last_records(concox: Bench) -> None:
    connection = log_in(concox)
    concox.record(2)
    frames(connection)
    concox.device.stop_recording()
    (beat,) = frames(connection)
    assert beat.number == HEARTBEAT
    connection.send(acknowledgement(beat))
    assert (concox.counters.acknowledged, concox.device.unacknowledged) == (2, 0)


def test_parked_device_sends_what_it_kept_and_asks_for_the_confirmation(concox: Bench) -> None:
    concox.record(2)
    concox.device.stop_recording()
    connection = log_in(concox)
    assert numbers(connection) == [POSITION, POSITION, HEARTBEAT]


def test_switching_off_cancels_the_heartbeats(concox: Bench) -> None:
    connection = log_in(concox)
    concox.clock.advance(BEAT)
    concox.device.stopService()
    connection.lose()
    assert concox.clock.getDelayedCalls() == []


# Without a login.


@pytest.fixture
def queclink() -> Bench:
    return switch_on(simulation=QueclinkSimulation())


def reports(connection: FakeConnection) -> list[bytes]:
    """Return the frames that the device has sent since the last call."""
    return connection.received().split(b"$")[:-1]


def sack(report: bytes) -> bytes:
    return b"+SACK:" + report.rpartition(b",")[2] + b"$"


def test_device_without_a_login_sends_reports_at_once(queclink: Bench) -> None:
    connection = queclink.endpoint.accept()
    queclink.record(2)
    (report,) = reports(connection)
    assert report.startswith(b"+RESP:GTFRI,")
    assert queclink.counters.connected == 0
    connection.send(sack(report))
    assert (queclink.counters.connected, queclink.counters.acknowledged) == (1, 1)
    assert len(reports(connection)) == 1


def test_report_without_an_ack_is_sent_again_as_buffered(queclink: Bench) -> None:
    connection = queclink.endpoint.accept()
    queclink.record()
    (report,) = reports(connection)
    connection.lose()
    queclink.wait_for_attempt()
    (again,) = reports(queclink.endpoint.accept())
    assert again == report.replace(b"+RESP", b"+BUFF")
    assert queclink.counters.retransmitted == 1


def test_connection_without_an_answer_does_not_reset_the_delay_of_the_next(
    queclink: Bench,
) -> None:
    for _ in range(5):
        queclink.endpoint.accept().lose()
        waited = queclink.wait_for_attempt()
    assert waited >= 2.0
