"""Names of attributes: the choice of an entry, and the named values."""

from __future__ import annotations

from typing import Any

import pytest

from tracker.vendors.teltonika.dictionary import read
from tracker.vendors.teltonika.naming import Naming

HEADER = "id,name,size,signed,multiplier,unit,models"
MODELS = {
    "FMB920": read([HEADER, "66,Battery of the truck,2,0,0.01,V,FMB920", "7777,Ours,1,1,2,,x"])
}


BIG = {"__bigint": str(2**63)}


@pytest.fixture(scope="module")
def naming() -> Naming:
    return Naming(MODELS)


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"239": 1}, {"Ignition": {"id": 239, "value": 1}}),
        ({"66": 13_920}, {"External Voltage": {"id": 66, "value": 13.92, "unit": "V"}}),
        ({"72": 0xFFFFFF9C}, {"Dallas Temperature 1": {"id": 72, "value": -10.0, "unit": "°C"}}),
        ({"11": BIG}, {"ICCID1": {"id": 11, "value": BIG}}),
        ({"78": 0}, {"iButton": {"id": 78, "value": 0}}),
        ({"239": 256}, {}),
        ({"239": {"__bigint": str(2**63)}}, {}),
        ({"239": {"__buffer_b64": ""}}, {}),
        ({"239": True}, {}),
        ({"65000": 1}, {}),
        ({"9" * 5000: 1}, {}),
        ({"message": "DI1:1", "timestamp_ms": 5, "²": 1}, {}),
    ],
)
def test_attribute_is_named_if_it_fits_an_entry(
    naming: Naming, attributes: dict[str, Any], named: dict[str, Any]
) -> None:
    assert naming.named(attributes, None, None) == named


def test_variable_element_is_named_and_not_scaled(naming: Naming) -> None:
    raw = {"__buffer_b64": "EQ=="}
    assert list(naming.named({"385": raw}, None, None).values()) == [{"id": 385, "value": raw}]


@pytest.mark.parametrize(
    ("model", "value"),
    [(None, 6543.6), ("FMC130", 6543.6), ("FM3612", -10.0), ("unknown", 6543.6)],
)
def test_model_of_a_device_selects_the_family_of_entries(
    naming: Naming, model: str | None, value: float
) -> None:
    (named,) = naming.named({"72": 0xFF9C}, None, model).values()
    assert named["value"] == value


def test_entries_of_a_model_take_precedence(naming: Naming) -> None:
    named = naming.named({"66": 1392, "7777": 255, "239": 1}, None, "FMB920")
    assert named == {
        "Battery of the truck": {"id": 66, "value": 13.92, "unit": "V"},
        "Ours": {"id": 7777, "value": -2},
        "Ignition": {"id": 239, "value": 1},
    }
    assert "External Voltage" in naming.named({"66": 1392}, None, "FMB120")
