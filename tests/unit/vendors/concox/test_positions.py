"""The stream entries that frames become."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from tests.unit.vendors.concox.frames import CELL, REPORT, frame_of, position
from tests.unit.vendors.concox.golden import GOLDEN, IMEI, LBS_28, Golden
from tracker.clock import DEFAULT_CLOCKS
from tracker.extra import judged, read_extra
from tracker.position import Entry, Position, digest, iso_milliseconds
from tracker.vendors.concox.content import TIME, read_content
from tracker.vendors.concox.fields import (
    DIFFERENTIAL,
    MAX_LATITUDE,
    MAX_LONGITUDE,
    NORTH,
    POSITIONED,
    WEST,
    write_gps,
    write_imei,
)
from tracker.vendors.concox.frames import Frame
from tracker.vendors.concox.login import NUMBER as LOGIN
from tracker.vendors.concox.positions import LOCAL_NUMBERS, entry
from tracker.vendors.concox.reports import position_frame

NOW = 1_600_000_000.0
ENTRIES = [golden for golden in GOLDEN if golden.number not in (LOGIN, TIME)]
PLACE = ("latitude", "longitude", "altitude", "angle", "speed", "satellites")


def made(frame: Frame, **options: Any) -> Entry:
    return entry(IMEI, frame, read_content(frame), NOW, **options)


@pytest.mark.parametrize("golden", ENTRIES, ids=lambda golden: golden.name)
def test_golden_frame_becomes_its_entry(golden: Golden) -> None:
    one = made(frame_of(golden))
    position = Position.from_payload(one.payload)
    arrival = iso_milliseconds(int(NOW * 1000))
    expected = dict.fromkeys(PLACE) | {"timestamp": arrival, "event": 0} | golden.payload
    if golden.number in (0x19, 0xA5):
        expected["event"] = golden.attributes["alarm"]
    document = json.loads(one.payload)
    assert {name: document[name] for name in expected} == expected
    attributes = dict(position.attributes)
    assert attributes.pop("protocol") == golden.number
    if position.is_message:
        message, type_ = attributes.pop("message"), attributes.pop("message_type")
        assert type_ == golden.number
        if golden.message is not None:
            assert message == golden.message
    assert attributes == golden.attributes
    assert json.loads(one.extra) == golden.extra
    assert (one.ts, one.device_id, one.codec) == (expected["timestamp"], IMEI, "gt06")


def document(frame: Frame, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made(frame, **options).payload)
    return found


def fix(frame: Frame) -> Any:
    return json.loads(made(frame).extra)["fix"]


@pytest.mark.parametrize(
    ("flags", "latitude", "longitude"),
    [
        (POSITIONED | NORTH, 41.3275, 19.8187),
        (POSITIONED | NORTH | WEST, 41.3275, -19.8187),
        (POSITIONED, -41.3275, 19.8187),
        (POSITIONED | WEST, -41.3275, -19.8187),
    ],
)
def test_hemispheres_have_bits_of_opposite_senses(
    flags: int, latitude: float, longitude: float
) -> None:
    found = document(position(REPORT.gps._replace(flags=flags)))
    assert (found["latitude"], found["longitude"]) == (latitude, longitude)


def test_zero_coordinates_have_no_sign() -> None:
    gps = REPORT.gps._replace(latitude=0, longitude=0, flags=WEST)
    payload = made(position(gps)).payload
    assert '"latitude":0.0,"longitude":0.0,' in payload


@pytest.mark.parametrize("satellites", [0, 3])
def test_fix_is_the_bit_and_not_the_satellites(satellites: int) -> None:
    gps = REPORT.gps._replace(satellites=satellites)
    assert fix(position(gps)) is True
    assert fix(position(gps._replace(flags=gps.flags & ~POSITIONED))) is False


def test_position_without_fix_keeps_its_coordinates_and_is_not_a_place() -> None:
    gps = REPORT.gps
    one = made(position(gps._replace(flags=gps.flags & ~POSITIONED)))
    found = Position.from_payload(one.payload)
    assert found.latitude == 41.3275
    assert not found.has_fix(judged(read_extra(one.extra), found, one.ts, DEFAULT_CLOCKS).fix)


@pytest.mark.parametrize(
    ("latitude", "longitude"), [(MAX_LATITUDE + 1, 0), (0, MAX_LONGITUDE + 1), (0xFFFFFFFF, 0)]
)
def test_coordinates_off_the_globe_are_no_place(latitude: int, longitude: int) -> None:
    frame = position(REPORT.gps._replace(latitude=latitude, longitude=longitude))
    found = document(frame)
    assert (found["latitude"], found["longitude"]) == (None, None)
    assert fix(frame) is False
    assert not Position.from_payload(made(frame).payload).is_message


def test_coordinates_at_the_edge_of_the_globe_are_a_place() -> None:
    gps = REPORT.gps._replace(latitude=MAX_LATITUDE, longitude=MAX_LONGITUDE)
    found = document(position(gps))
    assert (found["latitude"], found["longitude"]) == (90.0, -180.0)
    assert fix(position(gps)) is True


@pytest.mark.parametrize(
    "date", ["180d0f0c0000", "18000f0c0000", "18021e0c0000", "18030f180000", "000000000000"]
)
def test_position_with_an_impossible_date_has_the_time_of_arrival(date: str) -> None:
    frame = position(REPORT.gps._replace(date=bytes.fromhex(date)))
    found = document(frame)
    assert found["timestamp"] == "2020-09-13T12:26:40.000Z"
    assert "date" in found["attributes"]
    assert fix(frame) is False


def test_message_with_an_impossible_date_has_the_time_of_arrival() -> None:
    frame = frame_of(LBS_28)
    found = document(frame._replace(content=b"\x18\x0d" + frame.content[2:]))
    assert found["timestamp"] == "2020-09-13T12:26:40.000Z"
    assert "date" in found["attributes"]


@pytest.mark.parametrize("number", [0x10, 0x12, 0x16, 0x22, 0x26, 0x27, 0xA0, 0xA4])
def test_zone_applies_to_the_dates_of_old_numbers_only(number: int) -> None:
    found = document(position(REPORT.gps, number=number), zone=-(12 * 60 + 45))
    is_local = number in LOCAL_NUMBERS
    assert found["timestamp"] == (
        "2024-03-16T00:45:00.000Z" if is_local else "2024-03-15T12:00:00.000Z"
    )


def test_zone_applies_to_the_date_of_cells() -> None:
    frame = frame_of(LBS_28)
    assert (
        document(frame._replace(number=0x18), zone=480)["timestamp"] == "2016-01-12T18:02:02.000Z"
    )
    assert document(frame, zone=480)["timestamp"] == "2016-01-13T02:02:02.000Z"


def test_repeated_position_has_the_same_digest() -> None:
    live = made(position_frame(REPORT, 8))
    stored = made(position_frame(REPORT, 9, buffered=True))
    assert digest(live.payload) == digest(stored.payload)
    assert json.loads(stored.extra) == {"fix": True, "buffered": True, "serial": 9}


def test_course_over_360_degrees_is_not_a_course() -> None:
    flags = POSITIONED | NORTH | 361
    found = document(position(REPORT.gps._replace(flags=flags)))
    assert found["angle"] is None
    assert found["attributes"]["flags"] == flags


def test_differential_fix_is_marked() -> None:
    gps = REPORT.gps
    found = document(position(gps._replace(flags=gps.flags | DIFFERENTIAL)))
    assert found["attributes"]["differential"] == 1


@pytest.mark.parametrize("start", [0, 1])
def test_content_with_the_imei_in_place_of_the_date_is_kept_as_bytes(start: int) -> None:
    packed = write_imei(IMEI)
    content = bytes(start) + packed + write_gps(REPORT.gps) + CELL
    frame = Frame(0x22, content, 1)
    one = entry(IMEI, frame, read_content(frame, packed), NOW)
    assert Position.from_payload(one.payload).is_message


@pytest.mark.parametrize("number", [0x12, 0x22, 0xA0, 0x16, 0x26, 0x27, 0xA4])
def test_bytes_after_the_gps_block_that_have_another_layout_are_kept(number: int) -> None:
    for rest in (b"\xff", b"\x07\xff\xff\xff"):
        found = document(Frame(number, write_gps(REPORT.gps) + rest, 1))
        assert found["latitude"] == 41.3275
        assert "trailing" in found["attributes"]


@pytest.mark.parametrize("number", [0x10, 0x12, 0x22, 0xA0, 0x16, 0x26, 0x27, 0xA4, 0x31, 0x32])
def test_content_without_a_whole_gps_block_is_kept_as_bytes(number: int) -> None:
    for length in (0, 1, 17):
        frame = Frame(number, bytes(length), 1)
        assert Position.from_payload(made(frame).payload).is_message


def test_mileage_after_a_position_or_an_alarm_is_laid_out() -> None:
    whole = position_frame(REPORT, 1)
    found = document(whole._replace(content=whole.content + b"\x00\x01\x00\x02"))
    assert found["attributes"]["mileage"] == 65538
    assert "trailing" not in found["attributes"]


def test_unknown_number_is_kept_with_its_bytes() -> None:
    found = document(Frame(0x5E, b"\x01\x02\x03", 1))
    assert found["latitude"] is None
    assert found["attributes"] == {
        "message": {"__buffer_b64": "AQID"},
        "message_type": 0x5E,
        "protocol": 0x5E,
    }


def test_extended_frame_of_a_number_for_short_frames_is_kept_as_bytes() -> None:
    frame = Frame(0x32, bytes(36), 1, extended=True)
    assert read_content(frame) is None
    assert "message" in document(frame)["attributes"]


def test_long_text_is_cut_after_a_whole_character() -> None:
    text = "é" * 40
    content = bytes(4) + b"\x01" + text.encode()
    truncated: list[None] = []
    frame = Frame(0x21, content, 1, extended=True)
    attributes = document(frame, message_bytes=65, on_truncated=lambda: truncated.append(None))[
        "attributes"
    ]
    assert attributes["message"] == "é" * 32
    assert attributes["message_length"] == 80
    assert attributes["message_sha256"] == sha256(text.encode()).hexdigest()
    assert len(truncated) == 1


def test_long_data_is_cut() -> None:
    attributes = document(Frame(0x5E, bytes(100), 1), message_bytes=64)["attributes"]
    assert attributes["message_length"] == 100
    assert len(attributes["message"]["__buffer_b64"]) == 88
