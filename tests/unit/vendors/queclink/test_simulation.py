"""The device's side of the protocol."""

from __future__ import annotations

from random import Random

import pytest

from tracker.position import digest
from tracker.vendors.queclink.simulation import QueclinkDevice
from tracker.vendors.simulation import (
    Acknowledged,
    Broken,
    CommandReceived,
    Event,
    Fix,
    HeartbeatAnswered,
    LoggedIn,
    Moment,
)

IMEI = "001017000000003"
NOON = 1_710_504_000  # 2024-03-15 12:00:00 UTC


@pytest.fixture
def device() -> QueclinkDevice:
    made = QueclinkDevice(IMEI, Random(1), NOON)
    assert made.connected() == b""
    return made


def moment(second: int) -> Moment:
    return Moment((NOON + second) * 1000, Fix(41.3, 19.8, 110, 90, 50), 9, 12_345)


def packet(device: QueclinkDevice, second: int = 0, stored: bool = False) -> bytes:
    return device.packet([device.record(moment(second))], stored)


def events(device: QueclinkDevice, data: bytes) -> list[Event]:
    """Return the events of bytes that arrive one by one."""
    found = []
    for byte in data:
        device.feed(bytes((byte,)))
        while (event := device.next_event()) is not None:
            found.append(event)
            if isinstance(event, Broken):
                return found
    return found


def sack(report: bytes) -> bytes:
    return b"+SACK:" + report.rpartition(b",")[2]


def test_sack_of_the_report_acknowledges_it(device: QueclinkDevice) -> None:
    report = packet(device)
    assert report.startswith(b"+RESP:GTFRI,060100,001017000000003,")
    assert events(device, sack(report)) == [LoggedIn(), Acknowledged(True)]
    assert events(device, sack(packet(device, 1))) == [Acknowledged(True)]


def test_sack_with_another_count_number_is_ignored(device: QueclinkDevice) -> None:
    packet(device)
    assert events(device, b"+SACK:FFFF$") == [LoggedIn()]


def test_heartbeat_is_answered_between_reports(device: QueclinkDevice) -> None:
    beat = device.heartbeat()
    assert beat.startswith(b"+ACK:GTHBD,060100,001017000000003,")
    answer = b"+SACK:GTHBD,060100," + beat.rpartition(b",")[2]
    assert events(device, answer) == [LoggedIn(), HeartbeatAnswered()]


def test_report_that_is_sent_again_is_the_same_record(device: QueclinkDevice) -> None:
    record = device.record(moment(0))
    first = device.packet([record], False)
    device.connected()
    device.heartbeat()  # takes a count number
    again = device.packet([record], True)
    assert again == first.replace(b"+RESP", b"+BUFF")
    (one,), (other,) = device.entries(first), device.entries(again)
    assert (one.ts, digest(one.payload)) == (other.ts, digest(other.payload))


def test_records_of_a_report_are_entries_of_their_own(device: QueclinkDevice) -> None:
    records = [device.record(moment(second)) for second in range(3)]
    entries = device.entries(device.packet(records, False))
    assert [entry.ts for entry in entries] == [f"2024-03-15T12:00:0{n}.000Z" for n in range(3)]
    assert len({digest(entry.payload) for entry in entries}) == 3


def test_command_is_received_without_its_password(device: QueclinkDevice) -> None:
    frame = b"AT+GTRTO=secret,1,,,,,,00A1$"
    (event,) = events(device, frame)
    assert event == CommandReceived("AT+GTRTO=***,1,,,,,,00A1$", "ascii", frame)
    text = device.execute("AT+GTRTO=***,1,,,,,,00A1$", moment(5))
    answer = device.answer(frame, text)
    assert answer.startswith(b"+ACK:GTRTO,060100,001017000000003,,00A1,20240315120005,")


@pytest.mark.parametrize("data", [b"GET /", b"+SACK:x$", b"AT+GTRTO$"])
def test_other_bytes_break_the_connection(device: QueclinkDevice, data: bytes) -> None:
    assert events(device, data)[-1] == Broken()
