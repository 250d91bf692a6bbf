"""The device's side of the protocol."""

from __future__ import annotations

import pytest

from tracker.outcomes import Decoded
from tracker.position import digest
from tracker.vendors.concox.commands import command_frame
from tracker.vendors.concox.content import read_content
from tracker.vendors.concox.fields import date_bytes
from tracker.vendors.concox.frames import Frame, acknowledgement, decode_frame, encode_frame
from tracker.vendors.concox.simulation import UNKNOWN, ConcoxDevice
from tracker.vendors.simulation import (
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
MOMENT = Moment(NOON * 1000, Fix(41.3, 19.8, 110, 90, 50), 19, 12_345)


@pytest.fixture
def device() -> ConcoxDevice:
    made = ConcoxDevice(IMEI)
    assert events(made, answer(made.connected())) == [LoggedIn()]
    return made


def frame(data: bytes) -> Frame:
    outcome = decode_frame(data)
    assert isinstance(outcome, Decoded)
    return outcome.value


def answer(data: bytes) -> bytes:
    """Return the server's acknowledgement of a frame."""
    return acknowledgement(frame(data))


def packet(device: ConcoxDevice, stored: bool = False) -> bytes:
    return device.packet([device.record(MOMENT)], stored)


def events(device: ConcoxDevice, data: bytes) -> list[Event]:
    """Return the events of bytes that arrive one by one."""
    found = []
    for byte in data:
        device.feed(bytes((byte,)))
        while (event := device.next_event()) is not None:
            found.append(event)
            if isinstance(event, Broken):
                return found
    return found


def test_answer_to_a_heartbeat_acknowledges_the_records_before_it(device: ConcoxDevice) -> None:
    packet(device)
    packet(device)
    first = device.heartbeat()
    packet(device)
    second = device.heartbeat()
    assert events(device, answer(first)) == [HeartbeatAnswered(2)]
    assert events(device, answer(second)) == [HeartbeatAnswered(1)]
    assert events(device, answer(device.heartbeat())) == [HeartbeatAnswered(0)]


def test_answer_to_a_later_heartbeat_acknowledges_all_before_it(device: ConcoxDevice) -> None:
    packet(device)
    first = device.heartbeat()
    packet(device)
    assert events(device, answer(device.heartbeat())) == [HeartbeatAnswered(2)]
    assert events(device, answer(first)) == []


def test_heartbeat_of_an_earlier_connection_is_forgotten(device: ConcoxDevice) -> None:
    packet(device)
    beat = device.heartbeat()
    device.connected()
    assert events(device, answer(beat)) == []
    assert events(device, answer(device.heartbeat())) == [HeartbeatAnswered(0)]


def test_stored_record_is_the_same_record_with_the_mark_of_a_reupload(
    device: ConcoxDevice,
) -> None:
    live, stored = packet(device), packet(device, stored=True)
    readings = [read_content(frame(data)) for data in (live, stored)]
    assert [reading is not None and reading.buffered for reading in readings] == [False, True]
    (one,), (other,) = device.entries(live), device.entries(stored)
    assert one.device_id == IMEI
    assert (one.ts, digest(one.payload)) == (other.ts, digest(other.payload))


def test_command_is_received_and_answered_with_its_flag(device: ConcoxDevice) -> None:
    command = encode_frame(command_frame(b"RELAY,1#", 7))
    assert events(device, command) == [CommandReceived("RELAY,1#", "gt06", 7)]
    text = device.execute("RELAY,1#", MOMENT)
    assert text == "Cut off the fuel supply: Success!"
    reading = read_content(frame(device.answer(7, text)))
    assert reading is not None
    assert (reading.attributes["server_flag"], reading.text) == (7, text)
    beat = read_content(frame(device.heartbeat()))
    assert beat is not None
    assert beat.attributes["oil_cut"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WHERE#", "Current position! Lat:N41.300000,Lon:E19.800000,Course:90,Speed:50Km/h"),
        ("relay,0#", "Restore the fuel supply: Success!"),
        ("RESET#", None),
        ("RELAY,2#", UNKNOWN),
        ("DANCE#", UNKNOWN),
    ],
)
def test_commands_are_executed(device: ConcoxDevice, text: str, expected: str | None) -> None:
    assert device.execute(text, MOMENT) == expected


def test_other_answers_of_the_server_are_ignored(device: ConcoxDevice) -> None:
    time = encode_frame(Frame(0x8A, date_bytes(NOON), 1))
    assert events(device, time + answer(packet(device))) == []


def test_bytes_that_are_no_frame_break_the_connection(device: ConcoxDevice) -> None:
    assert events(device, b"HTTP/1.1") == [Broken()]
