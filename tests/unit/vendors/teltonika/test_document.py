"""Conversion of frames to JSON documents and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika import examples
from tests.unit.vendors.teltonika.examples import (
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
from tests.unit.vendors.teltonika.golden import (
    DRIVING,
    GOLDEN,
    LOGIN,
    NARROW_ELEMENTS,
    PANIC,
    STREAM,
    Golden,
)
from tests.unit.vendors.teltonika.golden_five_groups import WIDE, WIDE_ELEMENTS
from tests.unit.vendors.teltonika.meanings import ABSENT_SENSORS
from tracker.vendors.documents import render
from tracker.vendors.teltonika.document import DERIVED, document
from tracker.vendors.teltonika.frames import Frame, encode_any_frame


def element(value: Any, element_id: int) -> dict[str, Any]:
    """Return the element with this id in the first record."""
    (found,) = (item for item in value["records"][0]["elements"] if item["id"] == element_id)
    assert isinstance(found, dict)
    return found


# Round trips.


@pytest.mark.parametrize("data", [*EXAMPLES.values(), STREAM], ids=[*EXAMPLES, "stream"])
@pytest.mark.parametrize("names", [False, True], ids=["plain", "names"])
def test_document_of_an_example_encodes_to_the_same_bytes(data: bytes, names: bool) -> None:
    assert as_bytes(as_document(data, names)) == data


@given(examples.frames | examples.datagrams | examples.logins | examples.pings, st.booleans())
def test_document_of_any_frame_encodes_to_the_same_bytes(frame: Frame, names: bool) -> None:
    data = encode_any_frame(frame)
    assert decoded(data) == (frame,)
    assert as_bytes(as_document(data, names)) == data


@given(st.lists(examples.frames | examples.logins, min_size=1, max_size=4))
def test_document_of_any_stream_encodes_to_the_same_bytes(stream: list[Frame]) -> None:
    data = b"\xff".join(map(encode_any_frame, stream))
    assert as_bytes(as_document(data)) == data


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=EXAMPLES)
def test_derived_fields_are_ignored_when_encoding(data: bytes) -> None:
    def with_wrong_values(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: "anything" if name in DERIVED else with_wrong_values(item)
                for name, item in value.items()
            }
        return [with_wrong_values(item) for item in value] if isinstance(value, list) else value

    def without_derived(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: without_derived(item) for name, item in value.items() if name not in DERIVED
            }
        return [without_derived(item) for item in value] if isinstance(value, list) else value

    made = as_document(data, names=True)
    assert as_bytes(with_wrong_values(made)) == data
    assert as_bytes(without_derived(made)) == data


def test_edited_document_gets_a_new_length_and_checksum() -> None:
    made = as_document(NARROW_ELEMENTS.frame)
    made["records"][0]["elements"].append({"id": 239, "width": 1, "value": 1})
    data = as_bytes(made)
    assert len(data) == len(NARROW_ELEMENTS.frame) + 2
    again = as_document(data)
    # The wire has elements in the order of their width.
    assert [item["id"] for item in again["records"][0]["elements"]] == [21, 1, 239, 66]
    assert again["length"] == made["length"] + 2
    assert again["crc"] != made["crc"]


# Content of a document.


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_document_has_the_numbers_of_the_wire(golden: Golden) -> None:
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


def test_document_has_iso_times_and_degrees() -> None:
    (record,) = as_document(DRIVING.frame)["records"]
    assert record["time"] == "2019-01-04T12:27:19.000Z"
    assert record["longitude_degrees"] == 16.3745183
    assert record["latitude_degrees"] == 48.1523066


def test_time_after_the_year_9999_is_null() -> None:
    made = as_document(NARROW_ELEMENTS.frame)
    made["records"][0]["timestamp"] = 2**64 - 1
    (record,) = as_document(as_bytes(made))["records"]
    assert record["timestamp"] == 2**64 - 1
    assert record["time"] is None


def test_record_of_codec_16_has_its_generation_type() -> None:
    made = as_document(CODEC_16_FRAME)
    assert made["codec"] == "16"
    assert [record["generation"] for record in made["records"]] == [5, 5]
    assert [record["event"] for record in made["records"]] == [11, 11]


def test_login_and_pings_are_shown_as_documents() -> None:
    login = {"kind": "login", "length": 15, "imei": "356307042441013"}
    assert as_document(LOGIN) == login
    assert as_document(b"\xff\xff") == {"kind": "ping", "count": 2}
    assert as_document(b"\xff" + LOGIN) == [{"kind": "ping", "count": 1}, login]


def test_document_of_a_datagram_has_its_ids() -> None:
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
    ("data", "expected"),
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
def test_document_of_a_message_has_its_text(data: bytes, expected: dict[str, Any]) -> None:
    made = as_document(data)
    assert made.pop("kind") == "frame"
    assert made.pop("quantities") == [1, 1]
    assert made.pop("length") == len(data) - 12
    assert int(made.pop("crc"), 16) == int.from_bytes(data[-4:], "big")
    assert made == expected


@pytest.mark.parametrize("content", ["00", "1B5B324A", "FF", "C3", "E280AE", "7F"])
def test_message_that_is_not_text_is_shown_in_hex(content: str) -> None:
    made = as_document(COMMAND)
    del made["text"]
    made["hex"] = content
    again = as_document(as_bytes(made))
    assert again["hex"] == content.lower()
    assert "text" not in again


def test_frame_of_codec_7_is_shown_as_a_document() -> None:
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
def test_named_elements_have_scaled_values_and_units(
    element_id: int, raw: int, name: str, scaled: float, unit: str
) -> None:
    shown = element(as_document(PANIC.frame, names=True), element_id)
    assert shown.pop("width") in (1, 2, 4)
    assert shown == {"id": element_id, "value": raw, "name": name, "scaled": scaled, "unit": unit}


def test_variable_element_has_a_name_and_its_text() -> None:
    made = as_document(PANIC.frame, names=True)
    assert element(made, 264) == {
        "id": 264,
        "width": "variable",
        "value": "414243313233",
        "name": "Barcode ID",
        "text": "ABC123",
    }


def test_states_and_errors_of_elements_are_shown() -> None:
    made = as_document(ABSENT_SENSORS, names=True)
    assert element(made, 239) == {
        "id": 239,
        "width": 1,
        "value": 0,
        "name": "Ignition",
        "scaled": 0,
        "text": "ignition off",
    }
    assert element(made, 25) == {
        "id": 25,
        "width": 2,
        "value": 3000,
        "name": "BLE Temperature #1",
        "scaled": None,
        "error": "sensor not found",
    }
    assert element(made, 11)["scaled"] == element(made, 11)["value"] > 2**53
    assert as_bytes(made) == ABSENT_SENSORS


def test_elements_are_named_by_their_companions_in_the_record() -> None:
    made = as_document(ABSENT_SENSORS, names=True)
    assert [element(made, axis)["name"] for axis in (17, 18, 19)] == ["Axis X", "Axis Y", "Axis Z"]


def test_document_of_five_groups_tells_their_number_and_wide_values() -> None:
    made = as_document(WIDE_ELEMENTS.frame, names=True)
    assert (made["codec"], made["groups"]) == ("8", 5)
    assert element(made, 203) == {"id": 203, "width": 16, "value": WIDE.hex()}
    assert "groups" not in as_document(DRIVING.frame)


@pytest.mark.parametrize("width", [1, 4, 8])
def test_value_of_another_size_gets_no_name(width: int) -> None:
    made = as_document(NARROW_ELEMENTS.frame)
    raw = {"id": 66, "width": width, "value": 200}
    made["records"][0]["elements"] = [raw]
    assert element(as_document(as_bytes(made), names=True), 66) == raw


# The text.


def test_rendered_document_has_one_line_for_each_element() -> None:
    text = render(document(decoded(NARROW_ELEMENTS.frame)))
    lines = text.splitlines()
    assert lines[:3] == ["{", '  "kind": "frame",', '  "length": 40,']
    assert '        {"id": 21, "width": 1, "value": 3},' in lines
    assert lines[-2:] == ['  "crc": "0x0000f22a"', "}"]


@given(json_values)
def test_rendered_text_is_json_with_the_same_value(value: Any) -> None:
    assert json.loads(render(value)) == value
