"""The tables of IO elements: their rows, their groups of models, and files of the user."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.unit.vendors.teltonika.meanings import MEANINGS
from tracker.vendors.teltonika.dictionary import (
    AvlId,
    Groups,
    check_unique,
    load,
    load_aliases,
    load_companions,
    load_groups,
    read,
)
from tracker.vendors.teltonika.naming import Naming

HEADER = "id,name,size,signed,multiplier,unit,models"


@pytest.fixture(scope="module")
def table() -> tuple[AvlId, ...]:
    return load()


@pytest.fixture(scope="module")
def groups() -> Groups:
    return load_groups()


@pytest.fixture(scope="module")
def naming() -> Naming:
    return Naming({})


@pytest.mark.parametrize(
    ("model", "element_id", "size", "raw", "name", "value", "unit"),
    MEANINGS,
    ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in MEANINGS],
)
def test_meaning_that_was_checked_by_hand_is_in_the_table(
    naming: Naming,
    *,
    model: str,
    element_id: int,
    size: int,
    raw: int,
    name: str,
    value: float,
    unit: str,
) -> None:
    found = naming.names(model).element(element_id, size, raw, {})
    assert found is not None
    assert (found[0], found[1]["value"], found[1].get("unit", "")) == (name, value, unit)


@pytest.mark.parametrize(
    ("element_id", "name"),
    [
        (264, "Barcode ID"),
        (385, "Beacon"),
        (388, "Module ID (17 bytes)"),
        (10828, "EYE Sensor Data 1"),
        (11317, "EYE Sensor List"),
    ],
)
def test_variable_elements_are_in_the_table(naming: Naming, element_id: int, name: str) -> None:
    found = naming.names("FMB120").element(element_id, 0, b"\x11", {})
    assert found is not None
    assert found[0] == name


def test_rows_have_valid_fields(table: tuple[AvlId, ...]) -> None:
    assert len(table) > 2000
    for entry in table:
        assert 0 < entry.id < 1 << 16
        assert entry.name == " ".join(entry.name.split()) != ""
        assert entry.unit == entry.unit.strip()
        assert entry.models
        assert not (entry.signed and entry.size not in (1, 2, 4))
        assert not (entry.errors and entry.states)
        lowest = -(entry.limit // 2) if entry.signed else 0
        highest = lowest + entry.limit - 1
        codes = [*entry.states, *entry.errors]
        bounds = [bound for bound in (entry.minimum, entry.maximum) if bound is not None]
        assert all(lowest <= number <= highest for number in (*bounds, *codes)), entry
        assert len(bounds) in (0, 2)
        words = [*entry.states.values(), *entry.errors.values()]
        assert all(text == text.strip() != "" for text in words), entry


def test_rows_are_sorted_by_id_and_size(table: tuple[AvlId, ...]) -> None:
    keys = [(entry.id, entry.size) for entry in table]
    assert keys == sorted(keys)


def test_groups_and_models_of_rows_are_known(table: tuple[AvlId, ...], groups: Groups) -> None:
    models = {name for members in groups.members.values() for name in members}
    used = {name for entry in table for name in entry.models}
    assert used <= set(groups.members) | models
    assert set(groups.members) <= used
    assert not set(groups.members) & models
    assert groups.partial < set(groups.members)


def test_no_model_has_two_meanings_of_an_id_in_one_size(
    table: tuple[AvlId, ...], groups: Groups
) -> None:
    for model in {name for members in groups.members.values() for name in members}:
        lists = {*groups.of(model.replace("x", "0")), model}
        check_unique(entry for entry in table if lists & set(entry.models))


def test_aliases_belong_to_names_of_the_table(table: tuple[AvlId, ...]) -> None:
    names = {entry.name for entry in table}
    aliases = load_aliases()
    assert set(aliases.values()) <= names
    assert not set(aliases) & set(aliases.values())


def test_companions_decide_between_lists_that_disagree(
    table: tuple[AvlId, ...], groups: Groups
) -> None:
    models = {name for members in groups.members.values() for name in members}
    meanings: dict[tuple[int, int], dict[str, str]] = {}
    for entry in table:
        for model in models:
            if {*groups.of(model.replace("x", "0")), model} & set(entry.models):
                meanings.setdefault((entry.id, entry.size), {})[model] = entry.name
    for (element_id, size), companions in load_companions().items():
        names = meanings[element_id, size]
        decided = set(names).intersection(*(meanings[one, size] for one in companions))
        assert len({names[model] for model in decided}) == 1 < len(set(names.values()))


def test_sensors_of_one_kind_have_equal_errors(table: tuple[AvlId, ...]) -> None:
    for kind in ("BLE Temperature #", "BLE Humidity #", "EYE Temperature ", "Dallas Temperature "):
        sensors = [entry for entry in table if entry.name[:-1] == kind and entry.name[-1].isdigit()]
        assert len(sensors) >= 4
        assert len({tuple(entry.errors.items()) for entry in sensors}) == 1
        assert len({(entry.minimum, entry.maximum) for entry in sensors}) == 1


def test_file_of_the_user_needs_no_further_columns() -> None:
    (entry,) = read([HEADER, "7,Depth,2,1,0.5,m,X1 X2"])
    assert entry == AvlId(7, "Depth", 2, True, Decimal("0.5"), "m", ("X1", "X2"))
    assert read(["unit,size,id,name,multiplier,signed", "m,2,7,Depth,0.5,1"]) == (
        AvlId(7, "Depth", 2, True, Decimal("0.5"), "m"),
    )


def test_file_of_the_user_may_have_all_columns() -> None:
    header = f"{HEADER},kind,min,max,states,errors"
    depth, word = read(
        [header, "7,Depth,2,1,1,,,,-5,90,0=dry|1=wet,99=broken|-9=lost", "8,Word,0,0,1,,,text,,,,"]
    )
    assert (depth.minimum, depth.maximum) == (-5, 90)
    assert depth.states == {0: "dry", 1: "wet"}
    assert depth.errors == {99: "broken", -9: "lost"}
    assert word.is_text


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("7,Depth", "row 2: 2 columns instead of 7"),
        ("seven,Depth,2,1,1,,", "row 2: not a number"),
        ("7,Depth,3,1,1,,", "row 2: size 3: must be one of 0, 1, 2, 4, 8, 16"),
        ("7,Depth,2,1,x,,", "row 2: not a number"),
        ("7,Depth,2,1,0,,", "row 2: multiplier 0: must be more than 0"),
        ("7,Depth,2,1,nan,,", "row 2: multiplier nan: must be more than 0"),
    ],
)
def test_invalid_row_is_refused_with_its_number(row: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        read([HEADER, row])


def test_invalid_kind_and_code_are_refused() -> None:
    with pytest.raises(ValueError, match="row 2: kind 'hex': must be empty or 'text'"):
        read([f"{HEADER},kind", "7,Depth,0,0,1,,,hex"])
    with pytest.raises(ValueError, match="row 2: not a number"):
        read([f"{HEADER},states", "7,Depth,1,0,1,,,on"])


def test_duplicate_entry_is_refused() -> None:
    row = "7,Depth,2,1,0.5,m,X1"
    with pytest.raises(ValueError, match="id 7 of size 2 has more than one entry"):
        check_unique(read([HEADER, row, row]))
