"""Positions and their payload: a deterministic encoding, and a strict parser."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker import position as position_module
from tracker.position import (
    MAX_SAFE_INTEGER,
    MAX_TIMESTAMP_MS,
    BadEntry,
    EncodedAttributes,
    Entry,
    Position,
    attribute,
    digest,
    iso_milliseconds,
)

POSITION = Position(
    device_id="356307042441013",
    timestamp="2024-03-15T12:10:00.000Z",
    latitude=-34.6037,
    longitude=-58.3816,
    altitude=25,
    angle=0,
    speed=0,
    satellites=0,
    priority=0,
    event=0,
    attributes={},
)
PAYLOAD = (
    '{"device_id":"356307042441013","timestamp":"2024-03-15T12:10:00.000Z",'
    '"latitude":-34.6037,"longitude":-58.3816,"altitude":25,"angle":0,"speed":0,'
    '"satellites":0,"priority":0,"event":0,"attributes":{}}'
)
#: What ``b2sum -l 128`` says of the payload above.
DIGEST = "c84d913379b47a43b864bbd53bb74485"

MISSING = object()

integers_64 = st.integers(-(2**63), 2**63 - 1)
degrees = st.none() | st.floats(allow_nan=False, allow_infinity=False)
attribute_values = (
    integers_64
    | st.text(max_size=10)
    | st.booleans()
    | st.none()
    | st.integers(0, 2**64 - 1).map(attribute)
    | st.binary(max_size=10).map(attribute)
)
positions = st.builds(
    Position,
    device_id=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=64),
    timestamp=st.integers(0, MAX_TIMESTAMP_MS).map(iso_milliseconds),
    latitude=degrees,
    longitude=degrees,
    altitude=st.none() | integers_64,
    angle=st.none() | integers_64,
    speed=st.none() | integers_64,
    satellites=st.none() | integers_64,
    priority=integers_64,
    event=integers_64,
    attributes=st.dictionaries(st.text(max_size=8), attribute_values, max_size=5),
)


def payload_with(**changes: Any) -> str:
    """Return the payload above with other values, or with values :data:`MISSING`."""
    document = json.loads(PAYLOAD) | changes
    return json.dumps({key: value for key, value in document.items() if value is not MISSING})


def rejection(payload: str) -> str:
    """Return the reason for which a payload is rejected."""
    with pytest.raises(BadEntry) as raised:
        Position.from_payload(payload)
    return str(raised.value)


# Encoding.


def test_payload_is_compact_json_in_the_order_of_the_contract() -> None:
    assert POSITION.to_payload() == PAYLOAD


def test_unknown_values_are_null_in_the_payload() -> None:
    unknown: dict[str, Any] = dict.fromkeys(
        ("latitude", "longitude", "altitude", "angle", "speed", "satellites")
    )
    assert attrs.evolve(POSITION, **unknown).to_payload() == (
        '{"device_id":"356307042441013","timestamp":"2024-03-15T12:10:00.000Z",'
        '"latitude":null,"longitude":null,"altitude":null,"angle":null,"speed":null,'
        '"satellites":null,"priority":0,"event":0,"attributes":{}}'
    )


def test_payload_is_ascii_for_any_attributes() -> None:
    payload = attrs.evolve(POSITION, attributes={"имя": "Tiranë"}).to_payload()
    assert payload.isascii()
    assert Position.from_payload(payload).attributes == {"имя": "Tiranë"}


def test_attributes_keep_their_order() -> None:
    payload = attrs.evolve(POSITION, attributes={"66": 1, "1": 2, "240": 3}).to_payload()
    assert payload.endswith('"attributes":{"66":1,"1":2,"240":3}}')


def test_entry_repeats_time_and_device_of_the_payload() -> None:
    assert POSITION.to_entry("8E") == Entry(
        ts="2024-03-15T12:10:00.000Z", device_id="356307042441013", codec="8E", payload=PAYLOAD
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (MAX_SAFE_INTEGER, 9007199254740991),
        (MAX_SAFE_INTEGER + 1, {"__bigint": "9007199254740992"}),
        (2**64 - 1, {"__bigint": "18446744073709551615"}),
        (b"", {"__buffer_b64": ""}),
        (b"\x00\xff", {"__buffer_b64": "AP8="}),
    ],
)
def test_large_integers_and_bytes_are_tagged_in_json(value: int | bytes, expected: object) -> None:
    assert attribute(value) == expected


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
        (1_717_230_615_250, "2024-06-01T08:30:15.250Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_milliseconds_are_written_as_iso_8601(timestamp_ms: int, text: str) -> None:
    assert iso_milliseconds(timestamp_ms) == text


@pytest.mark.parametrize("timestamp_ms", [-1, 253_402_300_800_000, 2**63, 2**64 - 1])
def test_year_without_four_digits_is_rejected(timestamp_ms: int) -> None:
    with pytest.raises(ValueError, match=f"{timestamp_ms} ms"):
        iso_milliseconds(timestamp_ms)


@given(st.integers(0, MAX_TIMESTAMP_MS), st.integers(0, MAX_TIMESTAMP_MS))
def test_iso_texts_sort_like_the_times_they_stand_for(first: int, second: int) -> None:
    assert (iso_milliseconds(first) < iso_milliseconds(second)) == (first < second)


# The digest.


def test_digest_is_blake2b_of_16_bytes() -> None:
    assert digest(PAYLOAD).hex() == DIGEST


@pytest.mark.parametrize("field", ["altitude", "angle", "speed", "satellites", "priority", "event"])
def test_digest_distinguishes_records_of_one_millisecond(field: str) -> None:
    changes: dict[str, Any] = {field: 1}
    other = attrs.evolve(POSITION, **changes)
    assert digest(other.to_payload()).hex() != DIGEST


# Fix.


@pytest.mark.parametrize(
    ("changes", "has_fix"),
    [
        ({"satellites": 1}, True),
        ({"satellites": 248}, True),
        ({"satellites": 7, "latitude": 0.0}, True),
        ({"satellites": 7, "latitude": 0.0, "longitude": 0.0}, False),
        ({"satellites": 7, "latitude": -90.0, "longitude": 180.0}, True),
        ({"satellites": 7, "latitude": 90.0000001}, False),
        ({"satellites": 7, "longitude": -180.0000001}, False),
        ({"satellites": 0}, False),
        ({"satellites": None}, False),
        ({"satellites": 7, "latitude": None}, False),
        ({"satellites": 7, "longitude": None}, False),
    ],
)
def test_fix_requires_coordinates_and_satellites(changes: dict[str, Any], has_fix: bool) -> None:
    assert attrs.evolve(POSITION, **changes).has_fix() is has_fix


@pytest.mark.parametrize(
    ("fix", "changes", "has_fix"),
    [
        (True, {"satellites": None}, True),
        (True, {"satellites": 0}, True),
        (True, {"latitude": None}, False),
        (True, {"latitude": 0.0, "longitude": 0.0}, False),
        (False, {"satellites": 7}, False),
    ],
)
def test_statement_about_the_fix_replaces_the_satellites(
    fix: bool, changes: dict[str, Any], has_fix: bool
) -> None:
    assert attrs.evolve(POSITION, **changes).has_fix(fix) is has_fix


@pytest.mark.parametrize(
    ("changes", "is_message"),
    [
        ({"latitude": None, "attributes": {"message": "RV:07"}}, True),
        ({"latitude": None}, False),
        ({"attributes": {"message": "RV:07"}}, False),
    ],
)
def test_message_has_a_text_and_no_coordinates(changes: dict[str, Any], is_message: bool) -> None:
    assert attrs.evolve(POSITION, **changes).is_message is is_message


# Parsing.


def test_payload_is_parsed_to_its_position() -> None:
    assert Position.from_payload(PAYLOAD) == POSITION


@given(positions)
def test_any_position_survives_a_round_trip(position: Position) -> None:
    payload = position.to_payload()
    read = Position.from_payload(payload)
    assert read == position
    assert read.to_payload() == payload


def test_unknown_keys_of_a_payload_are_ignored() -> None:
    assert Position.from_payload(payload_with(hdop=0.7, driver={"id": 1})) == POSITION


@pytest.mark.parametrize(
    "field", ["latitude", "longitude", "altitude", "angle", "speed", "satellites"]
)
@pytest.mark.parametrize("value", [None, MISSING], ids=["null", "missing"])
def test_measured_values_may_be_null(field: str, value: object) -> None:
    assert getattr(Position.from_payload(payload_with(**{field: value})), field) is None


def test_degrees_may_be_written_as_an_integer() -> None:
    read = Position.from_payload(payload_with(latitude=54, longitude=-0))
    assert (read.latitude, read.longitude) == (54.0, 0.0)
    assert isinstance(read.latitude, float)


@pytest.mark.parametrize("length", [1, 64])
def test_device_id_has_up_to_64_characters(length: int) -> None:
    read = Position.from_payload(payload_with(device_id="9" * length))
    assert read.device_id == "9" * length


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut off"),
        pytest.param(PAYLOAD[:-1], id="last brace missing"),
        pytest.param(PAYLOAD + "}", id="one brace too many"),
        pytest.param("\ufeff" + PAYLOAD, id="byte order mark"),
        pytest.param("position", id="a word"),
        pytest.param(PAYLOAD.replace("-34.6037", "NaN"), id="NaN"),
        pytest.param(PAYLOAD.replace("-34.6037", "Infinity"), id="Infinity"),
        pytest.param(PAYLOAD.replace("-34.6037", "-Infinity"), id="-Infinity"),
        pytest.param(PAYLOAD.replace("{}", '{"1":NaN}'), id="NaN in an attribute"),
        pytest.param(PAYLOAD.replace("{}", '{"1":' + "9" * 5000 + "}"), id="endless number"),
        pytest.param(PAYLOAD.replace("{}", "[" * 100_000), id="endless nesting"),
    ],
)
def test_invalid_json_is_a_bad_entry(payload: str) -> None:
    assert "not JSON" in rejection(payload)


@pytest.mark.parametrize("payload", ["[]", "null", "1", '"text"', "true", f"[{PAYLOAD}]"])
def test_json_without_an_object_is_a_bad_entry(payload: str) -> None:
    assert "not a JSON object" in rejection(payload)


@pytest.mark.parametrize("value", [MISSING, None, [], "", 0, True, [{}]])
def test_attributes_that_are_not_an_object_are_a_bad_entry(value: object) -> None:
    assert "attributes is not an object" in rejection(payload_with(attributes=value))


@pytest.mark.parametrize(
    "value", [MISSING, None, "", "1" * 65, "٣" * 15, "Tiranë", 356307042441013, True, ["1"], {}]
)
@pytest.mark.parametrize("field", ["device_id", "timestamp"])
def test_text_that_is_long_or_not_ascii_is_a_bad_entry(field: str, value: object) -> None:
    assert f"{field} is not a short ASCII text" in rejection(payload_with(**{field: value}))


@pytest.mark.parametrize(
    "timestamp",
    [
        "now",
        "2024-03-15",
        "2024-03-15T12:10:00Z",
        "2024-03-15T12:10:00.000",
        "2024-03-15T12:10:00.0000",
        "2024-03-15 12:10:00.000Z",
        "2024-03-15t12:10:00.000Z",
        "2024-03-15T12:10:00.000z",
        "2024-03-15T12:10:00.00000Z",
        "2024-03-15T12:10:00+00:00",
        "2024-03-15T12:10:00+0000Z",
        "2024-13-15T12:10:00.000Z",
        "2024-02-30T12:10:00.000Z",
        "2023-02-29T12:10:00.000Z",
        "2024-03-15T24:10:00.000Z",
        "2024-03-15T12:60:00.000Z",
        "2024-03-15T12:10:60.000Z",
        "0000-03-15T12:10:00.000Z",
        "+999-03-15T12:10:00.000Z",
        "2024-03-15T12:10:00.-00Z",
        "2024-03-15T12:10: 0.000Z",
        " 2024-03-15T12:10:00.000Z",
        # Python accepts these. A second form of the same time would be stored as another row.
        "2024-03-15T12:10:00,000Z",
        "2024-W11-5T12:10:00.000Z",
        "2024-03-15T121000.00000Z",
    ],
)
def test_time_in_another_form_than_ours_is_a_bad_entry(timestamp: str) -> None:
    reason = rejection(payload_with(timestamp=timestamp))
    assert "timestamp is not of the form 2026-11-22T10:00:00.000Z" in reason


@pytest.mark.parametrize("value", ["54.6", "", True, False, [54.6], {}])
@pytest.mark.parametrize("field", ["latitude", "longitude"])
def test_coordinate_that_is_not_a_number_is_a_bad_entry(field: str, value: object) -> None:
    assert f"{field} is not a number" in rejection(payload_with(**{field: value}))


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize("field", ["latitude", "longitude"])
def test_coordinate_that_is_not_finite_is_a_bad_entry(field: str, number: str) -> None:
    payload = payload_with(**{field: 123456}).replace("123456", number)
    assert "too large a number" in rejection(payload)


@pytest.mark.parametrize("value", ["1", "", True, False, 1.0, 1.5, [1], {}, 2**63, -(2**63) - 1])
@pytest.mark.parametrize("field", ["altitude", "angle", "speed", "satellites", "priority", "event"])
def test_number_that_is_not_a_64_bit_integer_is_a_bad_entry(field: str, value: object) -> None:
    assert f"{field} is not an integer" in rejection(payload_with(**{field: value}))


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63)])
@pytest.mark.parametrize("field", ["altitude", "angle", "speed", "satellites", "priority", "event"])
def test_integers_of_64_bits_are_accepted(field: str, value: int) -> None:
    assert getattr(Position.from_payload(payload_with(**{field: value})), field) == value


@pytest.mark.parametrize("value", [MISSING, None], ids=["missing", "null"])
@pytest.mark.parametrize("field", ["priority", "event"])
def test_payload_with_a_missing_or_null_priority_or_event_is_a_bad_entry(
    field: str, value: object
) -> None:
    assert f"{field} is not an integer" in rejection(payload_with(**{field: value}))


def test_attribute_that_cannot_be_encoded_again_is_a_bad_entry() -> None:
    # Python parses such a number as infinity, which JSON cannot represent.
    assert "payload" in rejection(PAYLOAD.replace("{}", '{"1":1e999}'))


def test_bad_entry_is_a_value_error() -> None:
    assert issubclass(BadEntry, ValueError)


@given(st.text(max_size=60))
def test_any_text_is_a_position_or_a_bad_entry(payload: str) -> None:
    with pytest.raises(BadEntry):
        Position.from_payload(payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(PAYLOAD))), json_values, max_size=3))
def test_any_values_give_an_encodable_position_or_a_bad_entry(
    changes: dict[str, Any],
) -> None:
    try:
        read = Position.from_payload(payload_with(**changes))
    except BadEntry:
        return
    assert Position.from_payload(read.to_payload()) == read


# The fast path for payloads of ingestion, and the general one.

_VALUES = st.one_of(
    st.integers(0, 2**53 - 1),
    st.integers(2**53, 2**64 - 1).map(attribute),
    st.binary(max_size=12).map(attribute),
)
_RECORDS = st.builds(
    Position,
    device_id=st.from_regex(r"[0-9]{15}", fullmatch=True),
    timestamp=st.integers(0, MAX_TIMESTAMP_MS).map(iso_milliseconds),
    latitude=st.integers(-(2**31), 2**31 - 1).map(lambda value: value / 10_000_000),
    longitude=st.integers(-(2**31), 2**31 - 1).map(lambda value: value / 10_000_000),
    altitude=st.integers(-(2**15), 2**15 - 1),
    angle=st.integers(0, 65_535),
    speed=st.integers(0, 65_535),
    satellites=st.integers(0, 255),
    priority=st.integers(0, 255),
    event=st.integers(0, 65_535),
    attributes=st.dictionaries(st.integers(0, 65_535).map(str), _VALUES, max_size=8),
    generation_type=st.one_of(st.none(), st.integers(0, 255)),
)


def both_paths(payload: str) -> tuple[object, object]:
    """Return the results of the fast path, if it applies, and of the general path."""

    def read() -> object:
        try:
            return Position.from_payload(payload)
        except BadEntry as error:
            return str(error)

    fast = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(position_module, "_RECORD", re.compile(r"(?!)"))
        return fast, read()


@given(_RECORDS)
def test_fast_and_general_path_parse_every_record_alike(record: Position) -> None:
    payload = record.to_payload()
    fast, general = both_paths(payload)
    assert fast == general == record
    if "e-" not in payload:
        assert isinstance(fast, Position)
        assert isinstance(fast.attributes, EncodedAttributes)
        assert fast.to_payload() == payload


@given(_RECORDS, st.data())
def test_fast_and_general_path_parse_every_damaged_record_alike(
    record: Position, data: st.DataObject
) -> None:
    payload = record.to_payload()
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(payload) - 1))
        end = start + data.draw(st.integers(0, 3))
        damage = data.draw(st.text('0123456789"{}:,.-e+_Z ', max_size=3))
        payload = payload[:start] + damage + payload[end:]
    fast, general = both_paths(payload)
    assert fast == general


@pytest.mark.parametrize("text", ["{}", '{"1":2}', '{"b":{"a":1}}', '{"message":"\\"a\\":"}'])
def test_encoded_attributes_behave_like_the_decoded_mapping(text: str) -> None:
    encoded, decoded = EncodedAttributes(text), json.loads(text)
    assert [key in encoded for key in ("1", "message", "a", 'ä"')] == [
        key in decoded for key in ("1", "message", "a", 'ä"')
    ]
    assert encoded == decoded
    assert decoded == encoded
    encoded.forget()
    assert dict(encoded) == decoded
    assert len(encoded) == len(decoded)
    assert repr(encoded) == repr(decoded)
