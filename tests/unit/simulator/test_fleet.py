"""A fleet of simulated devices, and its journals."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from tests.unit.simulator.fakes import FakeConnection, FakeEndpoint
from tracker.outcomes import Decoded
from tracker.position import Position, digest
from tracker.simulator.device import Behaviour, Counters, OnAcknowledged, OnCommand
from tracker.simulator.fleet import IMEI_COUNT, CommandJournal, Fleet, Journal, simulated_imei
from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, Codec, Packet, Record
from tracker.vendors.teltonika.login import decode_login
from tracker.vendors.teltonika.positions import entries
from tracker.vendors.teltonika.simulation import TeltonikaSimulation

NOON = 1_710_504_000  # 2024-03-15 12:00:00 UTC

each_codec = pytest.mark.parametrize("codec", [CODEC_8, CODEC_8E], ids=lambda codec: codec.name)


def make_fleet(
    count: int = 3,
    records: int = 1,
    codec: Codec = CODEC_8E,
    on_acknowledged: OnAcknowledged | None = None,
    seed: int = 0,
    first: int = 0,
    on_command: OnCommand | None = None,
) -> tuple[Fleet, Clock, FakeEndpoint]:
    """Return a fleet that is switched on, with its clock and endpoint."""
    clock, endpoint = Clock(), FakeEndpoint()
    clock.advance(NOON)
    behaviour = Behaviour(TeltonikaSimulation(), codec.name, 1.0, records)
    fleet = Fleet(
        clock,
        endpoint,
        count,
        behaviour,
        on_acknowledged=on_acknowledged,
        seed=seed,
        first=first,
        on_command=on_command,
    )
    fleet.startService()
    return fleet, clock, endpoint


def connect_all(endpoint: FakeEndpoint) -> list[FakeConnection]:
    """Accept every pending connection and its login."""
    connections = [endpoint.accept() for _ in range(endpoint.pending)]
    for connection in connections:
        connection.accept_login()
    return connections


def luhn(number: str) -> bool:
    """Return True if the last digit is the check digit (ISO/IEC 7812-1, annex B)."""
    total = 0
    for index, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if index % 2 else 1)
        total += value // 10 + value % 10
    return total % 10 == 0


def test_luhn_accepts_only_a_valid_check_digit() -> None:
    assert luhn("490154203237518")  # the example IMEI of the GSMA's numbering guide
    assert not luhn("490154203237517")
    assert not luhn("490154203237581")


@pytest.mark.parametrize("number", [0, 1, 9, 10, 12_345, 999_998, 999_999])
def test_simulated_imei_has_15_digits_and_a_valid_check_digit(number: int) -> None:
    imei = simulated_imei(number)
    assert len(imei) == 15
    assert imei.isdecimal()
    assert luhn(imei)
    assert imei[8:14] == f"{number:06}"


def test_simulated_imeis_are_valid_and_distinct() -> None:
    imeis = [simulated_imei(number) for number in range(0, 1_000_000, 997)]
    assert all(map(luhn, imeis))
    assert len(set(imeis)) == len(imeis)


def test_simulated_imeis_have_a_type_allocation_code_for_test_equipment() -> None:
    assert {simulated_imei(number)[:8] for number in (0, 500_000, 999_999)} == {"00101700"}


@pytest.mark.parametrize("number", [-1, IMEI_COUNT])
def test_serial_number_of_more_than_six_digits_is_rejected(number: int) -> None:
    with pytest.raises(ValueError, match="numbered 0 to 999999"):
        simulated_imei(number)


def test_each_device_of_a_fleet_logs_in_with_its_own_imei() -> None:
    fleet, _, endpoint = make_fleet(5)
    logins = [endpoint.accept().received() for _ in range(5)]
    assert [decode_login(login) for login in logins] == [
        Decoded(simulated_imei(number), 17) for number in range(5)
    ]
    assert [device.device_id for device in fleet.devices] == [simulated_imei(n) for n in range(5)]
    assert endpoint.attempts == 5


def test_imeis_of_a_fleet_start_at_the_given_number() -> None:
    fleet, _, _ = make_fleet(3, first=25)
    assert [device.device_id for device in fleet.devices] == [
        simulated_imei(n) for n in (25, 26, 27)
    ]
    make_fleet(2, first=IMEI_COUNT - 2)
    with pytest.raises(ValueError, match="1000000"):
        make_fleet(3, first=IMEI_COUNT - 2)


def test_two_fleets_of_consecutive_numbers_drive_like_one_fleet() -> None:
    assert drives(0, count=2) + drives(0, count=3, first=2) == drives(0, count=5)


def test_empty_fleet_does_nothing() -> None:
    fleet, clock, endpoint = make_fleet(0)
    clock.advance(10)
    assert endpoint.attempts == 0
    assert fleet.unacknowledged == 0


def test_counters_are_sums_over_all_devices() -> None:
    fleet, clock, endpoint = make_fleet(3)
    connections = connect_all(endpoint)
    clock.pump([1.0, 1.0])
    assert fleet.counters == Counters(connected=3, recorded=6, sent=3, accepted_connections=3)
    assert fleet.unacknowledged == 6
    for connection in connections[:2]:
        connection.acknowledge(1)
    assert fleet.counters == Counters(
        connected=3, recorded=6, sent=5, acknowledged=2, accepted_connections=3
    )
    assert fleet.unacknowledged == 4
    connections[2].lose()
    assert fleet.counters.connected == 2


def test_devices_start_recording_at_different_times() -> None:
    fleet, clock, _ = make_fleet(20)
    clock.advance(0.5)
    assert 0 < fleet.counters.recorded < 20
    clock.advance(0.5)
    assert fleet.counters.recorded >= 20


def test_parked_fleet_sends_the_remaining_records_of_every_device() -> None:
    fleet, clock, endpoint = make_fleet(3, records=10)
    connections = connect_all(endpoint)
    clock.pump([1.0, 1.0])
    fleet.stop_recording()
    for connection in connections:
        assert len(connection.packet().records) == 2
        connection.acknowledge(2)
    clock.pump([1.0] * 3)
    assert fleet.unacknowledged == 0
    assert fleet.counters.recorded == fleet.counters.acknowledged == 6


def test_switching_off_a_fleet_waits_for_the_end_of_every_connection() -> None:
    fleet, clock, endpoint = make_fleet(3)
    connections = connect_all(endpoint)
    stopped = fleet.stopService()
    for connection in connections:
        assert connection.closing
        assert not stopped.called
        connection.lose()
    assert stopped.called
    assert clock.getDelayedCalls() == []


def drives(seed: int, count: int = 3, first: int = 0) -> list[bytes]:
    """Return the first packet of each device, as bytes."""
    _, clock, endpoint = make_fleet(count, records=30, seed=seed, first=first)
    connections = connect_all(endpoint)
    clock.pump([1.0] * 30)
    return [connection.received() for connection in connections]


def test_same_seed_gives_the_same_drives() -> None:
    first = drives(1)
    assert first == drives(1)
    assert len(set(first)) == 3  # the vehicles of a fleet drive differently
    assert not set(first) & set(drives(2))


# The journal.


def acknowledge_some(journal: Journal, codec: Codec) -> list[tuple[str, Packet]]:
    """Acknowledge a fleet's packets; return them as (IMEI, packet) in that order."""
    fleet, clock, endpoint = make_fleet(2, records=3, codec=codec, on_acknowledged=journal)
    connections = connect_all(endpoint)
    clock.pump([1.0] * 6)
    acknowledged = []
    for _ in range(2):
        for device, connection in zip(fleet.devices, connections, strict=True):
            acknowledged.append((device.device_id, connection.packet()))
            connection.acknowledge(3)
    return acknowledged


@each_codec
def test_journal_holds_the_key_of_every_acknowledged_record(codec: Codec) -> None:
    file = StringIO()
    acknowledged = acknowledge_some(Journal(file), codec)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    # The keys must equal those that ingestion computes from the same packets.
    received = [
        entry for imei, packet in acknowledged for entry in entries(imei, packet, 0.0, lambda: None)
    ]
    assert len(lines) == 12
    assert lines == [
        {"device_id": entry.device_id, "ts": entry.ts, "digest": digest(entry.payload).hex()}
        for entry in received
    ]


@each_codec
def test_digest_in_the_journal_survives_a_round_trip_of_the_payload(codec: Codec) -> None:
    file = StringIO()
    acknowledged = acknowledge_some(Journal(file), codec)
    payloads = [
        entry.payload
        for imei, packet in acknowledged
        for entry in entries(imei, packet, 0.0, lambda: None)
    ]
    again = [Position.from_payload(payload).to_payload() for payload in payloads]
    digests = [json.loads(line)["digest"] for line in file.getvalue().splitlines()]
    assert digests == [digest(payload).hex() for payload in again]
    assert len(set(digests)) == len(digests)


def test_unacknowledged_record_is_not_in_the_journal() -> None:
    file = StringIO()
    _, clock, endpoint = make_fleet(2, on_acknowledged=Journal(file))
    first, second = connect_all(endpoint)
    clock.pump([1.0] * 3)
    first.acknowledge(0)
    second.acknowledge(2)
    assert file.getvalue() == ""


def test_journal_flushes_each_line(tmp_path: Path) -> None:
    record = Record(1_717_230_615_250, 0, 252_796_510, 546_871_550, 112, 45, 14, 87, 0)
    path = tmp_path / "journal.jsonl"
    with path.open("w", encoding="utf-8") as file:
        Journal(file)(entries("356307042441013", Packet(CODEC_8, (record,)), 0.0, lambda: None))
        (line,) = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "device_id": "356307042441013",
        "ts": "2024-06-01T08:30:15.250Z",
        "digest": "168ffdb05d6aa3a1248473d85a184420",
    }


def test_command_journal_holds_executed_commands_in_order() -> None:
    file = StringIO()
    fleet, _, endpoint = make_fleet(2, on_command=CommandJournal(file))
    first, second = connect_all(endpoint)
    first.command("getver")
    second.command("cpureset", fleet.devices[1].device_id)
    second.command("getver")  # ignored, because the device is restarting
    first.command("setparam 2001:Tiranë", fleet.devices[1].device_id)  # the IMEI of another device
    first.command("setparam 2001:Tiranë")
    assert fleet.counters.commands == 3
    assert [json.loads(line) for line in file.getvalue().splitlines()] == [
        {"device_id": simulated_imei(0), "codec": "12", "text": "getver"},
        {"device_id": simulated_imei(1), "codec": "14", "text": "cpureset"},
        {"device_id": simulated_imei(0), "codec": "12", "text": "setparam 2001:Tiranë"},
    ]
    assert file.getvalue().isascii()
