"""Frames that simulators write."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.concox.frames import frame_of
from tests.unit.vendors.concox.golden import ALARM_16, LOGIN, POSITION_22, ZONED_LOGIN, Golden
from tracker.vendors.concox.content import read_content
from tracker.vendors.concox.fields import POSITIONED, milliseconds, read_gps, write_gps
from tracker.vendors.concox.frames import Frame, encode_frame
from tracker.vendors.concox.login import Login, login_frame, read_login
from tracker.vendors.concox.reports import (
    Report,
    State,
    alarm_frame,
    answer_frame,
    heartbeat_frame,
    position_frame,
)

DEGREES = st.tuples(
    st.integers(-90 * 1_800_000, 90 * 1_800_000), st.integers(-180 * 1_800_000, 180 * 1_800_000)
)
REPORTS = st.builds(
    lambda degrees, **fields: Report(
        latitude=degrees[0] / 1_800_000, longitude=degrees[1] / 1_800_000, **fields
    ),
    DEGREES,
    time=st.integers(946_684_800, 4_102_444_799),
    speed=st.integers(0, 255),
    course=st.integers(0, 360),
    satellites=st.integers(0, 15),
    fix=st.booleans(),
    acc=st.booleans(),
    cell=st.tuples(
        st.integers(0, 0x7FFF),
        st.integers(0, 255),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFF),
    ),
)
STATES = st.builds(
    State,
    *(5 * (st.booleans(),)),
    voltage_level=st.integers(0, 6),
    gsm_signal=st.integers(0, 4),
)
IMEIS = st.text("0123456789", min_size=15, max_size=15)
ZONES = st.tuples(st.integers(-14, 14), st.integers(0, 59)).map(
    lambda zone: zone[0] * 60 + (zone[1] if zone[0] >= 0 else -zone[1])
)
LOGINS = st.one_of(
    IMEIS.map(lambda imei: Login(imei)),
    st.tuples(IMEIS, st.integers(0, 0xFFFF)).map(lambda fields: Login(*fields)),
    st.builds(Login, IMEIS, st.integers(0, 0xFFFF), ZONES, st.integers(0, 3)),
)


def check_place(report: Report, content: bytes) -> None:
    gps = read_gps(content)
    degrees = gps.degrees
    assert degrees is not None
    assert degrees == pytest.approx((report.latitude, report.longitude), abs=1e-6)
    assert (gps.speed, gps.course, gps.satellites) == (
        report.speed,
        report.course,
        report.satellites,
    )
    assert milliseconds(gps.date) == report.time * 1000
    assert bool(gps.flags & POSITIONED) is report.fix


@given(REPORTS, st.integers(0, 255), st.booleans())
def test_position_is_read_as_it_was_written(report: Report, mode: int, buffered: bool) -> None:
    frame = position_frame(report, 7, upload_mode=mode, buffered=buffered)
    check_place(report, frame.content)
    reading = read_content(frame)
    assert reading is not None
    assert reading.buffered is buffered
    mcc, mnc, lac, cell_id = report.cell
    assert reading.attributes == {
        "mcc": mcc,
        "mnc": mnc,
        "lac": lac,
        "cell_id": cell_id,
        "acc": report.acc,
        "upload_mode": mode,
    }


@given(REPORTS, STATES, st.integers(0, 255))
def test_alarm_is_read_as_it_was_written(report: Report, state: State, alarm: int) -> None:
    frame = alarm_frame(report, state, alarm, 7)
    check_place(report, frame.content)
    reading = read_content(frame)
    assert reading is not None
    assert reading.alarm == alarm
    assert reading.attributes["armed"] == state.armed
    assert reading.attributes["voltage_level"] == state.voltage_level


@given(STATES)
def test_heartbeat_is_read_as_it_was_written(state: State) -> None:
    reading = read_content(heartbeat_frame(state, 7))
    assert reading is not None
    assert reading.attributes == {
        "oil_cut": state.oil_cut,
        "gps_on": state.gps_on,
        "alarm_state": 0,
        "charging": state.charging,
        "acc": state.acc,
        "armed": state.armed,
        "voltage_level": state.voltage_level,
        "gsm_signal": state.gsm_signal,
        "alarm": 0,
        "language": 2,
    }


@given(LOGINS)
def test_login_is_read_as_it_was_written(login: Login) -> None:
    assert read_login(login_frame(login, 1).content) == login


@pytest.mark.parametrize("golden", [LOGIN, ZONED_LOGIN], ids=lambda golden: golden.name)
def test_golden_login_is_written(golden: Golden) -> None:
    frame = frame_of(golden)
    login = read_login(frame.content)
    assert login is not None
    assert encode_frame(login_frame(login, frame.serial)) == golden.data


@pytest.mark.parametrize(
    ("word", "zone"),
    [("3200", 480), ("4dd8", -765), ("0000", 0), ("f000", None), ("3c10", None)],
)
def test_zone_of_a_login(word: str, zone: int | None) -> None:
    login = read_login(frame_of(ZONED_LOGIN).content[:10] + bytes.fromhex(word))
    assert login is not None
    assert login.zone == zone


def test_longer_login_is_read() -> None:
    login = read_login(frame_of(ZONED_LOGIN).content + b"\x01\x02")
    assert login == Login("752533678900242", 0x7000, 480, 1)


@pytest.mark.parametrize("golden", [POSITION_22, ALARM_16], ids=lambda golden: golden.name)
def test_golden_gps_block_is_written(golden: Golden) -> None:
    content = frame_of(golden).content
    assert write_gps(read_gps(content)) == content[:18]


@pytest.mark.parametrize(
    "imei", ["12345678901234", "1234567890123456", "12345678901234A", 15 * "\u0661"]
)
def test_login_with_another_device_id_is_not_written(imei: str) -> None:
    with pytest.raises(ValueError, match="15 digits"):
        login_frame(Login(imei), 1)


def test_report_that_does_not_fit_is_not_written() -> None:
    with pytest.raises(struct.error):
        position_frame(Report(0x50000000, 1, 2, speed=256), 1)


def test_answer_is_read_as_it_was_written() -> None:
    frame: Frame = answer_frame("OK!", 77, 3)
    reading = read_content(frame)
    assert reading is not None
    assert (reading.text, reading.attributes["server_flag"]) == ("OK!", 77)
