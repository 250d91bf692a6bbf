"""The dictionary of IO elements: its entries, and the values that they scale."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tracker.vendors.teltonika.dictionary import Dictionary, load, read

HEADER = "id,name,size,signed,multiplier,unit,models"


@pytest.fixture(scope="module")
def table() -> Dictionary:
    return load()


@pytest.mark.parametrize(
    ("element_id", "size", "value", "scaled", "unit"),
    [
        (17, 2, 0xFF9C, -100, "mG"),
        (18, 2, 0xFF22, -222, "mG"),
        (72, 4, 0xFFFFFF9C, -10.0, "°C"),
        (72, 2, 0xFF9C, -10.0, "°C"),
        (25, 2, 0xFB5D, -11.87, "°C"),
        (10800, 2, 0xFB5D, -11.87, "°C"),
        (10644, 2, 0xFB5D, -11.87, "°C"),
        (10649, 2, 2_150, 21.5, "°C"),
        (400, 4, 0xFFFFFFFF, 0xFFFFFFFF, ""),
        (10836, 2, 0xFFFF, 0xFFFF, ""),
        (32, 1, 0xF6, -10, "°C"),
        (202, 1, 0x80, -128, "°C"),
        (202, 1, 0x7F, 127, "°C"),
        (66, 2, 13_920, 13.92, "V"),
        (66, 2, 0xFFFF, 65.535, "V"),
        (800, 4, 12_345, 12.345, "V"),
        (181, 2, 14, 1.4, ""),
        (45, 2, 3, 30, "kPa"),
        (16, 4, 0xFFFFFFFF, 0xFFFFFFFF, "m"),
        (11, 8, 2**64 - 1, 2**64 - 1, ""),
        (239, 1, 1, 1, ""),
    ],
)
def test_value_is_signed_and_scaled_by_its_entry(
    table: Dictionary, element_id: int, size: int, value: int, scaled: float, unit: str
) -> None:
    entry = table.find(element_id, size)
    assert entry is not None
    assert entry.scaled(value) == scaled
    assert entry.unit == unit


@pytest.mark.parametrize(
    ("element_id", "size", "name"),
    [
        (239, 1, "Ignition"),
        (240, 1, "Movement"),
        (21, 1, "GSM Signal"),
        (241, 4, "Active GSM Operator"),
        (71, 8, "Dallas Temperature ID 4"),
        (71, 1, "GNSS Status"),
        (205, 2, "GSM Cell ID"),
        (205, 4, "GSM Cell ID"),
        (385, 0, "Beacon"),
        (100, 4, "Program Number"),
        (101, 8, "Module ID (8 bytes)"),
        (388, 0, "Module ID (17 bytes)"),
        (124, 8, "Agricultural Machinery Flags"),
        (517, 8, "Security State Flags P4"),
        (518, 8, "Control State Flags P4"),
        (519, 8, "Indicator State Flags P4"),
        (662, 1, "Car Is Closed"),
        (10644, 2, "Reefer Temperature Probe 1"),
        (10828, 0, "EYE Sensor Data 1"),
        (10829, 0, "EYE Sensor Data 2"),
        (10831, 0, "EYE Sensor List Data"),
        (10839, 2, "EYE Movement Count 4"),
        (10843, 2, "EYE Magnet Count 4"),
        (11317, 0, "EYE Sensor List"),
    ],
)
def test_id_and_size_select_a_name(
    table: Dictionary, element_id: int, size: int, name: str
) -> None:
    entry = table.find(element_id, size)
    assert entry is not None
    assert entry.name == name


@pytest.mark.parametrize(("element_id", "size"), [(239, 2), (66, 4), (256, 8), (9, 0), (60000, 1)])
def test_id_with_another_size_is_unknown(table: Dictionary, element_id: int, size: int) -> None:
    assert table.find(element_id, size) is None


def test_entries_have_valid_fields(table: Dictionary) -> None:
    assert len(table.entries) >= 200
    for entry in table.entries.values():
        assert 0 < entry.id < 1 << 16
        assert entry.size in (0, 1, 2, 4, 8)
        assert entry.name == entry.name.strip() != ""
        assert entry.multiplier > 0
        assert entry.models
        assert not (entry.signed and entry.size in (0, 8))
        if entry.size:
            assert entry.scaled(0) == 0
            assert entry.scaled(1) == float(entry.multiplier)
            assert (entry.scaled(256**entry.size - 1) < 0) is entry.signed


def test_entries_are_sorted_by_id(table: Dictionary) -> None:
    ids = [element_id for element_id, _ in table.entries]
    assert ids == sorted(ids)


def test_models_in_the_dictionary_are_known_families(table: Dictionary) -> None:
    families = {family for entry in table.entries.values() for family in entry.models.split("/")}
    assert families == {"FMB", "FMC", "FMM", "FM36", "FM63", "FM6", "FT"}


def test_dictionary_of_the_user_is_read() -> None:
    (entry,) = read([HEADER, "7,Depth,2,1,0.5,m,X1/X2"]).entries.values()
    assert (entry.name, entry.multiplier, entry.models) == ("Depth", Decimal("0.5"), "X1/X2")
    assert entry.scaled(0xFFFF) == -0.5


def test_duplicate_entry_is_refused() -> None:
    row = "7,Depth,2,1,0.5,m,X1"
    with pytest.raises(ValueError, match="id 7 of size 2 has more than one entry"):
        read([HEADER, row, row])


def test_each_load_returns_a_new_dictionary() -> None:
    assert load() is not load()
    assert load() == load()
