"""Names of attributes: the choice of a meaning by model, id and size, and the named values."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.examples import decoded
from tests.unit.vendors.teltonika.meanings import (
    ABSENT_SENSORS,
    FMB640,
    FMB640_COLD,
    SENSORS,
    WIDTHS,
)
from tests.unit.vendors.teltonika.test_positions_kinds import entries_of
from tracker.extra import read_extra
from tracker.position import Position
from tracker.vendors.teltonika.dictionary import load, read
from tracker.vendors.teltonika.frames import TcpFrame
from tracker.vendors.teltonika.naming import Naming, NoList

HEADER = "id,name,size,signed,multiplier,unit,models"
MODELS = {
    "FMB920": read([HEADER, "66,Battery of the truck,2,0,0.01,V,FMB920", "7777,Ours,1,1,2,,x"]),
    "FMB920 BUS": read([HEADER, "66,Battery of the bus,2,0,0.1,V,"]),
    "OURS1": read([HEADER, "66,Ours,2,0,1,,"]),
}


BIG = {"__bigint": str(2**63)}
NOT_FOUND = "sensor not found"


@pytest.fixture(scope="module")
def naming() -> Naming:
    return Naming(MODELS)


def buffer(data: bytes) -> dict[str, str]:
    return {"__buffer_b64": b64encode(data).decode()}


def attributes_of(frame: bytes) -> tuple[dict[str, Any], Mapping[int, int] | None]:
    """Return attributes and widths of the stream entry of the first record of a frame."""
    (read_frame,) = decoded(frame)
    assert isinstance(read_frame, TcpFrame)
    entry = entries_of(read_frame.content)[0]
    return dict(Position.from_payload(entry.payload).attributes), read_extra(entry.extra).widths


def by_id(named: dict[str, Any]) -> dict[int, tuple[str, Any]]:
    """Return id → name and value of named attributes."""
    return {about["id"]: (name, about["value"]) for name, about in named.items()}


# Frames.


@pytest.mark.parametrize("model", ["FMB640", "FMC650", "FM6320", "FM63xx"])
def test_frame_of_a_professional_model_gets_the_names_of_its_list(
    naming: Naming, model: str
) -> None:
    named = naming.named(*attributes_of(FMB640), model)
    assert named["Engine Temperature"] == {"id": 25, "value": 85.0, "unit": "°C"}
    assert named["Vehicle Speed"] == {"id": 30, "value": 88, "unit": "km/h"}
    assert named["Dallas Temperature 5"] == {"id": 6, "value": -5.5, "unit": "°C"}
    assert named["Immobilizer"] == {
        "id": 251,
        "value": 1,
        "text": "iButton connected (immobilizer)",
    }
    assert named["Authorized Driving"] == {
        "id": 252,
        "value": 1,
        "text": "authorized iButton connected",
    }
    assert 69 not in by_id(named)  # it has two bytes in the list


def test_negative_temperatures_of_two_bytes_are_negative(naming: Naming) -> None:
    named = by_id(naming.named(*attributes_of(FMB640_COLD), "FMB640"))
    assert named[72] == ("Dallas Temperature 1", -5.5)
    assert named[73] == ("Dallas Temperature 2", -0.1)


@pytest.mark.parametrize("model", [None, "FMB640"])
def test_width_of_a_value_selects_its_name(naming: Naming, model: str | None) -> None:
    named = by_id(naming.named(*attributes_of(WIDTHS), model))
    assert named[70] == ("PCB Temperature", 25.0)
    assert named[8] == ("Dallas Temperature 6", 25.0)
    assert named[89] == ("Axle weight 1", 90)
    assert named[205] == ("GSM Cell ID", 4000)


def test_width_that_the_model_does_not_have_gets_no_name(naming: Naming) -> None:
    assert naming.named(*attributes_of(WIDTHS), "FMB120") == {}


def test_error_code_of_a_sensor_is_not_a_measurement(naming: Naming) -> None:
    named = naming.named(*attributes_of(SENSORS), "FMB120")
    assert {about["id"]: (about["raw"], about["error"]) for about in named.values()
            if about["value"] is None} == {
        25: (3000, NOT_FOUND),
        26: (2000, "failed sensor data parsing"),
        27: (4000, "abnormal sensor state"),
        28: (32767, NOT_FOUND),
        86: (3000, NOT_FOUND),
        104: (65535, "out of range"),
        10800: (32767, NOT_FOUND),
        72: (850, "sensor not ready"),
        73: (3000, NOT_FOUND),
        74: (5000, "sensor not ready"),
    }  # fmt: skip
    assert named["BLE Temperature #1"] == {
        "id": 25,
        "value": None,
        "raw": 3000,
        "error": NOT_FOUND,
    }
    assert by_id(named)[75] == ("Dallas Temperature 4", -0.2)


def test_absent_sensors_of_a_captured_frame_have_no_value(naming: Naming) -> None:
    named = by_id(naming.named(*attributes_of(ABSENT_SENSORS), "FMB120"))
    assert [named[number][1] for number in (25, 26, 27, 28, 86, 104, 106, 108)] == [None] * 8
    assert named[66] == ("External Voltage", 12.352)
    assert named[17] == ("Axis X", -27)


# Models.


@pytest.mark.parametrize(
    "model",
    ["FMB640", "fmb640", " FMB640 ", "FMB640-QJIB0", "FMB640 LTE", "FMB640BTZ701", "FMB-640",
     "Teltonika FMB640", "teltonika_fmb 640", "FM6300", "FM6320"],
)  # fmt: skip
def test_text_of_a_model_selects_its_list(naming: Naming, model: str) -> None:
    assert naming.knows(model)
    assert by_id(naming.named({"25": 850}, {25: 2}, model)) == {25: ("Engine Temperature", 85.0)}


@pytest.mark.parametrize("model", ["", "FMB", "FMB6400", "FM640", "X", "FMB999", "²", "\0" * 300])
def test_model_in_no_list_is_named_like_an_unknown_one(naming: Naming, model: str) -> None:
    attributes, widths = attributes_of(ABSENT_SENSORS)
    assert not naming.knows(model)
    assert naming.named(attributes, widths, model) == naming.named(attributes, widths, None)


@pytest.mark.parametrize(
    ("element_id", "width", "raw", "name", "value"),
    [
        (1, 1, 1, "Digital Input 1", 1),
        (9, 2, 12_000, "Analog Input 1", 12.0),
        (16, 4, 5, "Total Odometer", 5),
        (17, 2, 0xFFFF, "Axis X", -1),
        (19, 2, 0xFFFF, "Axis Z", -1),
        (21, 1, 5, "GSM Signal", 5),
        (24, 2, 43, "Speed", 43),
        (66, 2, 13_920, "External Voltage", 13.92),
        (67, 2, 4100, "Battery Voltage", 4.1),
        (68, 2, 120, "Battery Current", 0.12),
        (72, 4, 0xFFFFFFFF, "Dallas Temperature 1", -0.1),
        (181, 2, 14, "GNSS PDOP", 1.4),
        (182, 2, 9, "GNSS HDOP", 0.9),
        (199, 4, 9, "Trip Odometer", 9),
        (200, 1, 1, "Sleep Mode", 1),
        (239, 1, 1, "Ignition", 1),
        (240, 1, 0, "Movement", 0),
        (241, 4, 27601, "Active GSM Operator", 27601),
    ],
)
def test_common_ids_have_names_without_a_model(
    naming: Naming, *, element_id: int, width: int, raw: int, name: str, value: float
) -> None:
    named = naming.named({str(element_id): raw}, {element_id: width}, None)
    assert by_id(named) == {element_id: (name, value)}


@pytest.mark.parametrize(
    ("element_id", "width"), [(6, 2), (18, 2), (25, 2), (30, 1), (251, 1), (252, 1)]
)
def test_id_on_which_families_disagree_has_no_name_without_a_model(
    naming: Naming, element_id: int, width: int
) -> None:
    assert naming.named({str(element_id): 1}, {element_id: width}, None) == {}
    assert naming.named({str(element_id): 1}, {element_id: width}, "FMB920") != {}


@pytest.mark.parametrize("model", [None, "", "FM3612", "XX1"])
def test_companions_in_the_record_decide_what_an_axis_is(naming: Naming, model: str | None) -> None:
    axes = {"17": 5, "18": 0xFFFD, "19": 1000}
    named = naming.named(axes, {17: 2, 18: 2, 19: 2}, model)
    assert by_id(named) == {17: ("Axis X", 5), 18: ("Axis Y", -3), 19: ("Axis Z", 1000)}


@pytest.mark.parametrize(
    "widths",
    [
        None,
        {18: 2},
        {17: 2, 18: 2},
        {17: 4, 18: 2, 19: 2},
        {17: 2, 18: 2, 19: 1},
        {17: 2, 18: 4, 19: 2},
        {17: 2, 19: 2},
    ],
)
def test_id_without_its_companions_has_no_name_without_a_model(
    naming: Naming, widths: dict[int, int] | None
) -> None:
    attributes = {str(element_id): 1 for element_id in widths or (17, 18, 19)}
    named = naming.named(attributes | {"18": 1}, widths, None)
    assert 18 not in by_id(named)


def test_companions_do_not_contradict_the_list_of_the_model() -> None:
    own = read(["id,name,size,signed,multiplier,unit", "18,Ours,4,0,1,"])
    naming = Naming({"FMX1": own})
    axes, widths = {"17": 5, "18": 3, "19": 7}, {17: 2, 18: 2, 19: 2}
    assert by_id(naming.named(axes, widths, "FMC650")) == {18: ("Fuel Rate", 0.3)}
    assert 18 not in by_id(naming.named(axes, widths, "FMX1"))


def test_words_on_which_families_disagree_are_omitted_without_a_model(naming: Naming) -> None:
    assert naming.named({"200": 3}, {200: 1}, None) == {"Sleep Mode": {"id": 200, "value": 3}}
    assert naming.named({"200": 2}, {200: 1}, None) == {
        "Sleep Mode": {"id": 200, "value": 2, "text": "deep sleep"}
    }


def test_texts_of_one_model_share_their_names(naming: Naming) -> None:
    assert (
        len({id(naming.names(f"{model}-{n}")) for n in range(5000) for model in ("FMB120", "x")})
        == 2
    )
    assert naming.names("FMB120") is naming.names("FMB130") is not naming.names("FMB920")


def test_default_model_names_devices_of_unknown_model() -> None:
    naming = Naming({}, "fmb640-x")
    assert by_id(naming.named({"25": 850}, {25: 2}, None)) == {25: ("Engine Temperature", 85.0)}
    assert by_id(naming.named({"25": 2150}, {25: 2}, "FMB120")) == {
        25: ("BLE Temperature #1", 21.5)
    }
    assert naming.named({"25": 850}, {25: 2}, "no such model") == {}


def test_default_model_in_no_list_is_refused() -> None:
    with pytest.raises(NoList, match="FMB999: no list of this model"):
        Naming({}, "FMB999")
    assert Naming(MODELS, "ours1").named({"66": 3}, {66: 2}, None) == {
        "Ours": {"id": 66, "value": 3}
    }


def test_meanings_of_the_user_take_precedence(naming: Naming) -> None:
    attributes, widths = {"66": 1392, "7777": 255, "240": 1}, {66: 2, 7777: 1, 240: 1}
    assert by_id(naming.named(attributes, widths, "FMB920-QJIB0")) == {
        66: ("Battery of the truck", 13.92),
        7777: ("Ours", -2),
        240: ("Movement", 1),
    }
    assert "Battery of the bus" in naming.named({"66": 5}, {66: 2}, "FMB920 bus")
    assert "External Voltage" in naming.named({"66": 1392}, None, "FMB120")


# Sizes.


@pytest.mark.parametrize("widths", [None, {72: 4}])
def test_value_that_fits_one_size_has_a_name_without_widths(
    naming: Naming, widths: dict[int, int] | None
) -> None:
    named = naming.named({"72": 0xFFFFFF9C}, widths, None)
    assert named == {"Dallas Temperature 1": {"id": 72, "value": -10.0, "unit": "°C"}}


def test_sizes_that_agree_on_a_value_give_it_a_name_without_widths(naming: Naming) -> None:
    assert by_id(naming.named({"72": 250}, None, None)) == {72: ("Dallas Temperature 1", 25.0)}
    assert naming.named({"72": 0xFFC9}, None, None) == {}
    assert by_id(naming.named({"72": 0xFFC9}, None, "FM3612")) == {
        72: ("Dallas Temperature 1", -5.5)
    }


def test_sizes_that_disagree_give_no_name_without_widths(naming: Naming) -> None:
    assert naming.named({"70": 2, "89": 9, "17": 3}, None, None) == {}
    assert set(by_id(naming.named({"70": 2, "89": 9, "17": 3}, None, "FMB920"))) == {70, 89, 17}


@pytest.mark.parametrize(
    ("attributes", "widths"),
    [
        ({"239": 256}, {239: 1}),
        ({"239": -1}, {239: 1}),
        ({"239": 1}, {}),
        ({"239": 1}, {239: 0}),
        ({"239": 1}, {239: 2}),
        ({"239": BIG}, {239: 1}),
        ({"239": {"__bigint": "x"}}, {239: 1}),
        ({"239": {"__bigint": "9" * 5000}}, {239: 1}),
        ({"239": buffer(b"")}, {}),
        ({"239": True}, {239: 1}),
        ({"239": 1.0}, {239: 1}),
        ({"239": None}, {239: 1}),
        ({"385": {"__buffer_b64": "?"}}, {}),
        ({"385": {"__buffer_b64": 5}}, {}),
        ({"385": {}}, {}),
        ({"65000": 1}, {65000: 1}),
        ({"9" * 5000: 1}, {}),
        ({"message": "DI1:1", "timestamp_ms": 5, "²": 1}, {}),
    ],
)
def test_value_that_does_not_fit_has_no_name(
    naming: Naming, attributes: dict[str, Any], widths: dict[int, int]
) -> None:
    assert naming.named(attributes, widths, "FMB120") == {}
    assert naming.named(attributes, None, "FMB120") == {} or attributes["239"] == 1


def test_elements_of_codec_7_have_no_names(naming: Naming) -> None:
    assert naming.named({"239": 1}, {239: 1}, "FMB920", "8E") != {}
    assert naming.named({"239": 1}, {239: 1}, "FMB920", "7") == {}


# Values.


def test_numbers_of_64_bits_are_exact(naming: Naming) -> None:
    assert naming.named({"11": BIG}, {11: 8}, None) == {"ICCID1": {"id": 11, "value": BIG}}
    (signed,) = read([HEADER, "1,Balance,8,1,1,,"])
    assert signed.number(2**64 - 1) == {"id": 1, "value": -1}
    assert signed.number(2**63) == {"id": 1, "value": {"__bigint": str(-(2**63))}}
    (scaled,) = read([HEADER, "1,Energy,8,0,0.1,J,"])
    assert scaled.number(2**40)["value"] == 109951162777.6
    assert scaled.number(2**60) == {
        "id": 1,
        "value": None,
        "raw": {"__bigint": str(2**60)},
        "error": "out of range",
    }


def test_measurement_is_not_an_error(naming: Naming) -> None:
    attributes = {"25": 2999, "26": 0xF060, "72": 1250, "86": 1000, "115": 850}
    widths = {25: 2, 26: 2, 72: 4, 86: 2, 115: 2}
    assert by_id(naming.named(attributes, widths, "FMB120")) == {
        25: ("BLE Temperature #1", 29.99),
        26: ("BLE Temperature #2", -40.0),
        72: ("Dallas Temperature 1", 125.0),
        86: ("BLE Humidity #1", 100.0),
        115: ("Engine Temperature", 85.0),
    }


@pytest.mark.parametrize(
    ("element_id", "width", "raw", "model"),
    [
        *((25, 2, raw, "FMB120") for raw in (12_501, 0xF05F)),
        *((86, 2, 1001, "FMB120"), (113, 1, 255, "FMB120"), (201, 2, 0xFFFF, "FMB120")),
        *((87, 4, 0xFFFFFFFF, "FMB640"), (1066, 8, 101, "TFT100"), (1166, 8, 246, "TFT100")),
        *((10816, 1, 0x7F, "FMB120"), (10832, 2, 0x7FFF, "FMB120")),
    ],
)
def test_value_out_of_range_is_an_error(
    naming: Naming, element_id: int, width: int, raw: int, model: str
) -> None:
    (about,) = naming.named({str(element_id): raw}, {element_id: width}, model).values()
    assert about == {"id": element_id, "value": None, "raw": raw, "error": "out of range"}


@pytest.mark.parametrize(
    ("element_id", "model", "text"),
    [
        (256, "FMB120", "WVWZZZ1JZXW000001"),
        (325, "FMB120", "WVWZZZ1JZXW000001"),
        (281, "FMB120", "P0100,P0200"),
        (387, "FMB120", "+41.3275+019.8187/"),
        (528, "FMB640", "WVWZZZ1JZXW000001"),
        (10518, "FMC650", "ANNA"),
    ],
)
def test_ascii_elements_are_text(naming: Naming, *, element_id: int, model: str, text: str) -> None:
    for data in (text.encode(), text.encode() + b"\0\0"):
        attributes = {str(element_id): buffer(data)}
        about = {"id": element_id, "value": text}
        assert list(naming.named(attributes, {}, model).values()) == [about]
        assert list(naming.named(attributes, None, model).values()) == [about]


def test_bytes_that_are_not_ascii_stay_a_buffer(naming: Naming) -> None:
    for data in (b"\x80", b"A\nB", b"\x1b[1m"):
        (about,) = naming.named({"256": buffer(data)}, {}, "FMB120").values()
        assert about["value"] == buffer(data)
    (about,) = naming.named({"385": buffer(b"ABC")}, {}, "FMB120").values()
    assert about["value"] == buffer(b"ABC")


def test_part_of_a_text_in_a_number_is_text(naming: Naming) -> None:
    part = int.from_bytes(b"WVWZZZ1J", "big")
    attributes, widths = {"233": {"__bigint": str(part)}}, {233: 8}
    assert by_id(naming.named(attributes, widths, "FMB640")) == {
        233: ("Vehicle Identification Number Part1", "WVWZZZ1J")
    }
    assert by_id(naming.named({"233": 1}, widths, "FMB640"))[233][1] == 1


def test_element_of_16_bytes_is_not_one_of_variable_length(naming: Naming) -> None:
    sixteen = buffer(bytes(16))
    assert by_id(naming.named({"10639": sixteen}, {10639: 16}, "FMB640")) == {
        10639: ("Error Codes", sixteen)
    }
    assert naming.named({"256": sixteen}, {256: 16}, "FMB120") == {}
    assert naming.named({"10639": buffer(bytes(15))}, {}, "FMB640") == {}


# Properties.

_VALUES = (
    st.integers(-10, 2**32)
    | st.integers(0, 2**64).map(lambda number: {"__bigint": str(number)})
    | st.binary(max_size=40).map(buffer)
    | st.none()
    | st.booleans()
    | st.text(max_size=5)
    | st.dictionaries(st.sampled_from(["__bigint", "__buffer_b64"]), st.text(max_size=5))
)
_IDS = st.sampled_from(sorted({entry.id for entry in load()}))
_WIDTHS = st.dictionaries(_IDS, st.sampled_from([0, 1, 2, 3, 4, 8, 16, 255])) | st.none()
_SHARED = Naming({})


@given(
    st.dictionaries(_IDS.map(str) | st.text(max_size=6), _VALUES, max_size=8),
    _WIDTHS,
    st.none() | st.sampled_from(["FMB920", "FMB640", "TFT100", "FM3612"]) | st.text(max_size=12),
)
def test_any_attributes_are_named_or_omitted(
    attributes: dict[str, Any], widths: dict[int, int] | None, model: str | None
) -> None:
    named = _SHARED.named(attributes, widths, model)
    assert len(named) <= len(attributes)
    assert len(json.dumps(named)) <= len(json.dumps(attributes)) + 300 * len(named)
    for about in named.values():
        raw = attributes[str(about["id"])]
        if about["value"] is None:
            assert set(about) == {"id", "value", "raw", "error"}
            assert about["raw"] == (
                int(raw["__bigint"]) if about["raw"] != raw and isinstance(raw, dict) else raw
            )
        else:
            assert set(about) <= {"id", "value", "unit", "text"}
