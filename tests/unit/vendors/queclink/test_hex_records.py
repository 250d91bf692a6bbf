"""Conversion of frames in the HEX encoding to positions and messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.vendors.queclink.golden_hex import (
    FRI_GV300CAN,
    HEX_GOLDEN,
    HEX_IDS,
    INF_NAMED,
    TOW_GV75W,
    HexGolden,
)
from tests.unit.vendors.queclink.hexencoding import encode_hex_fri, seal
from tests.unit.vendors.queclink.test_hex_frames import SENDER, decoded
from tracker.extra import read_extra
from tracker.position import Entry, Position, digest
from tracker.vendors.queclink.encoding import Place
from tracker.vendors.queclink.hexrecords import HEX, hex_records
from tracker.vendors.queclink.records import TOO_MANY, Records

DEVICE = "135790246811220"
T0 = 1_710_504_600


def read(data: bytes, zone: int = 0, max_records: int = 255, size: int = 8192) -> Records:
    frame = decoded(data)
    device = frame.device_id or DEVICE
    return hex_records(frame, device, T0, zone, max_records=max_records, message_bytes=size)


def fields(entry: Entry) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(entry.payload)
    return document


@pytest.mark.parametrize("golden", HEX_GOLDEN, ids=HEX_IDS)
def test_entry_has_the_values_of_the_hex_frame(golden: HexGolden) -> None:
    entries = read(golden.data).entries
    assert len(entries) == (golden.entry is not None)
    for entry in entries:
        assert golden.entry is not None
        payload = fields(entry)
        message = payload["attributes"].pop("message", None)
        found = {key: value for key, value in payload.items() if key in golden.entry}
        fix = read_extra(entry.extra).fix
        assert found | ({} if fix is None else {"fix": fix}) == golden.entry
        assert payload["device_id"] == (golden.device_id or DEVICE)
        assert entry.codec == HEX
        assert Position.from_payload(entry.payload).is_message is (message is not None)


@pytest.mark.parametrize("golden", HEX_GOLDEN, ids=HEX_IDS)
def test_frame_that_was_sent_late_is_the_same_record(golden: HexGolden) -> None:
    header = golden.data[:4]
    late = header[:1] + b"B" + header[2:]
    if header[1:2] == b"B" or late not in (b"+BSP", b"+BVT", b"+BNF", b"+BRD"):
        return
    (live,), (stored,) = read(golden.data).entries, read(late + golden.data[4:]).entries
    assert digest(live.payload) == digest(stored.payload)
    assert json.loads(live.extra)["buffered"] is False
    assert json.loads(stored.extra) == {
        **json.loads(live.extra),
        "header": late.decode(),
        "buffered": True,
    }


def test_each_position_of_a_hex_report_is_a_record() -> None:
    places = [Place(T0 + one, 2.0, 48.0 + one, speed=10.5) for one in range(3)]
    places[1] = places[1]._replace(accuracy=0)
    entries = read(encode_hex_fri(SENDER, places)).entries
    assert [fields(one)["attributes"]["part"] for one in entries] == [1, 2, 3]
    assert [read_extra(one.extra).fix for one in entries] == [True, False, True]
    # Battery and inputs are those of the time of sending.
    assert ["battery" in fields(one)["attributes"] for one in entries] == [False, False, True]


def test_hex_positions_beyond_the_limit_are_not_read() -> None:
    places = [Place(T0 + one, 2.0, 48.0) for one in range(5)]
    found = read(encode_hex_fri(SENDER, places), max_records=2)
    assert (len(found.entries), found.notice) == (2, TOO_MANY)


def test_zone_applies_to_the_send_time_of_a_message() -> None:
    (entry,) = read(INF_NAMED.data, zone=3600).entries
    assert entry.ts == "2017-07-21T10:13:55.000Z"
    (entry,) = read(FRI_GV300CAN.data, zone=3600).entries
    assert entry.ts == "2019-04-24T02:09:57.000Z"


def test_hex_message_without_a_time_has_the_time_of_its_arrival() -> None:
    content = bytearray(INF_NAMED.data[4:-4])
    content[2] &= ~0x20
    del content[-9:-2]
    content[3:5] = (len(INF_NAMED.data) - 7).to_bytes(2)
    (entry,) = read(seal(b"+INF", bytes(content))).entries
    assert entry.ts == "2024-03-15T12:10:00.000Z"


def test_long_hex_message_is_cut_and_its_length_is_kept() -> None:
    found = read(INF_NAMED.data, size=20)
    attributes = fields(found.entries[0])["attributes"]
    assert found.is_truncated
    assert attributes["message"] == INF_NAMED.data[4:14].hex().upper()
    assert attributes["message_length"] == 2 * len(INF_NAMED.data[4:-4])


def test_report_whose_number_of_positions_does_not_fit_has_no_place() -> None:
    content = bytearray(TOW_GV75W.data[4:-4])
    number = content.index(b"\0\1\1\0\0\0\0\x9e", 20) + 1
    content[number] = 2
    (entry,) = read(seal(b"+RSP", bytes(content))).entries
    payload = fields(entry)
    assert payload["latitude"] is None
    assert payload["attributes"]["message"] == content.hex().upper()


def test_compressed_report_is_kept_as_bytes() -> None:
    content = bytearray(FRI_GV300CAN.data[4:-4])
    content[0] = 100
    (entry,) = read(seal(b"+RSP", bytes(content))).entries
    payload = fields(entry)
    assert payload["latitude"] is None
    assert payload["attributes"]["report"] == "RSP100"
