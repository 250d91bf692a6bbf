"""Entries of frames in the ASCII encoding."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.vendors.queclink.golden import (
    COMMAND_ANSWER,
    FRI_CELL_ONLY,
    FRI_GV300,
    FRI_TWO_POSITIONS,
    GOLDEN,
    IDS,
    IGN_STALE,
    Golden,
)
from tracker.position import Entry, Position
from tracker.vendors.queclink.records import text_records
from tracker.vendors.queclink.text import TextFrame, parse_text

NOW = 1_700_000_000.0


def entries_of(data: bytes, zone: int = 0, message_bytes: int = 8192) -> list[Entry]:
    frame = parse_text(data.decode().removesuffix("$"))
    assert isinstance(frame, TextFrame)
    return text_records(frame, NOW, zone, max_records=255, message_bytes=message_bytes).entries


def read(entry: Entry) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(entry.payload)
    return {**payload, "fix": json.loads(entry.extra).get("fix")}


def attributes_of(text: str) -> dict[str, Any]:
    (entry,) = entries_of(text.encode())
    attributes: dict[str, Any] = read(entry)["attributes"]
    return attributes


@pytest.mark.parametrize("golden", GOLDEN, ids=IDS)
def test_entries_have_the_values_of_the_frame(golden: Golden) -> None:
    made = entries_of(golden.data)
    assert len(made) == len(golden.entries)
    for entry, expected in zip(made, golden.entries, strict=True):
        found = read(entry)
        attributes = found.pop("attributes")
        wanted = {name: value for name, value in expected.items() if name != "attributes"}
        assert {name: found[name] for name in wanted} == wanted
        assert attributes.items() >= expected["attributes"].items()
        assert (entry.device_id, entry.codec) == (golden.device_id, "ascii")
        assert entry.ts == found["timestamp"]
        Position.from_payload(entry.payload)


def test_only_fields_without_a_name_are_kept_raw() -> None:
    has_raw = {
        golden.data[6:11].decode()
        for golden in GOLDEN
        if any("raw" in read(entry)["attributes"] for entry in entries_of(golden.data))
    }
    assert has_raw == {"GTERI", "GTTRI"}


def test_buffered_report_is_the_same_record() -> None:
    for golden in (FRI_GV300, FRI_TWO_POSITIONS, FRI_CELL_ONLY, IGN_STALE):
        buffered = golden.data.replace(b"+RESP", b"+BUFF")
        live, late = entries_of(golden.data), entries_of(buffered)
        assert [one.payload for one in live] == [one.payload for one in late]
        assert [one.ts for one in live] == [one.ts for one in late]
        assert [json.loads(one.extra)["header"] for one in late] == ["+BUFF"] * len(late)
        assert all(json.loads(one.extra)["buffered"] for one in late)
        assert not any(json.loads(one.extra)["buffered"] for one in live)


def test_equal_positions_of_one_report_are_different_records() -> None:
    twice = FRI_TWO_POSITIONS.data.replace(b"00,0,4.3", b"00,1,4.3").replace(
        b"20090101000000", b"20090214013254"
    )
    first, second = entries_of(twice)
    assert first.payload != second.payload


def test_reports_of_one_second_are_different_records() -> None:
    other = FRI_GV300.data.replace(b"11F0$", b"11F1$")
    assert entries_of(FRI_GV300.data)[0].payload != entries_of(other)[0].payload


def test_zone_applies_to_the_send_time_only() -> None:
    (stale,) = entries_of(IGN_STALE.data, zone=-4 * 3600)
    (fixed,) = entries_of(FRI_GV300.data, zone=8 * 3600)
    assert stale.ts == "2016-03-09T02:29:56.000Z"
    assert fixed.ts == "2009-02-14T01:32:54.000Z"


def test_record_without_any_time_has_the_time_of_its_arrival() -> None:
    (entry,) = entries_of(b"+RESP:GTPNA,060100,135790246811220,,20161399000000,0001$")
    assert entry.ts == "2023-11-14T22:13:20.000Z"


def test_position_of_an_unknown_report_is_found_by_its_shape() -> None:
    (entry,) = entries_of(
        b"+RESP:GTXYZ,EE0100,135790246811220,n,7,what,,2,61.5,10,5.0,7.684216,51.524512,"
        b"20140106233722,0262,0007,79EE,1D22,,more,20140107003805,03C4$"
    )
    found = read(entry)
    assert (found["latitude"], found["longitude"]) == (51.524512, 7.684216)
    assert (found["fix"], found["speed"], found["angle"]) == (True, 62, 10)
    assert found["attributes"]["raw"].startswith("7,what,,2,61.5,")
    assert found["attributes"]["report"] == "GTXYZ"


def test_coordinates_off_the_globe_are_no_position() -> None:
    data = FRI_GV300.data.replace(b"31.222073", b"91.222073")
    (entry,) = entries_of(data)
    found = read(entry)
    assert (found["latitude"], found["longitude"]) == (None, None)
    assert "message" in found["attributes"]


def test_position_group_with_a_date_that_does_not_exist_has_the_send_time() -> None:
    (entry,) = entries_of(FRI_GV300.data.replace(b"20090214013254", b"20091314013254"))
    assert entry.ts == "2009-02-14T09:32:54.000Z"


def test_append_mask_gives_the_number_of_satellites() -> None:
    (entry,) = entries_of(
        b"+RESP:GTERI,6E0304,868589060189019,,00000002,,50,1,1,0.0,0,35.5,-98.260961,26.053701,"
        b"20240912192949,0334,0020,0F1B,04643718,03,12,4,21.1,,1930,F17,,100,210100,2,0,"
        b"20240912192950,4BAA$"
    )
    found = read(entry)
    assert found["satellites"] == 12
    attributes = found["attributes"]
    assert (attributes["gnss_trigger"], attributes["analog_1"]) == (4, 1930)
    assert attributes["fuel_level_2"] == 17
    assert "raw" not in attributes


def test_asset_trackers_insert_signal_strength_and_error_rate() -> None:
    attributes = attributes_of(
        "+RESP:GTERI,DE0115,865284042104863,gl500m,00000100,0,0,1,2,0.0,0,36.9,-1.844589,"
        "52.177779,20201006125701,0234,0015,0135,34A1,19,0,,79,,,0,20201006125723,184D"
    )
    assert (attributes["csq_rssi"], attributes["csq_ber"]) == (19, 0)
    assert attributes["battery"] == 79
    assert "raw" not in attributes


def test_access_points_before_the_cell_are_read() -> None:
    attributes = attributes_of(
        "+RESP:GTFRI,423037,866884047716519,GT501,0,1,1,12,0.1,0,46.8,-95.559173,30.109955,"
        "20231110185836,2,0e36c9916485,-50,,,,e831cd5eb79d,-73,,,,310,10,711D,81ECF0F,00,,93,"
        "20231110185839,0005"
    )
    assert attributes["wifi"] == ["0e36c9916485,-50", "e831cd5eb79d,-73"]
    assert attributes["cell_id"] == 0x81ECF0F


def test_accessories_of_an_extended_report_have_names() -> None:
    attributes = attributes_of(
        "+RESP:GTERI,6E0A03,868589060745174,,00000100,,10,1,1,0.0,0,1509.0,-90.544928,14.584461,"
        "20250307182819,0704,0001,13A7,000B60AB,01,12,358.6,,,,,100,1A0000,0,1,00,6,5,0E71,283F,"
        "SENTEMP1,7805412CF2DD,1,3466,24,36,24.91,100,20250307182820,1ABC"
    )
    expected = {"name": "SENTEMP1", "mac": "7805412CF2DD", "battery_mv": 3466, "humidity": 36}
    assert {name: attributes[f"ble_1_{name}"] for name in expected} == expected
    assert attributes["ble_1_temperature"] == 24.91


def test_long_message_is_cut_and_its_length_is_kept() -> None:
    data = f"+RESP:GTDTT,060100,135790246811220,,{'ab' * 100},20160101000000,0001$".encode()
    (entry,) = entries_of(data, message_bytes=64)
    attributes = read(entry)["attributes"]
    assert len(attributes["message"]) == 64
    assert attributes["message_length"] == len(data) - len(b"+RESP:") - 1
    assert len(attributes["message_sha256"]) == 64


def test_command_answer_is_a_message_with_its_serial() -> None:
    (entry,) = entries_of(COMMAND_ANSWER.data)
    assert Position.from_payload(entry.payload).is_message
