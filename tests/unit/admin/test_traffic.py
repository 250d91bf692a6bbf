"""Summaries of events, and the output of ``watch``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.vendors.teltonika.examples import EXAMPLES
from tracker.admin.traffic import MAX_SUMMARY, Summaries
from tracker.admin.vendors import tools
from tracker.admin.watch import JsonLines, Lines
from tracker.control.watching import DeviceEvent
from tracker.vendors.teltonika.description import describe
from tracker.vendors.tools import decoder_of

summary = Summaries(list(tools(decoder_of).values())).summary

RECORD = {
    "time": "2026-11-22T10:00:00.000Z",
    "longitude_degrees": 25.25,
    "latitude_degrees": 54.68,
    "speed": 40,
}
PING = {"kind": "ping", "count": 1}
SMALL = {"kind": "frame", "codec": "8", "records": []}


@pytest.mark.parametrize(
    ("kind", "decoded", "expected"),
    [
        ("received", {"kind": "login", "imei": "356307042441013"}, ("login", "356307042441013")),
        ("sent", {"login": "accepted"}, ("login", "accepted")),
        ("sent", {"acknowledged": 1}, ("ack", "1 record")),
        ("sent", {"acknowledged": 0}, ("ack", "0 records")),
        ("received", {"kind": "ping", "count": 1}, ("ping", "")),
        ("received", {"kind": "ping", "count": 3}, ("ping", "3 bytes")),
        (
            "received",
            {"kind": "frame", "codec": "8E", "records": [{}, RECORD]},
            ("records", "codec 8E, 2 records, 2026-11-22T10:00:00.000Z, 54.68,25.25, 40 km/h"),
        ),
        ("received", {"codec": "8", "records": []}, ("records", "codec 8, 0 records")),
        ("received", {"codec": "8", "records": [{}]}, ("records", "codec 8, 1 record")),
        ("sent", {"codec": "12", "type": 5, "text": "getver"}, ("command", 'codec 12, "getver"')),
        ("received", {"codec": "14", "type": 6, "text": "a\nb"},
         ("answer", 'codec 14, "a\\nb"')),
        ("received", {"codec": "14", "type": 17, "text": ""}, ("refusal", 'codec 14, ""')),
        ("received", {"codec": "13", "type": 1, "hex": "00ff"}, ("message", "codec 13, 00ff")),
        ("received", {"bad": "no frame", "offset": 3}, ("unreadable", "offset 3: no frame")),
        ("received", {"left_out": "too long"}, ("received", "too long")),
        ("received", [PING, SMALL, "?"], ("received", "ping, records")),
        ("rejected", {"text": "bad \x1b"}, ("rejected", "bad \\x1b")),
        ("connected", {"text": ""}, ("connected", "")),
        ("received", {"pgn": 61444}, ("received", '{"pgn": 61444}')),
        ("received", None, ("received", "")),
        ("invented", {"x": 1}, ("invented", "")),
    ],
)  # fmt: skip
def test_event_has_a_summary_of_its_content(
    kind: str, decoded: Any, expected: tuple[str, str]
) -> None:
    assert summary(kind, decoded) == expected


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("sent", [True, False])
def test_every_frame_has_a_short_printable_summary(data: bytes, sent: bool) -> None:
    decoded = json.loads(json.dumps(describe(data, sent)))
    what, text = summary("sent" if sent else "received", decoded)
    assert what
    assert len(text) <= MAX_SUMMARY
    assert text.isprintable()


def event(kind: str, raw: bytes = b"", decoded: Any = None, dropped: int = 0) -> DeviceEvent:
    return DeviceEvent(
        "356307042441013", 1795341600.5, kind, raw, json.dumps(decoded), False, dropped
    )


def test_event_is_shown_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(raw=True)
    lines.event(event("sent", b"\x01", {"login": "accepted"}))
    lines.event(event("received", b"\x00" * 30_000, {"left_out": "too long"}, dropped=3))
    lines.event(event("disconnected", decoded={"text": ""}))
    login, dropped, long, gone = capsys.readouterr().out.splitlines()
    time = "2026-11-22T10:00:00.500Z"
    assert login == f"{time} ← login      accepted  1 byte  01"
    assert dropped == f"{time} ! dropped    3 events before this one"
    assert long.startswith(f"{time} → received   too long  30,000+ bytes  0000")
    assert gone == f"{time} · disconnected"


def test_json_output_has_one_object_for_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines("356307042441013", raw=False)
    lines.event(event("received", b"\xff", {"kind": "ping", "count": 1}, dropped=2))
    lines.control("lost", "it was closed")
    ping, lost = map(json.loads, capsys.readouterr().out.splitlines())
    assert list(ping.items()) == [
        ("at", "2026-11-22T10:00:00.500Z"),
        ("device_id", "356307042441013"),
        ("kind", "received"),
        ("direction", "from"),
        ("message", "ping"),
        ("summary", None),
        ("bytes", 1),
        ("raw", None),
        ("decoded", {"kind": "ping", "count": 1}),
        ("truncated", False),
        ("dropped", 2),
    ]
    assert list(lost) == list(ping)
    assert (lost["kind"], lost["summary"]) == ("control-lost", "it was closed")
    assert lost["bytes"] is None
