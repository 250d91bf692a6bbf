"""Errors of invalid documents, with their paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vendors.teltonika.examples import (
    CODEC_16_FRAME,
    COMMAND,
    DATAGRAM,
    EXAMPLES,
    NOT_THIS_DEVICE,
    TIMED,
    as_bytes,
    as_document,
    json_values,
)
from tests.unit.vendors.teltonika.golden import DRIVING, PANIC, STREAM
from tests.unit.vendors.teltonika.golden_datagrams import MESSAGE_12
from tests.unit.vendors.teltonika.golden_five_groups import WIDE_ELEMENTS
from tracker.outcomes import Decoded
from tracker.vendors.documents import BadDocument
from tracker.vendors.teltonika.frames import decode_frames
from tracker.vendors.teltonika.parsing import parse

REMOVED = object()


def with_change(data: bytes, path: list[str | int], value: Any) -> Any:
    """Return the document of these bytes with one value replaced or removed.

    :param path: keys and indexes to the value.
    :param value: new value; ``REMOVED`` to remove the old one.
    """
    made = target = as_document(data)
    for step in path[:-1]:
        target = target[step]
    if value is REMOVED:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return made


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, "document: expected an object, found null"),
        ("FF", 'document: expected an object, found "FF"'),
        ([], "document: expected an object or a non-empty array, found an empty array"),
        ([3], "[0]: expected an object, found 3"),
        ({}, "kind: expected this field, found nothing"),
        (
            {"kind": "packet"},
            'kind: expected one of "ping", "login", "frame", "datagram", found "packet"',
        ),
        ({"kind": ["ping"]}, "found an array of 1 item"),
        ({"kind": "ping", "count": 0}, "count: expected an integer from 1 to 16777216, found 0"),
        ({"kind": "ping", "count": True}, "found true"),
        ({"kind": "ping", "count": 1.0}, "found 1.0"),
        ({"kind": "ping", "count": None}, "found null"),
        ({"kind": "ping", "count": {}}, "found an object"),
        ({"kind": "login", "imei": "35630704244101"}, "imei: expected 15 digits in quotes"),
        ({"kind": "login", "imei": 356307042441013}, "imei: expected 15 digits in quotes"),
        ({"kind": "login", "imei": "٣" * 15}, "imei: expected 15 digits in quotes"),
        (
            [{"kind": "ping", "count": 1}, {"kind": "login", "imei": "x" * 200}],
            '[1].imei: expected 15 digits in quotes, found "xxx',
        ),
        (
            {"kind": "ping", "count": 1, "cuont": 2},
            'document: expected only the fields kind, count, found field "cuont"',
        ),
    ],
)
def test_error_in_a_small_document_has_its_path(value: Any, error: str) -> None:
    with pytest.raises(BadDocument) as caught:
        parse(value)
    assert error in str(caught.value)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "path", "value", "error"),
    [
        (PANIC.frame, ["codec"], "9", 'codec: expected one of "8", "8E", "16", "12", "13", '),
        (PANIC.frame, ["codec"], "7", 'found "7", which can only be decoded'),
        (
            PANIC.frame,
            ["records"],
            {},
            "records: expected an array of 0 to 255 items, found an object",
        ),
        (PANIC.frame, ["records", 0], 1, "records[0]: expected an object, found 1"),
        (
            PANIC.frame,
            ["records", 0, "priority"],
            256,
            "records[0].priority: expected an integer from 0 to 255, found 256",
        ),
        (PANIC.frame, ["records", 0, "speed"], REMOVED, "records[0].speed: expected this field"),
        (
            PANIC.frame,
            ["records", 0, "latitude"],
            54.687155,
            "records[0].latitude: expected an integer from -2147483648 to 2147483647, "
            "found 54.687155",
        ),
        (PANIC.frame, ["records", 0, "generation"], 5, "records[0]: expected only the fields"),
        (CODEC_16_FRAME, ["records", 1, "generation"], REMOVED, "records[1].generation: expected"),
        (
            DRIVING.frame,
            ["records", 0, "elements", 3, "id"],
            256,
            "records[0].elements[3].id: expected an integer from 0 to 255, found 256",
        ),
        (
            DRIVING.frame,
            ["records", 0, "elements", 3, "width"],
            3,
            "records[0].elements[3].width: expected 1, 2, 4, 8, found 3",
        ),
        (
            DRIVING.frame,
            ["records", 0, "elements", 3, "width"],
            "variable",
            'elements[3].width: expected 1, 2, 4, 8, found "variable"',
        ),
        (
            DRIVING.frame,
            ["records", 0, "elements", 3, "width"],
            16,
            'elements[3].width: expected 1, 2, 4, 8 or, beside "groups": 5, 16, found 16',
        ),
        (DRIVING.frame, ["groups"], 6, "groups: expected an integer from 4 to 5, found 6"),
        (PANIC.frame, ["groups"], 5, "expected only the fields kind, codec, records, found field"),
        (
            WIDE_ELEMENTS.frame,
            ["records", 0, "elements", 2, "value"],
            "00",
            'elements[2].value: expected 16 pairs of hex digits in quotes, found "00"',
        ),
        (
            WIDE_ELEMENTS.frame,
            ["records", 0, "elements", 2, "width"],
            3,
            "elements[2].width: expected 1, 2, 4, 8, 16, found 3",
        ),
        (
            PANIC.frame,
            ["records", 0, "elements", 3, "width"],
            True,
            'elements[3].width: expected 1, 2, 4, 8 or "variable", found true',
        ),
        (
            PANIC.frame,
            ["records", 0, "elements", 0, "value"],
            256,
            "elements[0].value: expected an integer from 0 to 255, found 256",
        ),
        (
            PANIC.frame,
            ["records", 0, "elements", 13, "value"],
            "ABC",
            'elements[13].value: expected pairs of hex digits in quotes, found "ABC"',
        ),
        (
            PANIC.frame,
            ["records", 0, "elements", 13, "value"],
            "00" * 65536,
            "elements[13].value: expected at most 65535 bytes",
        ),
        (
            DRIVING.frame,
            ["records", 0, "elements"],
            [{"id": 1, "width": 1, "value": 1}] * 256,
            "records[0].elements: expected an array of 0 to 255 items, found an array of 256 items",
        ),
        (COMMAND, ["text"], REMOVED, "text: expected this field, found nothing"),
        (COMMAND, ["text"], 5, "text: expected text, found 5"),
        (COMMAND, ["text"], "\ud800", "text: expected text"),
        (COMMAND, ["hex"], "41", 'found field "text"'),
        (
            COMMAND,
            ["quantities"],
            [1],
            "quantities: expected an array of 2 items, found an array of 1 item",
        ),
        (COMMAND, ["quantities", 1], -1, "quantities[1]: expected an integer from 0 to 255"),
        (COMMAND, ["timestamp"], 1, 'found field "timestamp"'),
        (TIMED, ["timestamp"], 2**32, "timestamp: expected an integer from 0 to 4294967295"),
        (NOT_THIS_DEVICE, ["imei"], REMOVED, "imei: expected this field"),
        (DATAGRAM, ["packet_id"], 65536, "packet_id: expected an integer from 0 to 65535"),
        (DATAGRAM, ["codec"], "12", "messages: expected this field, found nothing"),
        (MESSAGE_12, ["messages", 0, "text"], 5, "messages[0].text: expected text, found 5"),
        (MESSAGE_12, ["messages", 0, "imei"], "1", 'found field "imei"'),
        (MESSAGE_12, ["messages"], [], "quantities: expected [0, 0] without messages, found"),
        (MESSAGE_12, ["messages"], 5, "messages: expected an array of 0 to 255 items, found 5"),
        (TIMED, ["timestamp"], 946_684_799_999, "timestamp: expected an integer from 0 to"),
        (STREAM, [3, "records", 0, "angle"], -1, "[3].records[0].angle: expected"),
        (
            STREAM,
            [3],
            as_document(DATAGRAM),
            '[3].kind: expected a ping, login or frame, found "datagram" in an array of several',
        ),
    ],
)
def test_error_in_a_frame_has_its_path(
    data: bytes, path: list[str | int], value: Any, error: str
) -> None:
    with pytest.raises(BadDocument) as caught:
        parse(with_change(data, path, value))
    assert error in str(caught.value)


def test_datagram_of_more_than_65535_bytes_is_refused() -> None:
    made = as_document(DATAGRAM)
    made["records"] *= 255
    for record in made["records"]:
        record["elements"] = [{"id": 1, "width": 8, "value": 1}] * 255
    with pytest.raises(BadDocument, match="records: expected a length of at most 65535"):
        parse(made)


@given(json_values)
def test_random_json_is_refused_as_a_document(value: Any) -> None:
    with pytest.raises(BadDocument):
        parse(value)


@given(st.sampled_from(list(EXAMPLES.values())), st.data())
def test_document_with_a_random_value_is_encoded_or_refused(
    data: bytes, draw: st.DataObject
) -> None:
    made = target = as_document(data)
    while isinstance(target, dict | list) and target:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = draw.draw(st.sampled_from(keys))
        if draw.draw(st.booleans()) or not isinstance(target[key], dict | list):
            target[key] = draw.draw(json_values)
            break
        target = target[key]
    try:
        made_bytes = as_bytes(made)
    except BadDocument:
        return
    assert isinstance(decode_frames(made_bytes), Decoded)
