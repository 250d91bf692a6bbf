"""Documents of frames, and summaries of traffic."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.vendors.queclink.golden import COMMAND_ANSWER, FRI_GV300, GOLDEN, HEARTBEAT, IDS
from tests.unit.vendors.queclink.golden_hex import HEX_GOLDEN, HEX_IDS
from tracker.outcomes import Decoded, Fatal
from tracker.vendors.documents import BadDocument, read_json
from tracker.vendors.queclink.description import describe
from tracker.vendors.queclink.inspection import QueclinkDecoder, QueclinkEncoder

SACK = b"+SACK:11F0$"
HEARTBEAT_SACK = b"+SACK:GTHBD,,11F0$"
COMMAND = b"AT+GTRTO=gl300,1,,,,,,FFFF$"
OLD = FRI_GV300.data.replace(b"$", b"\0")


def documents(data: bytes) -> Any:
    """Return the document of bytes as a reader of the JSON text has it."""
    outcome = QueclinkDecoder().decode(data)
    assert isinstance(outcome, Decoded)
    assert outcome.used == len(data)
    return json.loads(json.dumps(outcome.value))


def encode(document: Any) -> bytes:
    return QueclinkEncoder().encode(read_json(json.dumps(document)))


@pytest.mark.parametrize("golden", GOLDEN, ids=IDS)
def test_document_of_a_report_has_its_fields_and_records(golden: Any) -> None:
    document = documents(golden.data)
    assert document["device_id"] == golden.device_id
    assert len(document.get("records", [])) == len(golden.entries)
    assert encode(document) == golden.data


@pytest.mark.parametrize("golden", HEX_GOLDEN, ids=HEX_IDS)
def test_document_of_a_report_in_hex_restores_its_bytes(golden: Any) -> None:
    assert encode(documents(golden.data)) == golden.data


@pytest.mark.parametrize("data", [SACK, HEARTBEAT_SACK, COMMAND, OLD])
def test_document_of_other_bytes_restores_them(data: bytes) -> None:
    assert encode(documents(data)) == data


def test_document_of_several_frames_omits_the_bytes_between_them() -> None:
    data = FRI_GV300.data + b"\r\n" + HEARTBEAT.data + SACK
    assert encode(documents(data)) == data.replace(b"\r\n", b"")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (FRI_GV300.data[:-1], Fatal(0, "the frame is truncated")),
        (SACK + b"+RESP:GTFRI,060100", Fatal(len(SACK), "the frame is truncated")),
        (SACK + b"GET /$", Fatal(len(SACK), "bytes that begin no frame")),
    ],
)
def test_malformed_bytes_are_an_error_with_their_offset(data: bytes, error: Fatal) -> None:
    assert QueclinkDecoder().decode(data) == error


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"header": "+OK"}, "header: expected one of "),
        ({"header": "+RESP", "fields": [""]}, "report: expected this field, found nothing"),
        ({"header": "+RESP", "report": "FRI", "fields": [""]}, "report: expected a name such as"),
        ({"header": "+SACK", "fields": ["a,b"]}, "fields[0]: expected a text without comma"),
        ({"header": "+SACK", "fields": ["a"], "x": 1}, "document: expected only the fields"),
        ([{"header": "+SACK", "fields": ["a"], "end": "#"}], "[0].end: expected "),
    ],
)
def test_malformed_document_is_an_error_with_its_path(document: Any, error: str) -> None:
    with pytest.raises(BadDocument) as raised:
        encode(document)
    assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
    ("data", "sent", "expected"),
    [
        (SACK, True, ("ack", "count 11F0")),
        (HEARTBEAT_SACK, True, ("ack", "count 11F0")),
        (HEARTBEAT.data, False, ("heartbeat", "")),
        (
            FRI_GV300.data,
            False,
            ("report", "GTFRI, 1 record, 2009-02-14T01:32:54.000Z, 31.222073,121.354335, 4 km/h"),
        ),
        (
            COMMAND_ANSWER.data,
            False,
            ("answer", "GTRTO, 1 record, 2010-03-10T17:28:30.000Z"),
        ),
        (b"\r\n", False, ("blank", "2 bytes")),
    ],
)
def test_traffic_has_a_summary(data: bytes, sent: bool, expected: tuple[str, str]) -> None:
    described = json.loads(json.dumps(describe(data, sent)))
    assert QueclinkDecoder().summarise(described, sent) == expected


def test_documents_of_other_vendors_have_no_summary() -> None:
    for document in ({"acknowledged": 1}, {"kind": "ping"}, {"number": "0x13", "serial": 1}):
        assert QueclinkDecoder().summarise(document, sent=True) is None
