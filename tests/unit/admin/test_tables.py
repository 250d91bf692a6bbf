"""The layout of every table of ``tracker-admin`` on a terminal of 80 columns."""

from __future__ import annotations

import io
import pkgutil
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

import pytest

import tracker.admin
from tests.system.terminal import ESCAPE
from tracker.admin.output import Column, Kind, show_record, show_rows
from tracker.admin.report import as_table
from tracker.observe.findings import failure

COLUMNS: Final = 80
NOW: Final = 1_795_341_600.0
LONG_AGO: Final = NOW - 364 * 86_400
IMEI: Final = "356307042441013"
ID: Final = "1795341600000-12"
STREAM: Final = "telemetry:teltonika"
#: A host's name of 63 characters (RFC 1035, section 2.3.4), of which an instance is named.
HOST: Final = "tracker-ingest-production-eu-central-1b-7f9c6d5b4d-x2x9q-abcdef"

_CONNECTION: Final = {
    "device_id": IMEI,
    "vendor": "teltonika",
    "address": "100.127.255.254:49152",
    "since": LONG_AGO,
    "last_heard": NOW - 3599,
    "codec": "8E",
    "records": 31_449_600,
    "bytes": 987_654_321_000,
}
_COMMAND: Final = {
    "command_id": "0d07b62b-4dee-4476-a52c-f59459e669a4",
    "device_id": IMEI,
    "instance_id": HOST,
    "status": "responded",
    "reason": "connection-lost",
    "response": "INI:2026/11/25 1:6 RTC:2026/11/25 1:6 RST:0 ERR:0 SR:0 BR:0 CF:0 " * 8,
    "truncated": False,
    "at": LONG_AGO,
    "expires_at": LONG_AGO,
}
_RECORDED: Final = {"text": "setparam " * 50, "sender": "s" * 64, "sent_at": LONG_AGO}
#: Module and name of the columns → the largest realistic values.
TABLES: Final[dict[str, dict[str, Any]]] = {
    "consoleoperators.OPERATOR": {"name": "o" * 32, "permission": "operate"},
    "dead.DEAD_LETTER": {
        "id": ID,
        "original_id": ID,
        "attempts": 1000,
        "reason": "payload: expected a JSON object of at most 1,048,576 characters, found 'x' " * 3,
    },
    "lag.LAG": {
        "stream": STREAM,
        "group": "processor",
        "lag": "1234567",
        "pending": 10_000,
        "oldest": 35_999.0,
        "consumers": [f"{HOST[:14]}-{i} (1000, 0.1s)" for i in range(8)] + ["18 skipped"],
    },
    "positions.POSITION": {
        "device_id": IMEI,
        "last_contact": LONG_AGO,
        "ts": LONG_AGO,
        "latitude": -34.6037123,
        "longitude": -179.9999999,
        "speed": 255,
        "satellites": 255,
    },
    "queries.CONNECTION": _CONNECTION,
    "queries.REGISTRATION": {"device_id": IMEI, "instance_id": HOST, "vendor": "teltonika"},
    "skipped.SKIPPED": {
        "stream": STREAM,
        "entries": 10_000,
        "first": ID,
        "last": ID,
        "first_time": LONG_AGO,
        "last_time": LONG_AGO,
    },
    "streams.STREAM": {
        "stream": "telemetry:teltonika:dead",
        "state": "dead letters",
        "entries": 12_345_678,
        "unprocessed": 12_345_678,
        "oldest_age": 31_536_000.0,
    },
}
RECORDS: Final[dict[str, dict[str, Any]]] = {
    "operations.DRAINED": {"instance_id": HOST, "closed": 100_000, "left": 100_000},
    "operations.DROPPED": {"device_id": IMEI, "address": "100.127.255.254:49152"},
    "operations.LEVEL": {
        "namespace": "tracker.vendors.teltonika.connection",
        "level": "critical",
        "before": "critical",
    },
    "queries.DEVICE": {
        **_CONNECTION,
        "instance_id": HOST,
        "here": True,
        "queued": 1000,
        "outstanding": True,
        "waiting": 1000,
    },
    "queries.INFO": {
        "instance_id": HOST,
        "version": "10.10.10",
        "started_at": LONG_AGO,
        "connections": 100_000,
        "devices": 100_000,
        "commands_held": 100_000,
        "watchers": 1000,
        "draining": False,
        "streams": [STREAM, "telemetry:another-vendor", "commands:responses"],
        "you": "certificate alice@operations.example.org from 100.127.255.254:49152",
        "permission": "operate",
    },
    "send.SENT": _COMMAND,
    "send.STATUS": _COMMAND | _RECORDED,
}


class TerminalOutput(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def columns_of_all_modules() -> Iterator[tuple[str, Sequence[Column]]]:
    """Yield module and name of all columns that are defined for a table or a record."""
    for found in pkgutil.walk_packages(tracker.admin.__path__, "tracker.admin."):
        for name, value in vars(import_module(found.name)).items():
            if isinstance(value, tuple) and value and isinstance(value[0], Column):
                yield f"{found.name.removeprefix('tracker.admin.')}.{name}", value


DEFINED: Final = dict(columns_of_all_modules())


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int = COLUMNS) -> TerminalOutput:
    shown = TerminalOutput()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    return shown


def lines_of(shown: TerminalOutput) -> list[str]:
    lines = ESCAPE.sub("", shown.getvalue()).splitlines()
    assert max(map(len, lines)) <= COLUMNS, lines
    return lines


def test_catalogue_holds_all_columns() -> None:
    # Private columns that several tables have in common are parts of those tables.
    parts = {
        name
        for name, columns in DEFINED.items()
        if "._" in name and any(set(columns) < set(others) for others in DEFINED.values())
    }
    assert DEFINED.keys() - parts == TABLES.keys() | RECORDS.keys()
    for name, row in {**TABLES, **RECORDS}.items():
        assert {column.name for column in DEFINED[name]} == row.keys(), name


@pytest.mark.parametrize("name", TABLES)
def test_table_fits_into_80_columns_without_breaking_a_name_or_number(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = on_terminal(monkeypatch)
    show_rows(DEFINED[name], [TABLES[name]], "table", empty="")
    lines = lines_of(written)
    hidden = capsys.readouterr().err.rstrip(".\n").partition(": ")[2].split(", ")
    for column in DEFINED[name]:
        value = TABLES[name][column.name]
        if column.heading in hidden:
            assert column.optional
        elif column.kind in (Kind.TEXT, Kind.NUMBER) and value != HOST:
            assert any(str(value) in line for line in lines), (column.name, lines)
        elif column.kind is Kind.LIST:
            words = [word for text in value for word in text.split()]
            assert all(any(word in line for line in lines) for word in words)
        elif column.kind is Kind.TIME:
            assert any(" ago" in line for line in lines)


@pytest.mark.parametrize("name", RECORDS)
def test_record_fits_into_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_terminal(monkeypatch)
    show_record(DEFINED[name], RECORDS[name], "table")
    lines_of(written)


def test_name_longer_than_the_table_is_folded_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on_terminal(monkeypatch)
    row = {**TABLES["streams.STREAM"], "stream": "z" * 200}
    show_rows(DEFINED["streams.STREAM"], [row], "table", empty="")
    assert "".join(lines_of(written)).count("z") == 200


def test_optional_columns_are_shown_where_they_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = on_terminal(monkeypatch, 120)
    show_rows(DEFINED["queries.CONNECTION"], [_CONNECTION], "table", empty="")
    assert "VENDOR" in written.getvalue()
    assert capsys.readouterr().err == ""


def test_column_that_is_left_out_is_named_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(monkeypatch)
    show_rows(DEFINED["queries.CONNECTION"], [_CONNECTION], "table", empty="")
    assert capsys.readouterr().err == ("Not shown, as the terminal is too narrow: VENDOR, CODEC.\n")


def test_finding_is_wrapped_below_its_beginning_and_its_fix_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_terminal(monkeypatch)
    fix = "redis-cli " + "CONFIG " * 20
    seen = f"{'x' * 100} {'words ' * 20}"
    heading, *lines = as_table([failure(seen, fix)]).splitlines()
    lines = [ESCAPE.sub("", line) for line in lines]
    indent = heading.index("SEEN")
    *shown, shown_fix, _ = lines
    assert max(map(len, shown)) <= COLUMNS
    assert "".join(line[indent:] for line in shown).replace(" ", "") == seen.replace(" ", "")
    assert not any(line[:indent].strip() for line in shown[1:])
    assert shown_fix == f"    fix: {fix}"
