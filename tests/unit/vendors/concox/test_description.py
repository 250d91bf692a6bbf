"""Descriptions of a device's traffic for people."""

from __future__ import annotations

import json

import pytest

from tests.unit.vendors.concox.golden import (
    ALARM_16,
    ANSWER_15,
    GOLDEN,
    LBS_28,
    POSITION_22,
    TIME,
    ZONED_LOGIN,
)
from tracker.vendors.concox.commands import command_frame
from tracker.vendors.concox.description import describe
from tracker.vendors.concox.frames import Frame, encode_frame


def test_login_is_described() -> None:
    assert describe(ZONED_LOGIN.data, sent=False) == {
        "number": "0x01",
        "serial": 5,
        "imei": "752533678900242",
        "model": 0x7000,
        "zone": 480,
        "language": 1,
    }


def test_position_is_described() -> None:
    described = describe(POSITION_22.data, sent=False)
    assert described["date"] == "2015-12-29T02:51:05.000Z"
    assert (described["latitude"], described["longitude"]) == (23.1116933, 114.4092978)
    assert (described["fix"], described["buffered"]) == (True, True)


def test_cells_and_texts_are_described() -> None:
    assert describe(LBS_28.data, sent=False)["date"] == "2016-01-13T02:02:02.000Z"
    assert describe(ANSWER_15.data, sent=False)["text"] == "DYD=Success!"


def test_what_the_server_sends_is_described() -> None:
    acknowledgement = bytes.fromhex(ALARM_16.answer)
    assert describe(acknowledgement, sent=True)["acknowledged"] == 0x36
    time = bytes.fromhex("78780B8A0F0C1D0000150006F0860D0A")
    assert describe(time, sent=True)["date"] == "2015-12-29T00:00:21.000Z"
    command = encode_frame(command_frame(b"STATUS#", 77, 3))
    assert describe(command, sent=True) == {
        "number": "0x80",
        "serial": 3,
        "server_flag": 77,
        "command": "STATUS#",
    }


def test_language_after_a_command_is_not_its_text() -> None:
    golden = bytes.fromhex("787810800800000000736F7323000200019A170D0A")
    assert describe(golden, sent=True)["command"] == "sos#"


def test_content_without_a_layout_is_described_by_its_bytes() -> None:
    data = encode_frame(Frame(0x5E, b"\x01\x02", 1))
    assert describe(data, sent=False)["content"] == "0102"


@pytest.mark.parametrize("data", [b"", b"x", TIME.data[:-1], b"\x00" + TIME.data])
def test_bytes_that_are_no_frame_are_described(data: bytes) -> None:
    assert describe(data, sent=False)["bad"]


def test_descriptions_can_be_written_as_json() -> None:
    for golden in GOLDEN:
        for sent in (False, True):
            json.dumps(describe(golden.data, sent))
