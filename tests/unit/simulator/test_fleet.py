"""A fleet: who is in it, what it does together, and the journal it is held to."""

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
from tracker.simulator.fleet import IMEIS, CommandJournal, Fleet, Journal, simulated_imei
from tracker.vendors.teltonika.avl import CODEC_8, CODEC_8E, Codec, Packet, Record
from tracker.vendors.teltonika.login import decode_login
from tracker.vendors.teltonika.positions import entries

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
    """A fleet that is switched on, and its surroundings."""
    clock, endpoint = Clock(), FakeEndpoint()
    clock.advance(NOON)
    behaviour = Behaviour(codec, 1.0, records)
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
    """Every device connects and is let in."""
    connections = [endpoint.accept() for _ in range(endpoint.pending)]
    for connection in connections:
        connection.accept_login()
    return connections


def luhn(number: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value // 10 + value % 10
    return total % 10 == 0


def test_luhn_knows_a_right_number_from_a_wrong_one() -> None:
    assert luhn("490154203237518")  # the example IMEI of the GSMA's numbering guide
    assert not luhn("490154203237517")
    assert not luhn("490154203237581")


@pytest.mark.parametrize("number", [0, 1, 9, 10, 12_345, 999_998, 999_999])
def test_a_simulated_imei_has_15_digits_and_a_right_check_digit(number: int) -> None:
    imei = simulated_imei(number)
    assert len(imei) == 15
    assert imei.isdecimal()
    assert luhn(imei)
    assert imei[8:14] == f"{number:06}"


def test_simulated_imeis_are_all_right_and_all_different() -> None:
    imeis = [simulated_imei(number) for number in range(0, 1_000_000, 997)]
    assert all(map(luhn, imeis))
    assert len(set(imeis)) == len(imeis)


def test_simulated_imeis_are_of_no_real_maker() -> None:
    assert {simulated_imei(number)[:8] for number in (0, 500_000, 999_999)} == {"00000000"}


def test_every_device_of_a_fleet_logs_in_as_itself() -> None:
    fleet, _, endpoint = make_fleet(5)
    logins = [endpoint.accept().received() for _ in range(5)]
    assert [decode_login(login) for login in logins] == [
        Decoded(simulated_imei(number), 17) for number in range(5)
    ]
    assert [device.imei for device in fleet.devices] == [simulated_imei(n) for n in range(5)]
    assert endpoint.attempts == 5


def test_a_fleet_begins_with_the_first_number_it_is_given() -> None:
    fleet, _, _ = make_fleet(3, first=25)
    assert [device.imei for device in fleet.devices] == [simulated_imei(n) for n in (25, 26, 27)]
    make_fleet(2, first=IMEIS - 2)
    with pytest.raises(ValueError, match="1000000"):
        make_fleet(3, first=IMEIS - 2)


def test_fleets_with_numbers_of_their_own_drive_as_one_fleet_would() -> None:
    assert drives(0, count=2) + drives(0, count=3, first=2) == drives(0, count=5)


def test_a_fleet_of_none_does_nothing() -> None:
    fleet, clock, endpoint = make_fleet(0)
    clock.advance(10)
    assert endpoint.attempts == 0
    assert fleet.unacknowledged == 0


def test_counters_are_the_whole_fleets() -> None:
    fleet, clock, endpoint = make_fleet(3)
    connections = connect_all(endpoint)
    clock.pump([1.0, 1.0])
    assert fleet.counters == Counters(connected=3, recorded=6, sent=3)
    assert fleet.unacknowledged == 6
    for connection in connections[:2]:
        connection.acknowledge(1)
    assert fleet.counters == Counters(connected=3, recorded=6, sent=5, acknowledged=2)
    assert fleet.unacknowledged == 4
    connections[2].lose()
    assert fleet.counters.connected == 2


def test_devices_begin_to_record_at_moments_of_their_own() -> None:
    fleet, clock, _ = make_fleet(20)
    clock.advance(0.5)
    assert 0 < fleet.counters.recorded < 20
    clock.advance(0.5)
    assert fleet.counters.recorded >= 20


def test_parking_a_fleet_sends_the_rest_of_every_device() -> None:
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


def test_switching_off_a_fleet_waits_for_every_connection() -> None:
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
    """What the devices of a fleet send at first."""
    _, clock, endpoint = make_fleet(count, records=30, seed=seed, first=first)
    connections = connect_all(endpoint)
    clock.pump([1.0] * 30)
    return [connection.received() for connection in connections]


def test_the_same_seed_gives_the_same_vehicles() -> None:
    first = drives(1)
    assert first == drives(1)
    assert len(set(first)) == 3  # and no two of them drive alike
    assert not set(first) & set(drives(2))


# The journal.


def acknowledge_some(journal: Journal, codec: Codec) -> list[tuple[str, Packet]]:
    """Have a fleet's packets acknowledged: (IMEI, packet) in the order of that."""
    fleet, clock, endpoint = make_fleet(2, records=3, codec=codec, on_acknowledged=journal)
    connections = connect_all(endpoint)
    clock.pump([1.0] * 6)
    done = []
    for _ in range(2):
        for device, connection in zip(fleet.devices, connections, strict=True):
            done.append((device.imei, connection.packet()))
            connection.acknowledge(3)
    return done


@each_codec
def test_the_journal_holds_the_key_of_every_record_that_was_acknowledged(codec: Codec) -> None:
    file = StringIO()
    done = acknowledge_some(Journal(file), codec)
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    # What ingestion makes of the same bytes is what a line has to find again.
    received = [
        entry for imei, packet in done for entry in entries(imei, packet, 0.0, lambda: None)
    ]
    assert len(lines) == 12
    assert lines == [
        {"device_id": entry.device_id, "ts": entry.ts, "digest": digest(entry.payload).hex()}
        for entry in received
    ]


@each_codec
def test_the_journals_digest_is_that_of_a_payload_that_was_read_and_written(codec: Codec) -> None:
    file = StringIO()
    done = acknowledge_some(Journal(file), codec)
    payloads = [
        entry.payload for imei, packet in done for entry in entries(imei, packet, 0.0, lambda: None)
    ]
    again = [Position.from_payload(payload).to_payload() for payload in payloads]
    digests = [json.loads(line)["digest"] for line in file.getvalue().splitlines()]
    assert digests == [digest(payload).hex() for payload in again]
    assert len(set(digests)) == len(digests)


def test_nothing_unacknowledged_is_in_the_journal() -> None:
    file = StringIO()
    _, clock, endpoint = make_fleet(2, on_acknowledged=Journal(file))
    first, second = connect_all(endpoint)
    clock.pump([1.0] * 3)
    first.acknowledge(0)
    second.acknowledge(2)
    assert file.getvalue() == ""


def test_a_line_of_the_journal_is_in_the_file_at_once(tmp_path: Path) -> None:
    record = Record(1_717_230_615_250, 0, 252_796_510, 546_871_550, 112, 45, 14, 87, 0)
    path = tmp_path / "journal.jsonl"
    with path.open("w", encoding="utf-8") as file:
        Journal(file)("356307042441013", CODEC_8, [record])
        (line,) = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "device_id": "356307042441013",
        "ts": "2024-06-01T08:30:15.250Z",
        "digest": "168ffdb05d6aa3a1248473d85a184420",
    }


def test_the_command_journal_holds_what_every_device_executed_in_order() -> None:
    file = StringIO()
    fleet, _, endpoint = make_fleet(2, on_command=CommandJournal(file))
    first, second = connect_all(endpoint)
    first.command("getver")
    second.command("cpureset", fleet.devices[1].imei)
    second.command("getver")  # it is gone
    first.command("setparam 2001:Tiranë", fleet.devices[1].imei)  # that is not this one
    first.command("setparam 2001:Tiranë")
    assert fleet.counters.commands == 3
    assert [json.loads(line) for line in file.getvalue().splitlines()] == [
        {"device_id": simulated_imei(0), "codec": "12", "text": "getver"},
        {"device_id": simulated_imei(1), "codec": "14", "text": "cpureset"},
        {"device_id": simulated_imei(0), "codec": "12", "text": "setparam 2001:Tiranë"},
    ]
    assert file.getvalue().isascii()
