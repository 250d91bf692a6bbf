"""Login and packets of a simulated device."""

from __future__ import annotations

from itertools import pairwise

import pytest
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface.verify import verifyObject

from tests.unit.simulator.bench import (
    HOME,
    IMEI,
    LOGIN,
    NOON,
    RESPONSE_TIMEOUT,
    switch_on,
    timestamps,
)
from tests.unit.simulator.fakes import FakeEndpoint
from tracker.simulator.device import Counters
from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, Codec
from tracker.vendors.teltonika.positions import entries


def test_fake_endpoint_implements_the_interface() -> None:
    assert verifyObject(IStreamClientEndpoint, FakeEndpoint())


# Login.


def test_device_connects_and_logs_in_when_switched_on() -> None:
    bench = switch_on()
    assert bench.endpoint.attempts == 1
    connection = bench.endpoint.accept()
    assert connection.received() == LOGIN
    assert bench.counters.connected == 0
    connection.send(b"\x01")
    assert bench.counters.connected == 1


def test_no_packet_is_sent_before_the_login_is_accepted() -> None:
    bench = switch_on()
    connection = bench.endpoint.accept()
    assert connection.received() == LOGIN
    bench.record(5)
    assert connection.received() == b""
    assert bench.counters.sent == 0


@pytest.mark.parametrize("reply", [b"\x00", b"\x02", b"\xff", b"\x00\x00\x00\x01"])
def test_refused_login_aborts_the_connection(reply: bytes) -> None:
    bench = switch_on()
    bench.record()
    connection = bench.endpoint.accept()
    connection.received()
    connection.send(reply)
    assert connection.aborted
    assert connection.received() == b""
    assert (bench.counters.refused_logins, bench.counters.connected) == (1, 0)


def test_refused_device_reconnects_and_keeps_its_records() -> None:
    bench = switch_on()
    bench.record()
    connection = bench.endpoint.accept()
    connection.send(b"\x00")
    connection.lose()
    bench.wait_for_attempt()
    assert len(bench.log_in().packet().records) == bench.device.unacknowledged
    assert bench.counters.connected == 1
    assert bench.counters.retransmitted == 0


def test_login_without_a_reply_times_out() -> None:
    bench = switch_on()
    connection = bench.endpoint.accept()
    bench.clock.advance(RESPONSE_TIMEOUT - 0.01)
    assert not connection.closing
    bench.clock.advance(0.01)
    assert connection.aborted


# One packet at a time.


@pytest.mark.parametrize("codec", [CODEC_8, CODEC_8E], ids=lambda codec: codec.name)
def test_record_is_sent_when_it_is_made(codec: Codec) -> None:
    bench = switch_on(codec=codec)
    connection = bench.log_in()
    assert connection.received() == b""
    bench.record()
    packet = connection.packet()
    assert packet.codec is codec
    (record,) = packet.records
    assert record.timestamp == int(bench.clock.seconds() * 1000)
    assert abs(record.latitude / 1e7 - HOME[0]) < 0.1
    assert abs(record.longitude / 1e7 - HOME[1]) < 0.1
    assert record.satellites > 0
    assert (24, 2, record.speed) in record.elements


def test_packet_waits_for_the_acknowledgement_of_the_previous_one() -> None:
    bench = switch_on()
    connection = bench.log_in()
    bench.record()
    assert len(connection.packet().records) == 1
    bench.record(3)
    assert connection.received() == b""
    connection.acknowledge(1)
    assert len(connection.packet().records) == 1
    assert connection.received() == b""


def test_no_packet_follows_the_acknowledgement_of_the_last_record() -> None:
    bench = switch_on()
    connection = bench.log_in()
    bench.record()
    connection.received()
    connection.acknowledge(1)
    assert connection.received() == b""
    assert bench.device.unacknowledged == 0


def test_records_are_saved_until_the_packet_is_full() -> None:
    bench = switch_on(records=3)
    connection = bench.log_in()
    bench.record(2)
    assert connection.received() == b""
    bench.record()
    assert len(timestamps(connection)) == 3


def test_each_record_is_sent_once_oldest_first() -> None:
    bench = switch_on(records=2)
    bench.record(7)
    connection = bench.log_in()
    sent = []
    for _ in range(3):
        sent.append(timestamps(connection))
        connection.acknowledge(2)
    assert connection.received() == b""  # only one record is left, and a packet has two
    bench.record()
    sent.append(timestamps(connection))
    assert [len(packet) for packet in sent] == [2, 2, 2, 2]
    times = [time for packet in sent for time in packet]
    assert times == sorted(set(times))
    assert times[0] // 1000 == NOON + 1
    assert times[-1] // 1000 == NOON + 8


def test_acknowledgement_may_arrive_in_pieces() -> None:
    bench = switch_on()
    connection = bench.log_in()
    bench.record(2)
    connection.received()
    for byte in (0, 0, 0):
        connection.send(bytes((byte,)))
        assert bench.counters.acknowledged == 0
    connection.send(b"\x01")
    assert bench.counters.acknowledged == 1
    assert len(connection.packet().records) == 1


@pytest.mark.parametrize("count", [1, 3, 0x02000000, 0xFFFFFFFF])
def test_acknowledgement_with_another_count_causes_a_retransmission(count: int) -> None:
    bench = switch_on(records=2)
    connection = bench.log_in()
    bench.record(2)
    sent = connection.received()
    connection.acknowledge(count)
    assert connection.received() == sent
    assert bench.device.unacknowledged == 2
    assert bench.acknowledged == []
    assert bench.counters == Counters(
        connected=1, recorded=2, sent=4, retransmitted=2, accepted_connections=1
    )
    connection.acknowledge(2)
    assert connection.received() == b""
    assert bench.device.unacknowledged == 0
    assert bench.counters.acknowledged == 2


def test_acknowledgement_of_zero_records_is_read_as_the_start_of_a_command() -> None:
    bench = switch_on(records=2, response_timeout=5)
    connection = bench.log_in()
    bench.record(2)
    sent = connection.received()
    connection.acknowledge(0)
    assert connection.received() == b""
    bench.clock.advance(5)
    assert connection.aborted
    connection.lose()
    bench.wait_for_attempt()
    assert bench.log_in().received() == sent
    assert bench.counters.acknowledged == 0


def test_acknowledged_records_are_reported_once_with_device_and_codec() -> None:
    bench = switch_on(records=2, codec=CODEC_8)
    connection = bench.log_in()
    bench.record(4)
    first = connection.packet()
    connection.acknowledge(2)
    second = connection.packet()
    connection.acknowledge(2)
    assert bench.acknowledged == [
        entries(IMEI, packet, 0.0, lambda: None) for packet in (first, second)
    ]


def test_records_of_the_same_millisecond_have_different_timestamps() -> None:
    bench = switch_on(records=8, interval=0.000_1)
    bench.record(8)
    times = timestamps(bench.log_in())
    assert len(set(times)) == 8
    assert times == sorted(times)


def test_odometer_and_movement_agree_with_the_speed() -> None:
    bench = switch_on(records=200)
    bench.record(200)
    records = bench.log_in().packet().records
    elements = [{number: int(value) for number, _, value in record.elements} for record in records]
    assert {record.speed > 0 for record in records} == {True, False}
    for record, values in zip(records, elements, strict=True):
        assert values[24] == record.speed
        assert values[240] == int(record.speed > 0)  # movement
    for before, after in pairwise(elements):
        assert after[16] - before[16] == round(after[24] / 3.6)  # odometer, metres
