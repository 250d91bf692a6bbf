"""Documents of frames, and summaries of traffic."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.unit.vendors.concox.golden import GOLDEN, HEARTBEAT, LOGIN, POSITION_22, TIME, Golden
from tracker.outcomes import Decoded, Fatal
from tracker.vendors.concox.commands import command_frame
from tracker.vendors.concox.description import describe
from tracker.vendors.concox.frames import encode_frame
from tracker.vendors.concox.inspection import ConcoxDecoder, ConcoxEncoder
from tracker.vendors.concox.reports import answer_frame
from tracker.vendors.documents import read_json

COMMAND = encode_frame(command_frame(b"STATUS#", 7))
ANSWER = encode_frame(answer_frame("Battery:4.1V", 7, 9))
SIZE = len(LOGIN.data)


def documents(data: bytes) -> Any:
    """Return the document of bytes as a reader of the JSON text has it."""
    outcome = ConcoxDecoder().decode(data)
    assert isinstance(outcome, Decoded)
    assert outcome.used == len(data)
    return json.loads(json.dumps(outcome.value))


def encode(document: Any) -> bytes:
    return ConcoxEncoder().encode(read_json(json.dumps(document)))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_document_of_a_frame_restores_it(golden: Golden) -> None:
    document = documents(golden.data)
    assert document["number"] == f"{golden.number:#04x}"
    assert document["serial"] == golden.serial
    assert encode(document) == golden.data


def test_documents_of_a_conversation_restore_its_frames() -> None:
    data = b"".join(golden.data for golden in GOLDEN)
    assert len(documents(data)) == len(GOLDEN)
    assert encode(documents(data)) == data


def test_document_of_a_command_can_be_written_without_its_derived_fields() -> None:
    document = {"number": "0x80", "serial": 1, "server_flag": 7, "command": "STATUS#"}
    assert encode(document) == COMMAND
    assert encode(documents(COMMAND)) == COMMAND


def test_edited_gps_block_is_encoded() -> None:
    document = documents(POSITION_22.data)
    document["gps"]["speed"] = 90
    again = documents(encode(document))
    assert again["gps"]["speed"] == 90
    assert again["fields"] == document["fields"]
    assert again["crc"] != document["crc"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (LOGIN.data + LOGIN.data[:-1], Fatal(SIZE, "the frame is truncated")),
        (LOGIN.data + b"\x78", Fatal(SIZE, "the frame is truncated")),
        (LOGIN.data + b"GET /", Fatal(SIZE, "no start of a frame")),
        (LOGIN.data[:-3] + b"\0\r\n", Fatal(SIZE - 4, "CRC does not match")),
    ],
)
def test_malformed_bytes_are_an_error_with_their_offset(data: bytes, error: Fatal) -> None:
    outcome = ConcoxDecoder().decode(data)
    assert outcome == error
    assert isinstance(outcome, Fatal)
    assert outcome.expected


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"number": 1}, 'number: expected a number such as "0x22", found 1'),
        ({"number": "0x01", "serial": 70_000}, "serial: expected an integer from 0 to 65535"),
        ({"number": "0x01", "serial": 1, "imei": "1"}, "imei: expected 15 digits in quotes"),
        ({"number": "0x13", "serial": 1}, "content: expected this field, found nothing"),
        ({"number": "0x13", "serial": 1, "content": "0"}, "content: expected pairs of hex digits"),
        ({"number": "0x22", "serial": 1, "gps": {"date": "00"}}, "gps.date: expected 6 pairs"),
        ({"number": "0x13", "serial": 1, "extended": 1, "content": ""}, "extended: expected true"),
        ({"number": "0x13", "serial": 1, "content": "00" * 300}, "document: content of 300 bytes"),
        ([{"number": "0x13", "serial": 1, "content": "", "x": 1}], "[0]: expected only the fields"),
        (
            {"number": "0x80", "serial": 1, "server_flag": 1, "command": "A" * 300},
            "command: expected a command that fits into a frame",
        ),
    ],
)
def test_malformed_document_is_an_error_with_its_path(document: Any, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}"):
        encode(document)


@pytest.mark.parametrize(
    ("data", "sent", "expected"),
    [
        (LOGIN.data, False, ("login", "123456789012345")),
        (bytes.fromhex(LOGIN.answer), True, ("ack", "0x01, serial 1")),
        (HEARTBEAT.data, False, ("heartbeat", "")),
        (
            POSITION_22.data,
            False,
            ("position", "0x22, 2015-12-29T02:51:05.000Z, 23.1116933,114.4092978, 0 km/h"),
        ),
        (COMMAND, True, ("command", '"STATUS#"')),
        (ANSWER, False, ("text", '0x21, "Battery:4.1V"')),
        (TIME.data, False, ("time", "")),
    ],
)
def test_traffic_has_a_summary(data: bytes, sent: bool, expected: tuple[str, str]) -> None:
    described = json.loads(json.dumps(describe(data, sent)))
    assert ConcoxDecoder().summarise(described, sent) == expected


def test_documents_of_other_vendors_have_no_summary() -> None:
    for document in ({"acknowledged": 1}, {"kind": "ping"}, {"acknowledged": "11F0"}):
        assert ConcoxDecoder().summarise(document, sent=True) is None
