"""Units as JSON documents, and documents as units again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import units
from tests.unit.vendors.teltonika.golden import (
    DRIVING,
    GOLDEN,
    LOGIN,
    NARROW_ELEMENTS,
    PANIC,
    STREAM,
    Golden,
)
from tests.unit.vendors.teltonika.units import (
    CODEC_7_FRAME,
    CODEC_16_FRAME,
    COMMAND,
    DATAGRAM,
    EXAMPLES,
    NOT_THIS_DEVICE,
    TIMED,
    TIMED_AND_ADDRESSED,
    as_bytes,
    as_document,
    decoded,
    json_values,
)
from tracker.vendors.teltonika.document import DERIVED, document, render
from tracker.vendors.teltonika.units import Unit, encode_unit


def element(value: Any, element_id: int) -> dict[str, Any]:
    """The element of the first record that has this id."""
    (found,) = (item for item in value["records"][0]["elements"] if item["id"] == element_id)
    assert isinstance(found, dict)
    return found


# There and back.


@pytest.mark.parametrize("data", [*EXAMPLES.values(), STREAM], ids=[*EXAMPLES, "stream"])
@pytest.mark.parametrize("names", [False, True], ids=["plain", "names"])
def test_the_document_of_bytes_gives_them_back(data: bytes, names: bool) -> None:
    assert as_bytes(as_document(data, names)) == data


@given(units.frames | units.datagrams | units.logins | units.pings, st.booleans())
def test_every_unit_is_given_back(unit: Unit, names: bool) -> None:
    data = encode_unit(unit)
    assert decoded(data) == (unit,)
    assert as_bytes(as_document(data, names)) == data


@given(st.lists(units.frames | units.logins, min_size=1, max_size=4))
def test_every_stream_is_given_back(stream: list[Unit]) -> None:
    data = b"\xff".join(map(encode_unit, stream))
    assert as_bytes(as_document(data)) == data


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=EXAMPLES)
def test_what_is_for_the_reader_is_not_read(data: bytes) -> None:
    def spoilt(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: "anything" if name in DERIVED else spoilt(item)
                for name, item in value.items()
            }
        return [spoilt(item) for item in value] if isinstance(value, list) else value

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(item) for name, item in value.items() if name not in DERIVED}
        return [bare(item) for item in value] if isinstance(value, list) else value

    made = as_document(data, names=True)
    assert as_bytes(spoilt(made)) == data
    assert as_bytes(bare(made)) == data


def test_an_edited_document_is_other_bytes_with_their_own_length_and_checksum() -> None:
    made = as_document(NARROW_ELEMENTS.frame)
    made["records"][0]["elements"].append({"id": 239, "width": 1, "value": 1})
    data = as_bytes(made)
    assert len(data) == len(NARROW_ELEMENTS.frame) + 2
    again = as_document(data)
    # On the wire it stands among those of its width.
    assert [item["id"] for item in again["records"][0]["elements"]] == [21, 1, 239, 66]
    assert again["length"] == made["length"] + 2
    assert again["crc"] != made["crc"]


# What is in a document.


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_numbers_stand_as_they_are_on_the_wire(golden: Golden) -> None:
    made = as_document(golden.frame)
    assert (made["kind"], made["length"]) == ("frame", len(golden.data))
    assert made["codec"] == golden.codec.name
    assert int(made["crc"], 16) == int.from_bytes(golden.frame[-4:], "big")
    assert len(made["records"]) == len(golden.records)
    for shown, record in zip(made["records"], golden.records, strict=True):
        for name in ("timestamp", "priority", "longitude", "latitude", "altitude"):
            assert shown[name] == getattr(record, name)
        for name in ("angle", "satellites", "speed", "event"):
            assert shown[name] == getattr(record, name)
        assert "generation" not in shown
        elements = [tuple(item.values()) for item in shown["elements"]]
        variable = [(key, "variable", value.hex()) for key, value in record.variable]
        assert elements == [*record.elements, *variable]


def test_times_and_degrees_stand_beside_them() -> None:
    (record,) = as_document(DRIVING.frame)["records"]
    assert record["time"] == "2019-01-04T12:27:19.000Z"
    assert record["longitude_degrees"] == 16.3745183
    assert record["latitude_degrees"] == 48.1523066


def test_a_time_after_the_year_9999_is_left_out() -> None:
    made = as_document(NARROW_ELEMENTS.frame)
    made["records"][0]["timestamp"] = 2**64 - 1
    (record,) = as_document(as_bytes(made))["records"]
    assert record["timestamp"] == 2**64 - 1
    assert record["time"] is None


def test_a_record_of_codec_16_tells_how_it_came_about() -> None:
    made = as_document(CODEC_16_FRAME)
    assert made["codec"] == "16"
    assert [record["generation"] for record in made["records"]] == [5, 5]
    assert [record["event"] for record in made["records"]] == [11, 11]


def test_a_login_and_pings() -> None:
    login = {"kind": "login", "length": 15, "imei": "356307042441013"}
    assert as_document(LOGIN) == login
    assert as_document(b"\xff\xff") == {"kind": "ping", "count": 2}
    assert as_document(b"\xff" + LOGIN) == [{"kind": "ping", "count": 1}, login]


def test_a_datagram_has_its_ids() -> None:
    made = as_document(DATAGRAM)
    del made["records"]
    assert made == {
        "kind": "datagram",
        "length": 61,
        "packet_id": 0xCAFE,
        "unused": 1,
        "avl_packet_id": 5,
        "imei": "352093086403655",
        "codec": "8",
    }


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (COMMAND, {"codec": "12", "type": 5, "text": "getinfo"}),
        (
            TIMED,
            {
                "codec": "13",
                "type": 6,
                "timestamp": 1_680_554_705,
                "time": "2023-04-03T20:45:05.000Z",
                "text": "GTSL|6|1|0|12749884|1|\r\n",
            },
        ),
        (NOT_THIS_DEVICE, {"codec": "14", "type": 17, "imei": "352093081452468", "text": ""}),
        (
            TIMED_AND_ADDRESSED,
            {
                "codec": "15",
                "type": 11,
                "timestamp": 1_699_440_036,
                "time": "2023-11-08T10:40:36.000Z",
                "imei": "123456789123456",
                "text": "Hello!\n",
            },
        ),
    ],
)
def test_a_message_has_its_text(data: bytes, told: dict[str, Any]) -> None:
    made = as_document(data)
    assert made.pop("kind") == "frame"
    assert made.pop("quantities") == [1, 1]
    assert made.pop("length") == len(data) - 12
    assert int(made.pop("crc"), 16) == int.from_bytes(data[-4:], "big")
    assert made == told


@pytest.mark.parametrize("content", ["00", "1B5B324A", "FF", "C3", "E280AE", "7F"])
def test_a_message_that_is_no_text_is_told_in_hex(content: str) -> None:
    made = as_document(COMMAND)
    del made["text"]
    made["hex"] = content
    again = as_document(as_bytes(made))
    assert again["hex"] == content.lower()
    assert "text" not in again


def test_codec_7_is_shown() -> None:
    made = as_document(CODEC_7_FRAME, names=True)
    first, second, _, last = made["records"]
    assert (made["codec"], made["length"], made["crc"]) == ("7", 85, "0x00006846")
    assert first == {
        "timestamp": 1_447_191_346_000,
        "time": "2015-11-10T21:35:46.000Z",
        "priority": 1,
        "elements": [{"id": 240, "width": 1, "value": 1}],
    }
    assert (second["latitude_degrees"], second["longitude_degrees"]) == (44.791306, 18.479759)
    assert (last["gsm_signal"], last["operator"]) == (26, 21_803)


# Names.


@pytest.mark.parametrize(
    ("element_id", "raw", "name", "scaled", "unit"),
    [
        (17, 0xFF9C, "Axis X", -100, "mG"),
        (72, 0xFFFFFF9C, "Dallas Temperature 1", -10.0, "°C"),
        (25, 0xFB5D, "BLE Temperature #1", -11.87, "°C"),
        (66, 13_920, "External Voltage", 13.92, "V"),
        (32, 0xF6, "Coolant Temperature", -10, "°C"),
    ],
)
def test_names_come_with_scaled_values_and_units(
    element_id: int, raw: int, name: str, scaled: float, unit: str
) -> None:
    shown = element(as_document(PANIC.frame, names=True), element_id)
    assert shown.pop("width") in (1, 2, 4)
    assert shown == {"id": element_id, "value": raw, "name": name, "scaled": scaled, "unit": unit}


def test_an_element_of_bytes_has_a_name_only() -> None:
    shown = element(as_document(PANIC.frame, names=True), 264)
    assert shown == {
        "id": 264,
        "width": "variable",
        "value": "414243313233",
        "name": "Barcode ID",
    }


@pytest.mark.parametrize("width", [1, 4, 8])
def test_a_value_of_another_size_than_the_dictionarys_is_shown_raw(width: int) -> None:
    made = as_document(NARROW_ELEMENTS.frame)
    raw = {"id": 66, "width": width, "value": 200}
    made["records"][0]["elements"] = [raw]
    assert element(as_document(as_bytes(made), names=True), 66) == raw


# The text.


def test_the_text_is_indented_and_an_element_is_a_line() -> None:
    text = render(document(decoded(NARROW_ELEMENTS.frame)))
    lines = text.splitlines()
    assert lines[:3] == ["{", '  "kind": "frame",', '  "length": 40,']
    assert '        {"id": 21, "width": 1, "value": 3},' in lines
    assert lines[-2:] == ['  "crc": "0x0000f22a"', "}"]


@given(json_values)
def test_the_text_is_json(value: Any) -> None:
    assert json.loads(render(value)) == value
